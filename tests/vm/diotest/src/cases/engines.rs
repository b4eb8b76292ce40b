// SPDX-License-Identifier: GPL-2.0

//! Reads whose callers do not wait for them: libaio, io_uring in all its ways,
//! and the loop device. The same bytes as ever, by the same path, and nobody
//! waits in their place.

use super::Case;
use crate::aio::{self, Engine, Queue, Start};
use crate::buffer::{BLOCK, POISON, Region, first_difference};
use crate::env::Env;
use crate::fs::{self, Csum, Fs, Spec};
use crate::kinds;
use crate::mirrors::{Placed, as_reader_of};
use crate::model::{self, Model};
use crate::module::Policy;
use crate::pagecache;
use crate::read::{Request, Via};
use crate::stats::Stats;
use crate::subject::{LONGEST_QUEUED, Subject};
use anyhow::{Context, Result, ensure};
use rand::{RngExt, rngs::SmallRng};
use std::fs::{File, OpenOptions};
use std::ops::Range;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

const B: u64 = BLOCK as u64;

pub fn cases(_: &Env) -> Vec<Case> {
    let mut cases = Vec::new();
    for (profile, csum) in [
        ("raid1", Csum::Crc32c),
        ("single", Csum::NoDataSum),
        ("raid10", Csum::Sha256),
        ("dup", Csum::Xxhash),
        ("raid0", Csum::NoCow),
    ] {
        let name = format!("kinds-{profile}-{}", csum.name());
        cases.push(Case::new(name, move |env| {
            every_kind(env, &Spec::new(profile, csum))
        }));
    }
    for engine in Engine::ALL {
        let name = format!("deep-{}", engine.name());
        cases.push(Case::new(name, move |env| deep(env, engine)));
    }
    for (csum, most) in [
        (Csum::Crc32c, 16 << 10),
        (Csum::Xxhash, 16 << 10),
        (Csum::Sha256, 0),
        (Csum::NoDataSum, 256 << 10),
        (Csum::NoCow, 256 << 10),
    ] {
        let name = format!("ends-{}", csum.name());
        cases.push(Case::new(name, move |env| ends(env, csum, most)));
    }
    cases.push(Case::new("poll_refused", poll_refused));
    cases.push(Case::new("sizes", sizes));
    cases.push(Case::new("longest", longest));
    cases.push(Case::new("corrupt", corrupt));
    cases.push(Case::new("hopeless", hopeless));
    cases.push(Case::new("loop", loop_device));
    cases
}

/// Every kind of extent by every engine, in one vector and in several.
fn every_kind(env: &Env, spec: &Spec) -> Result<()> {
    let mut fs = Fs::make(env, spec)?;
    let files = kinds::all(env, &fs)?;
    fs.remount()?;
    let mut rng = env.rng(100);
    for model in &files {
        let subject = Subject::open(env, model)?;
        let size = model.size();
        let whole = size.next_multiple_of(B) as usize;
        let rounds = if size < B { 1 } else { env.scaled(4) };
        for engine in Engine::ALL {
            let via = Via::Async(engine);
            subject.read(&Request::pread(0, whole).via(via))?;
            for _ in 0..rounds {
                subject.read(&Request::random(&mut rng, size).via(via))?;
                let apart = Request::random(&mut rng, size).jitter(&mut rng, 512);
                subject.read(&apart.via(via))?;
            }
        }
        model.cross_check()?;
    }
    Ok(())
}

