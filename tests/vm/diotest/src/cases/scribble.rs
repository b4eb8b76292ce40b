// SPDX-License-Identifier: GPL-2.0

//! Memory that changes while it is read into: whoever stores there gets what he
//! deserves in those bytes, and nothing else. The disk is not at fault, and
//! nobody says that it is.

use super::Case;
use crate::aio::Engine;
use crate::buffer::{BLOCK, POISON, Region};
use crate::devices::{self, Devices};
use crate::env::Env;
use crate::fs::{Csum, Fs, Spec};
use crate::mirrors::device_stats;
use crate::model::{self, Model};
use crate::packed;
use crate::read::Via;
use crate::stats::Stats;
use crate::sys;
use crate::{aio, buffer};
use anyhow::{Context, Result, bail, ensure};
use rand::{RngExt, rngs::SmallRng};
use std::fs::File;
use std::ops::Range;
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

/// Size of the file, and most bytes of one read.
const SIZE: usize = 2 << 20;
const LEN: usize = 64 << 10;
/// The bytes that are scribbled on: the last word of each of these.
const STRIDE: usize = 512;

pub fn cases(_: &Env) -> Vec<Case> {
    let mut cases = Vec::new();
    for (profile, csum) in [("single", Csum::Crc32c), ("raid1", Csum::Sha256)] {
        let name = format!("sync-{profile}-{}", csum.name());
        let spec = Spec::new(profile, csum);
        cases.push(Case::new(name, move |env| {
            scribble(env, &spec, &[Via::Pread])
        }));
        let name = format!("async-{profile}-{}", csum.name());
        let spec = Spec::new(profile, csum);
        cases.push(Case::new(name, move |env| {
            scribble(env, &spec, &Engine::ALL.map(Via::Async))
        }));
    }
    cases.push(Case::new("compressed", |env| {
        let spec = packed::spec("single", Csum::Crc32c, "zstd");
        scribble(env, &spec, &[Via::Pread, Via::Async(Engine::Uring)])
    }));
    cases.push(Case::new("bounced", bounced));
    cases.push(Case::new("same_range", same_range));
    cases.push(Case::new("unmapped", unmapped));
    cases
}

/// Where the scribbler may store: shared with the kernel, and with nobody's leave.
struct Target {
    base: *mut u8,
    len: usize,
}

// SAFETY: Only stored to, by atomics, while the mapping is kept.
unsafe impl Sync for Target {}

impl Target {
    /// Stores the last word of each stride.
    fn scribble(&self, stop: &AtomicBool) {
        let mut value = 0u64;
        while !stop.load(Relaxed) {
            for at in (STRIDE - 8..self.len).step_by(STRIDE) {
                value = value.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
                // SAFETY: Aligned, and inside a mapping that outlives the thread.
                let word = unsafe { AtomicU64::from_ptr(self.base.add(at).cast()) };
                word.store(value, Relaxed);
            }
        }
    }
}

/// Whether all but the scribbled bytes are right.
fn right(got: &[u8], want: &[u8]) -> Result<(), String> {
    let all = got.chunks(STRIDE).zip(want.chunks(STRIDE));
    for (i, (got, want)) in all.enumerate() {
        let keep = STRIDE - 8;
        if let Some(at) = buffer::first_difference(&got[..keep], &want[..keep]) {
            return Err(format!("differs at +{}", i * STRIDE + at));
        }
    }
    Ok(())
}

/// Reads into a part of the memory at a random offset of the file.
fn read_one(
    direct: &File,
    file: &Model,
    memory: &mut Region,
    via: Via,
    rng: &mut SmallRng,
) -> Result<()> {
    let unit = if rng.random_range(0..3) == 0 {
        STRIDE
    } else {
        BLOCK
    };
    let len = rng.random_range(1..=LEN / unit) * unit;
    let offset = rng.random_range(0..=(SIZE - len) / unit) * unit;
    for stride in memory.part_mut(0..len).chunks_mut(STRIDE) {
        stride[..STRIDE - 8].fill(POISON);
    }
    read_right(direct, file, memory, offset..offset + len, via)
}

/// Reads a range of a file into the beginning of the memory, and expects its bytes there.
fn read_right(
    direct: &File,
    file: &Model,
    memory: &Region,
    range: Range<usize>,
    via: Via,
) -> Result<()> {
    let (offset, len) = (range.start, range.len());
    let at = format!("offset={offset} length={len} via={via:?}");
    let iov = [memory.iovec(0..len)];
    let count = match via {
        Via::Async(engine) => aio::read(engine, direct, &iov, offset as u64),
        _ => sys::pread(direct.as_raw_fd(), &iov[0], offset as i64),
    };
    let count = count.with_context(|| at.clone())?;
    ensure!(count == len, "{at}: {count}");
    let verdict = right(memory.part(0..len), &file.data[range]);
    ensure!(verdict.is_ok(), "{at}: {verdict:?}");
    Ok(())
}