/// Files of every size around the limits, read before, at and past the end.
fn sizes(env: &Env) -> Result<()> {
    let mut fs = Fs::make(env, &Spec::new("single", Csum::Crc32c))?;
    let mut rng = env.rng(0);
    let mut files = Vec::new();
    for size in [
        0, 1, 511, 512, 513, 2047, 2048, 2049, 4095, 4096, 4097, 65_537, 300_001,
    ] {
        let mut file = Model::create(fs.path(format!("size{size}")))?;
        file.write_random(&mut rng, 0, size)?;
        file.sync()?;
        files.push(file);
    }
    fs.remount()?;
    for file in &files {
        let subject = Subject::open(env, file)?;
        let end = file.size().next_multiple_of(B);
        let sector = file.size() / 512 * 512;
        let mut offsets = vec![0, end.saturating_sub(B), sector, end, end + B, end + 512];
        offsets.sort_unstable();
        offsets.dedup();
        for engine in Engine::ALL {
            for &offset in &offsets {
                for lens in [vec![BLOCK], vec![4 * BLOCK], vec![512], vec![BLOCK, 1024]] {
                    let request = Request::preadv(offset, lens);
                    subject.read(&request.via(Via::Async(engine)))?;
                }
            }
        }
        file.cross_check()?;
    }
    Ok(())
}

/// Reads in flight, and what each may read into.
const DEPTH: usize = 32;
const SLOT: usize = 160 << 10;

/// One read in flight.
struct Flight {
    offset: usize,
    /// Its parts of the memory.
    parts: Vec<Range<usize>>,
}

impl Flight {
    /// A random read of a file of `size` bytes into a slot.
    fn random(rng: &mut SmallRng, size: usize, slot: usize) -> Self {
        let unit = if rng.random_range(0..4) == 0 {
            512
        } else {
            BLOCK
        };
        let most = if rng.random_range(0..3) == 0 {
            64 << 10
        } else {
            4 * BLOCK
        };
        let len = rng.random_range(1..=most / unit) * unit;
        let offset = rng.random_range(0..=(size - len) / unit) * unit;
        let start = slot * SLOT + BLOCK;
        let parts = match rng.random_range(0..3) {
            0 if len > unit => {
                let first = rng.random_range(1..len / unit) * unit;
                // With a block between them that nobody may touch.
                let second = start + first.next_multiple_of(BLOCK) + BLOCK;
                vec![start..start + first, second..second + (len - first)]
            }
            _ => vec![start..start + len; 1],
        };
        Self { offset, parts }
    }

    /// Checks what the read left in its slot, and poisons that anew.
    fn land(&self, memory: &mut Region, slot: usize, data: &[u8]) -> Result<(), String> {
        let mut at = self.offset;
        for part in &self.parts {
            let want = &data[at..at + part.len()];
            if let Some(differs) = first_difference(memory.part(part.clone()), want) {
                return Err(format!("differs at +{}", at + differs - self.offset));
            }
            memory.part_mut(part.clone()).fill(POISON);
            at += part.len();
        }
        let whole = memory.part(slot * SLOT..(slot + 1) * SLOT);
        match whole.iter().position(|&b| b != POISON) {
            Some(at) => Err(format!("touched its slot at {at}")),
            None => Ok(()),
        }
    }
}

/// Many in flight, which end in whatever order they like.
fn deep(env: &Env, engine: Engine) -> Result<()> {
    let mut fs = Fs::make(env, &Spec::new("raid1", Csum::Crc32c))?;
    let (all, moved) = many(env, &mut fs, engine)?;
    if env.module {
        let counted = moved.get("reads") == all && moved.get("queued") == all;
        ensure!(counted, "{all} reads, all of a device: {moved}");
    }
    Ok(())
}

/// btrfs refuses a ring that polls, as nothing of it can be polled for. The module
/// changes nothing about that.
fn poll_refused(env: &Env) -> Result<()> {
    let fs = Fs::make(env, &Spec::new("raid1", Csum::Crc32c))?;
    let mut file = Model::create(fs.path("file"))?;
    file.write_random(&mut env.rng(0), 0, 4 * BLOCK)?;
    file.sync()?;
    let direct = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(libc::O_DIRECT)
        .open(&file.path)?;
    let mut queue = Queue::polling(8)?;
    let memory = Region::new(BLOCK)?;
    queue.start_write(&direct, 0, memory.iovec(0..BLOCK))?;
    refused(&mut queue, "a write")?;
    let iov = [memory.iovec(0..BLOCK)];
    let read = Start {
        offset: 0,
        iov: &iov,
        tag: 0,
    };
    queue.start(&direct, &[read])?;
    refused(&mut queue, "a read")
}

/// Expects the one request in flight to end as not supported.
fn refused(queue: &mut Queue, request: &str) -> Result<()> {
    let done = queue.finish(1)?.pop().context("a completion")?;
    let error = done.result.err().and_then(|error| error.raw_os_error());
    ensure!(
        error == Some(libc::EOPNOTSUPP),
        "{request} of a ring that polls: {error:?}"
    );
    Ok(())
}

/// Reads at random, many of them in flight. How many there were, and what moved.
fn many(env: &Env, fs: &mut Fs, engine: Engine) -> Result<(u64, Stats)> {
    let mut rng = env.rng(0);
    let mut file = Model::create(fs.path("file"))?;
    file.write_random(&mut rng, 0, 8 << 20)?;
    file.sync()?;
    fs.remount()?;
    let direct = model::open_direct(&file.path)?;
    let mut memory = Region::new(DEPTH * SLOT)?;
    let mut queue = Queue::new(engine, DEPTH as u32)?;
    if engine == Engine::UringFixed {
        queue.register(memory.iovec(0..DEPTH * SLOT))?;
    }
    let before = Stats::look(env)?;
    let total = env.scaled(600) as usize;
    let mut flights: Vec<Option<Flight>> = (0..DEPTH).map(|_| None).collect();
    let (mut started, mut ended, mut disordered) = (0, 0, 0);
    let mut last = 0;
    while ended < total {
        let mut batch = Vec::new();
        for (slot, flight) in flights.iter_mut().enumerate() {
            if flight.is_none() && started < total {
                let new = Flight::random(&mut rng, file.data.len(), slot);
                let iov: Vec<_> = new.parts.iter().map(|p| memory.iovec(p.clone())).collect();
                // The slot, and which read it is.
                batch.push((new.offset, iov, (started * DEPTH + slot) as u64));
                *flight = Some(new);
                started += 1;
            }
        }
        let starts: Vec<_> = batch
            .iter()
            .map(|(offset, iov, tag)| Start {
                offset: *offset as u64,
                iov,
                tag: *tag,
            })
            .collect();
        let taken = if starts.is_empty() {
            0
        } else {
            queue.start(&direct, &starts)?
        };
        ensure!(taken == starts.len(), "{taken} of {} taken", starts.len());
        for done in queue.finish(1)? {
            let slot = done.tag as usize % DEPTH;
            disordered += u32::from(done.tag < last);
            last = done.tag;
            let flight = flights[slot].take().context("ended twice")?;
            let len: usize = flight.parts.iter().map(Range::len).sum();
            let at = format!("offset={} length={len}", flight.offset);
            let count = done.result.with_context(|| at.clone())?;
            ensure!(count == len, "{at}: {count}");
            let landed = flight.land(&mut memory, slot, &file.data);
            ensure!(landed.is_ok(), "{at}: {landed:?}");
            ended += 1;
        }
    }
    eprintln!("# {}: {disordered} of {total} out of order", env.case);
    let moved = Stats::all_at_once(before.as_ref())?;
    if env.module {
        ensure!(pagecache::pages(&direct)? == 0, "cached");
    }
    Ok((total as u64, moved))
}