fn scribble(env: &Env, spec: &Spec, vias: &[Via]) -> Result<()> {
    let mut fs = Fs::make(env, spec)?;
    let mut rng = env.rng(0);
    let mut file = Model::create(fs.path("file"))?;
    let bytes = match spec.options.is_empty() {
        true => model::random(&mut rng, SIZE),
        false => model::compressible(&mut rng, SIZE),
    };
    file.write(0, &bytes)?;
    file.sync()?;
    fs.remount()?;
    let direct = model::open_direct(&file.path)?;
    let mut memory = Region::new(LEN)?;
    let target = Target {
        base: memory.iovec(0..LEN).iov_base.cast(),
        len: LEN,
    };
    let (stop, target) = (&AtomicBool::new(false), &target);
    let before = Stats::look(env)?;
    let until = Instant::now() + env.duration(3);
    let (mut reads, mut failed) = (0u32, 0u32);
    std::thread::scope(|scope| {
        scope.spawn(move || target.scribble(stop));
        let result = (|| {
            while reads < 50 || Instant::now() < until {
                let via = vias[reads as usize % vias.len()];
                reads += 1;
                match read_one(&direct, &file, &mut memory, via, &mut rng) {
                    // The unmodified path takes it for a bad disk.
                    Err(e) if !env.module && is_eio(&e) => failed += 1,
                    other => other?,
                }
            }
            anyhow::Ok(())
        })();
        stop.store(true, Relaxed);
        result
    })?;
    let moved = Stats::all_served(before.as_ref())?;
    eprintln!("# {}: {reads} reads, {failed} failed; {moved}", env.case);
    if env.module {
        // Decoded data never is in memory that others can see before it is checked.
        if spec.options.is_empty() {
            ensure!(moved.get("buffer_changed") > 0, "nobody noticed: {moved}");
        }
        let found = device_stats(&fs)?;
        ensure!(found.is_empty(), "disks were blamed: {found:?}");
    }
    drop(direct);
    file.cross_check()
}

/// Reads that follow each other shortly.
const MANY: u64 = 200;

/// A file whose readers keep writing to their buffers: it is read once, through
/// private memory, and not twice; for a while, and no other file is.
fn bounced(env: &Env) -> Result<()> {
    let mut fs = Fs::make(env, &Spec::new("single", Csum::Crc32c))?;
    let mut rng = env.rng(0);
    let mut files = Vec::new();
    for name in ["file", "other"] {
        let mut file = Model::create(fs.path(name))?;
        file.write_random(&mut rng, 0, SIZE)?;
        file.sync()?;
        files.push(file);
    }
    fs.remount()?;
    let [file, other] = &files[..] else {
        bail!("two files");
    };
    let direct = model::open_direct(&file.path)?;
    let quiet = model::open_direct(&other.path)?;
    let mut memory = Region::new(LEN)?;
    let target = Target {
        base: memory.iovec(0..LEN).iov_base.cast(),
        len: LEN,
    };
    let vias = [
        Via::Pread,
        Via::Async(Engine::Libaio),
        Via::Async(Engine::Uring),
    ];
    let mut nr = 0;
    let mut read = |file: &Model, direct: &File, memory: &mut Region| {
        nr += 1;
        read_long(direct, file, memory, vias[nr % vias.len()], &mut rng)
    };
    let (stop, target) = (&AtomicBool::new(false), &target);
    std::thread::scope(|scope| {
        scope.spawn(move || target.scribble(stop));
        let result = (|| {
            if !env.module {
                return Ok(());
            }
            // Until the first one has been noticed.
            moved_by("buffer_changed", MANY, || read(file, &direct, &mut memory))?;
            let before = (Stats::read()?, Devices::read()?);
            for _ in 0..MANY {
                read(file, &direct, &mut memory)?;
            }
            let moved = Stats::all_served(Some(&before.0))?;
            let devices = Devices::read()?.since(&before.1, &fs)?;
            let bytes = devices::sum(&devices, "bytes");
            eprintln!("# {}: {bytes} bytes for {MANY} reads; {moved}", env.case);
            let (once, changed) = (MANY * LEN as u64, moved.get("buffer_changed"));
            ensure!(
                bytes < once + once / 4 && changed < MANY / 8,
                "{MANY} reads of {once} bytes in all read {bytes} from the device: {moved}"
            );
            let most = moved.get("bounced_unstable") > MANY / 2;
            ensure!(most, "not through private memory: {moved}");
            // Another file is read in place, between two reads of this one that are not.
            let mut quiet_memory = Region::new(LEN)?;
            moved_by("bounced_unstable", MANY, || {
                read(file, &direct, &mut memory)?;
                let before = Stats::read()?;
                read(other, &quiet, &mut quiet_memory)?;
                let moved = Stats::all_at_once(Some(&before))?;
                let in_place = moved.get("bounced_unstable") == 0;
                ensure!(in_place, "so was another file: {moved}");
                Ok(())
            })?;
            Ok(())
        })();
        stop.store(true, Relaxed);
        result
    })?;
    if !env.module {
        return Ok(());
    }
    // In the end, one read in place finds that nobody writes to the buffer any more.
    let deadline = Instant::now() + Duration::from_secs(120);
    loop {
        let before = Stats::read()?;
        read(file, &direct, &mut memory)?;
        let moved = Stats::all_at_once(Some(&before))?;
        if moved.get("bounced_unstable") == 0 {
            break;
        }
        ensure!(Instant::now() < deadline, "for ever: {moved}");
        std::thread::sleep(Duration::from_millis(100));
    }
    let found = device_stats(&fs)?;
    ensure!(found.is_empty(), "disks were blamed: {found:?}");
    Ok(())
}