/// A read of no more than `most` bytes ends where its data arrives, if its memory
/// is dirty already; a longer one is ended by a worker.
fn ends(env: &Env, csum: Csum, most: usize) -> Result<()> {
    const AGAIN: u64 = 4;
    const LENGTHS: [usize; 8] = [4, 16, 20, 64, 128, 256, 260, 1024];

    let mut fs = Fs::make(env, &Spec::new("single", csum))?;
    let mut file = Model::create(fs.path("file"))?;
    file.write_random(&mut env.rng(0), 0, 2 << 20)?;
    file.sync()?;
    fs.remount()?;
    let direct = model::open_direct(&file.path)?;
    for engine in [Engine::Libaio, Engine::Uring] {
        for len in LENGTHS.map(|kib| kib << 10) {
            let mut memory = Region::new(len)?;
            let mut before = None;
            for round in 0..=AGAIN {
                if round == 1 {
                    before = Stats::look(env)?;
                }
                let offset = round * (256 << 10);
                let count = aio::read(engine, &direct, &[memory.iovec(0..len)], offset)?;
                ensure!(count == len, "a short read");
                let want = &file.data[offset as usize..offset as usize + len];
                let differs = first_difference(memory.part(0..len), want);
                ensure!(differs.is_none(), "{len} differs at +{differs:?}");
                memory.part_mut(0..len).fill(POISON);
            }
            let moved = Stats::all_at_once(before.as_ref())?;
            let want = if len > most { AGAIN } else { 0 };
            ensure!(
                !env.module || moved.get("by_worker") == want && moved.get("queued") == AGAIN,
                "{len} by {}, {want} by a worker: {moved}",
                engine.name()
            );
        }
    }
    Ok(())
}

/// Longer than what is completed behind its caller's back.
fn longest(env: &Env) -> Result<()> {
    let mut fs = Fs::make(env, &Spec::new("raid0", Csum::Crc32c))?;
    let mut rng = env.rng(0);
    let mut file = Model::create(fs.path("file"))?;
    file.write_random(&mut rng, 0, LONGEST_QUEUED + (1 << 20))?;
    file.sync()?;
    fs.remount()?;
    let subject = Subject::open(env, &file)?;
    for engine in [Engine::Libaio, Engine::Uring] {
        for len in [
            LONGEST_QUEUED,
            LONGEST_QUEUED + BLOCK,
            LONGEST_QUEUED + (2 << 20),
        ] {
            subject.read(&Request::pread(0, len).via(Via::Async(engine)))?;
        }
        // It begins in the midst of a block, and so touches one more.
        let request = Request::pread(512, LONGEST_QUEUED);
        subject.read(&request.via(Via::Async(engine)))?;
    }
    Ok(())
}

/// Blocks of the files below, and those of them that go bad.
const BLOCKS: usize = 64;
const BAD: Range<usize> = 20..23;

fn damaged(env: &Env, fs: &Fs) -> Result<(Model, Placed)> {
    let mut file = Model::create(fs.path("file"))?;
    file.write_random(&mut env.rng(0), 0, BLOCKS * BLOCK)?;
    file.sync()?;
    let placed = Placed::find(fs, &file)?;
    Ok((file, placed))
}

/// One copy is bad: whoever reads it gets the other.
fn corrupt(env: &Env) -> Result<()> {
    let _policy = Policy::fs(env)?;
    let mut fs = Fs::make(env, &Spec::new("raid1", Csum::Crc32c))?;
    let (file, placed) = damaged(env, &fs)?;
    for engine in Engine::ALL {
        for (bad, apart) in [(0, 0), (1, 512)] {
            placed.spoil(&mut fs, &file, BAD, bad)?;
            let subject = Subject::open(env, &file)?;
            let request = Request::pread(8 * B + apart, 40 * BLOCK).via(Via::Async(engine));
            for reader in 0..2 {
                as_reader_of(2, reader, || {
                    let (outcome, _) = subject.observe(&request)?;
                    let verdict = outcome.verify(&request, subject.wanted(&request), false);
                    subject.judge(&request, verdict)
                })
                .with_context(|| format!("copy {bad} bad, reader of {reader}"))?;
            }
        }
    }
    Ok(())
}