/// Does something up to so many times, until it moves a counter.
fn moved_by(counter: &str, most: u64, mut f: impl FnMut() -> Result<()>) -> Result<()> {
    let before = Stats::read()?;
    for _ in 0..most {
        f()?;
        if Stats::read()?.get(counter) != before.get(counter) {
            return Ok(());
        }
    }
    bail!("{most} times, and {counter} has not moved")
}

/// Reads as much as fits into the memory, at a random block.
fn read_long(
    direct: &File,
    file: &Model,
    memory: &mut Region,
    via: Via,
    rng: &mut SmallRng,
) -> Result<()> {
    let offset = rng.random_range(0..=(SIZE - LEN) / BLOCK) * BLOCK;
    read_right(direct, file, memory, offset..offset + LEN, via)
}

fn is_eio(error: &anyhow::Error) -> bool {
    let io = error.downcast_ref::<std::io::Error>();
    io.and_then(|e| e.raw_os_error()) == Some(libc::EIO)
}

/// Into a mapping of the very range that is read, by every engine: nothing may
/// change, and nobody may wait for himself.
fn same_range(env: &Env) -> Result<()> {
    for spec in [
        Spec::new("raid1", Csum::Crc32c),
        packed::spec("single", Csum::Crc32c, "zlib"),
    ] {
        let mut fs = Fs::make(env, &spec)?;
        let mut rng = env.rng(0);
        let mut file = Model::create(fs.path("file"))?;
        let bytes = model::uneven(&mut rng, SIZE);
        file.write(0, &bytes)?;
        file.sync()?;
        // Pages of files cannot be registered with a ring.
        let engines = Engine::ALL.into_iter().filter(|e| *e != Engine::UringFixed);
        let vias = engines.map(Via::Async).chain([Via::Pread]);
        for (round, via) in vias.enumerate() {
            if round % 2 == 0 {
                fs.remount()?;
            }
            let direct = model::open_direct(&file.path)?;
            let handle = file.file()?;
            let region = Region::of_file(&handle, SIZE)?;
            for (start, end) in [(0, 32), (24, 32), (800, 2400), (1001, 1009)] {
                let range = start * STRIDE..end * STRIDE;
                let at = format!("range={range:?} via={via:?}");
                let iov = [region.iovec(range.clone())];
                let offset = range.start;
                let count = match via {
                    Via::Async(engine) => aio::read(engine, &direct, &iov, offset as u64),
                    _ => sys::pread(direct.as_raw_fd(), &iov[0], offset as i64),
                };
                match count {
                    Ok(count) => ensure!(count == range.len(), "{at}: {count}"),
                    Err(e) => bail!("{at}: {e}"),
                }
                if let Some(differs) = buffer::first_difference(region.bytes(), &file.data) {
                    bail!("{at}: the file changed at {differs}");
                }
            }
            drop(region);
            handle.sync_all()?;
        }
        file.cross_check()?;
    }
    Ok(())
}

/// Memory that is given back while it is read into, and given to somebody else.
/// Of these engines the kernel has the pages, not the address, by then.
fn unmapped(env: &Env) -> Result<()> {
    let mut fs = Fs::make(env, &Spec::new("raid1", Csum::Crc32c))?;
    let mut rng = env.rng(0);
    let mut file = Model::create(fs.path("file"))?;
    file.write_random(&mut rng, 0, SIZE)?;
    file.sync()?;
    fs.remount()?;
    let direct = model::open_direct(&file.path)?;
    let before = Stats::look(env)?;
    for engine in [Engine::Libaio, Engine::UringFixed] {
        let mut queue = aio::Queue::new(engine, 8)?;
        for _ in 0..env.scaled(40) {
            let offset = rng.random_range(0..=(SIZE - LEN) / BLOCK) * BLOCK;
            let memory = Region::new(LEN)?;
            let iov = [memory.iovec(0..LEN)];
            let start = aio::Start {
                offset: offset as u64,
                iov: &iov,
                tag: 0,
            };
            queue.register(iov[0])?;
            let started = queue.start(&direct, &[start])?;
            ensure!(started == 1, "{started} started");
            drop(memory);
            // Fresh memory: whoever still writes to the old must not hit it.
            let fresh = Region::new(2 * LEN)?;
            for done in queue.finish(1)? {
                let count = done.result.with_context(|| format!("offset={offset}"))?;
                ensure!(count == LEN, "offset={offset}: {count}");
            }
            queue.unregister()?;
            let clean = fresh.bytes().iter().all(|&b| b == POISON);
            ensure!(clean, "offset={offset}: read into memory of others");
        }
    }
    Stats::all_served(before.as_ref())?;
    file.cross_check()
}