/// No copy is right: EIO, and everything around the damage still reads.
fn hopeless(env: &Env) -> Result<()> {
    let mut fs = Fs::make(env, &Spec::new("raid1", Csum::Crc32c))?;
    let (file, placed) = damaged(env, &fs)?;
    placed.lay(&mut fs, &file, BAD, &[Some(0xbb), Some(0xbc)])?;
    let subject = Subject::open(env, &file)?;
    for engine in Engine::ALL {
        let via = Via::Async(engine);
        let request = Request::pread(8 * B, 40 * BLOCK).via(via);
        let (outcome, _) = subject.observe(&request)?;
        let errno = outcome.result.err().and_then(|e| e.raw_os_error());
        let at = subject.at(&request);
        ensure!(errno == Some(libc::EIO), "{at}: {errno:?}, wanted EIO");
        subject.read(&Request::pread(0, BAD.start * BLOCK).via(via))?;
        subject.read(&Request::pread(BAD.end as u64 * B, 30 * BLOCK).via(via))?;
    }
    Ok(())
}

/// A loop device. Detached on drop.
pub struct Loop(pub PathBuf);

impl Loop {
    pub fn new(below: &Path) -> Result<Self> {
        let args = ["--find", "--show", "--read-only", "--direct-io=on"];
        let name = fs::run("losetup", args.into_iter().chain([fs::path(below)]))?;
        Ok(Self(name.trim().into()))
    }

    /// What the kernel says of it.
    fn attribute(&self, name: &str) -> Result<String> {
        let device = self.0.file_name().context("a device")?;
        let path = Path::new("/sys/block").join(device).join(name);
        let text = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        Ok(text.trim().to_owned())
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        if let Err(error) = fs::run("losetup", ["--detach", fs::path(&self.0)]) {
            eprintln!("# {error:#}");
        }
    }
}

/// Under a loop device: its reads come with pages, not with addresses.
fn loop_device(env: &Env) -> Result<()> {
    let spec = Spec::new("raid1", Csum::Crc32c).options("compress=zstd");
    let mut fs = Fs::make(env, &spec)?;
    let mut rng = env.rng(0);
    let mut file = Model::create(fs.path("image"))?;
    file.write_random(&mut rng, 0, 2 << 20)?;
    file.write(3 << 20, &model::compressible(&mut rng, 1 << 20))?;
    file.preallocate(4 << 20, 1 << 18)?;
    file.punch(100 * B, 7 * B)?;
    file.sync()?;
    fs.remount()?;
    let below = File::open(&file.path)?;
    let device = Loop::new(&file.path)?;
    let directly = device.attribute("loop/dio")?;
    ensure!(directly == "1" || !env.module, "without direct I/O");
    let unit: usize = device.attribute("queue/logical_block_size")?.parse()?;
    let direct = model::open_direct(&device.0)?;
    let before = Stats::look(env)?;
    let mut requests = vec![Request::pread(0, file.data.len())];
    for _ in 0..env.scaled(40) {
        let request = Request::random(&mut rng, file.size());
        requests.push(match unit {
            BLOCK => request,
            _ => request.jitter(&mut rng, unit),
        });
    }
    for request in requests {
        let request = request.any_via(&mut rng);
        let outcome = request.perform(&direct)?;
        let start = file.data.len().min(request.offset as usize);
        let want = &file.data[start..file.data.len().min(start + request.total())];
        let verdict = outcome.verify(&request, want, false);
        ensure!(verdict.is_ok(), "loop {request}: {verdict:?}");
    }
    let moved = Stats::all_at_once(before.as_ref())?;
    if env.module {
        ensure!(moved.get("queued") > 0, "nothing queued: {moved}");
        let pages = pagecache::pages(&below)?;
        ensure!(pages == 0, "{pages} pages of the image cached: {moved}");
    }
    drop((direct, device, below));
    file.cross_check()
}
