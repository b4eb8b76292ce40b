// SPDX-License-Identifier: GPL-2.0

//! Memory that is not to be had: one allocation after the other fails, or some do
//! by chance, or the cgroup has hardly any. A read then has the right bytes, or
//! an error that says so; nothing is left behind, and the next read is served.

use super::Case;
use super::trouble::files;
use crate::aio::Engine;
use crate::buffer::BLOCK;
use crate::cgroup::Cgroup;
use crate::device;
use crate::devices::Devices;
use crate::env::{Env, skip};
use crate::fs::{Csum, Fs, Spec};
use crate::mirrors::Placed;
use crate::model::{self, Model};
use crate::packed;
use crate::read::{Outcome, Request, Via};
use crate::stats::Stats;
use crate::sys;
use anyhow::{Context, Result, anyhow, bail, ensure};
use rand::RngExt;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

const DEBUGFS: &str = "/sys/kernel/debug";
/// No read allocates so often.
const MOST: u32 = 3000;
/// Reads of which any allocation may fail, by chance.
const READS: u32 = 600;
/// Readers that decompress at a time: more than there are decoders.
const DECODING: u64 = 8;
/// The ways whose set-up is not part of the read.
const WAYS: [Via; 4] = [
    Via::Pread,
    Via::Preadv2(libc::RWF_NOWAIT),
    Via::Async(Engine::Libaio),
    Via::Async(Engine::Uring),
];

pub fn cases(_: &Env) -> Vec<Case> {
    let mut cases = Vec::new();
    cases.push(Case::new("each", each));
    cases.push(Case::new("each-recovered", each_recovered));
    for (facility, percent) in [("failslab", 5), ("fail_page_alloc", 30)] {
        cases.push(Case::new(facility, move |env| {
            by_chance(env, facility, percent)
        }));
    }
    cases.push(Case::new("decoders", decoders));
    cases.push(Case::new("cgroup", cgroup));
    cases
}

fn put(path: &Path, value: &str) -> Result<()> {
    std::fs::write(path, value).with_context(|| format!("{value} to {}", path.display()))
}

/// Allocations fail that may fail, so many in a hundred of those of tasks that say
/// so, until this is dropped.
struct Scarce;

impl Scarce {
    fn new(env: &Env, percent: &[(&str, u32)]) -> Result<Self> {
        for disk in &env.disks {
            // A request that is never answered is one of the faults there are.
            let name = disk.canonicalize()?;
            let name = name.file_name().context("a disk with a name")?;
            let queue = Path::new("/sys/block").join(name).join("queue");
            put(&queue.join("io_timeout"), "100")?;
        }
        // A page of this program that cannot be read in again would be the end of it.
        sys::lock_memory()?;
        for facility in ["failslab", "fail_page_alloc"] {
            let dir = Path::new(DEBUGFS).join(facility);
            if !dir.exists() {
                return Err(skip(format!("a kernel without {facility}")));
            }
            let chance = percent.iter().find(|(name, _)| *name == facility);
            let chance = chance.map_or(0, |(_, percent)| *percent).to_string();
            for (name, value) in [
                ("verbose", "0"),
                ("interval", "1"),
                ("space", "0"),
                ("times", "-1"),
                ("task-filter", "Y"),
                ("ignore-gfp-wait", "N"),
                ("probability", &chance),
            ] {
                put(&dir.join(name), value)?;
            }
        }
        let pages = Path::new(DEBUGFS).join("fail_page_alloc");
        put(&pages.join("ignore-gfp-highmem"), "N")?;
        put(&pages.join("min-order"), "0")?;
        Ok(Self)
    }
}

impl Drop for Scarce {
    fn drop(&mut self) {
        for facility in ["failslab", "fail_page_alloc"] {
            let _ = put(&Path::new(DEBUGFS).join(facility).join("probability"), "0");
        }
    }
}

/// Has the n-th allocation of this thread fail from now on.
struct Nth(File);

impl Nth {
    fn new() -> Result<Self> {
        let file = File::options()
            .read(true)
            .write(true)
            .open("/proc/thread-self/fail-nth")?;
        Ok(Self(file))
    }

    fn arm(&self, n: u32) -> Result<()> {
        self.0.write_all_at(n.to_string().as_bytes(), 0)?;
        Ok(())
    }

    /// Disarms it, and returns whether it has failed.
    fn fired(&self) -> Result<bool> {
        let mut bytes = [0; 16];
        // Reading it may be what fails.
        let fired = match self.0.read_at(&mut bytes, 0) {
            Ok(len) => bytes[..len].starts_with(b"0\n"),
            Err(_) => false,
        };
        self.arm(0)?;
        Ok(fired)
    }
}

/// Whether the read was served; if not it must have been refused for want of memory.
fn verdict(request: &Request, outcome: std::io::Result<Outcome>, file: &Model) -> Result<bool> {
    let refused = |error: &std::io::Error| match error.raw_os_error() {
        Some(libc::ENOMEM) => true,
        // What may not wait, or cannot be issued now.
        Some(libc::EAGAIN) => request.via != Via::Pread && request.via != Via::Preadv,
        // A ring that finds no worker.
        Some(libc::ECANCELED) => matches!(request.via, Via::Async(Engine::Uring)),
        _ => false,
    };
    let at = || format!("file={} {request}", file.name());
    let outcome = match outcome {
        Err(error) if refused(&error) => return Ok(false),
        outcome => outcome.with_context(at)?,
    };
    let size = file.data.len();
    let start = (request.offset as usize).min(size);
    let end = size.min(start + request.total());
    let mut want = &file.data[start..end];
    let mut whole = true;
    match &outcome.result {
        Err(error) if refused(error) => return Ok(false),
        // Mainline returns what it has.
        Ok(count) if (1..want.len()).contains(count) => {
            (want, whole) = (&want[..*count], false);
        }
        _ => {}
    }
    let right = outcome.verify(request, want, false);
    right.map_err(|why| anyhow!("{}: {why}", at()))?;
    Ok(whole)
}

/// Whether the read failed with -EIO.
fn lost(outcome: &std::io::Result<Outcome>) -> bool {
    match outcome {
        Ok(outcome) => outcome
            .result
            .as_ref()
            .is_err_and(|error| error.raw_os_error() == Some(libc::EIO)),
        Err(_) => false,
    }
}

/// How many reads were left to mainline's path. It says -EIO where there is no
/// memory to read a page with.
fn left(env: &Env) -> Result<Option<u64>> {
    Ok(Stats::look(env)?.map(|stats| stats.get("declined_memory")))
}

/// What may make a read fail with -EIO: bios that failed, as the disks have such
/// faults as well, and reads left to mainline.
fn faults(env: &Env) -> Result<(u64, Option<u64>)> {
    Ok((Devices::look(env)?.total("errors"), left(env)?))
}

/// Reads with each allocation failing in turn; returns how many did. `prepare` is
/// called before each read.
fn each_of(
    env: &Env,
    nth: &Nth,
    file: &Model,
    request: &Request,
    mut prepare: impl FnMut() -> Result<()>,
) -> Result<u32> {
    let direct = model::open_direct(&file.path)?;
    // Nothing of the first one is to be part of it.
    verdict(request, request.perform(&direct), file)?;
    for n in 1..=MOST {
        prepare()?;
        let before = faults(env)?;
        nth.arm(n)?;
        let outcome = request.perform(&direct);
        let fired = nth.fired()?;
        if lost(&outcome) && faults(env)? != before {
            continue;
        }
        verdict(request, outcome, file).with_context(|| format!("allocation {n} failed"))?;
        if !fired {
            return Ok(n - 1);
        }
    }
    bail!("{request}: more than {MOST} allocations")
}

fn each(env: &Env) -> Result<()> {
    let mut fs = Fs::make(env, &Spec::new("raid1", Csum::Crc32c))?;
    let mut files = files(env, &fs)?;
    let mut inline = Model::create(fs.path("inline"))?;
    inline.write_random(&mut env.rng(2), 0, 1500)?;
    inline.sync()?;
    files.push(inline);
    fs.remount()?;
    let _scarce = Scarce::new(env, &[])?;
    let nth = Nth::new()?;
    let before = Stats::look(env)?;
    let mut failed = 0;
    for file in &files {
        for (at, len) in [
            (0, BLOCK),
            (512, 1024),
            (3 * BLOCK, 20 * BLOCK),
            (0, 64 * BLOCK),
        ] {
            for via in WAYS {
                let request = Request::pread(at as u64, len).via(via);
                failed += each_of(env, &nth, file, &request, || Ok(()))?;
                // Once more with nothing of the file known.
                if len == 20 * BLOCK {
                    let cold = || Ok(sys::drop_caches()?);
                    failed += each_of(env, &nth, file, &request, cold)?;
                }
            }
        }
    }
    eprintln!("# {}: {failed} allocations failed", env.case);
    ensure!(failed > 100, "only {failed} allocations failed");
    meant(env, before)
}

/// Reads were served, and some were not, for want of memory.
fn meant(env: &Env, before: Option<Stats>) -> Result<()> {
    let moved = served(env, before.as_ref())?;
    let good = !env.module || moved.get("declined_memory") > 0;
    ensure!(good, "none was refused: {moved}");
    Ok(())
}

/// Reads were served, and those that were not mostly for want of memory.
fn served(env: &Env, before: Option<&Stats>) -> Result<Stats> {
    let Some(before) = before else {
        return Ok(Stats::default());
    };
    let moved = Stats::read()?.since(before);
    eprintln!("# {}: {moved}", env.case);
    let others = moved.get("declined") - moved.get("declined_memory");
    let good = moved.get("reads") > 0 && others <= moved.get("declined") / 2;
    ensure!(good, "{moved}");
    Ok(moved)
}

/// The same while a bad copy is made up for.
fn each_recovered(env: &Env) -> Result<()> {
    let fs = Fs::make(env, &Spec::new("raid1", Csum::Crc32c))?;
    let mut file = Model::create(fs.path("file"))?;
    file.write_random(&mut env.rng(0), 0, 32 * BLOCK)?;
    file.sync()?;
    let placed = Placed::find(&fs, &file)?;
    let _scarce = Scarce::new(env, &[])?;
    let nth = Nth::new()?;
    let before = Stats::look(env)?;
    let mut failed = 0;
    for via in [Via::Pread, Via::Async(Engine::Libaio)] {
        let request = Request::pread(0, 32 * BLOCK).via(via);
        failed += each_of(env, &nth, &file, &request, || {
            // One bad copy of each, of either.
            for nr in [5, 6, 20] {
                let places = &placed.blocks[nr];
                device::write_block(&fs, &places[nr % 2], &[0xbb; BLOCK])?;
                device::write_block(&fs, &places[1 - nr % 2], &file.data[nr * BLOCK..][..BLOCK])?;
            }
            Ok(())
        })?;
    }
    eprintln!("# {}: {failed} allocations failed", env.case);
    ensure!(failed > 10, "only {failed} allocations failed");
    // What is known of the file's extents and checksums takes no memory to be found, and what makes up
    // for a bad copy finds some in the end: none of these reads need be refused.
    let moved = served(env, before.as_ref())?;
    let good = !env.module || moved.get("recovered") > 0;
    ensure!(good, "nothing recovered: {moved}");
    Ok(())
}

fn by_chance(env: &Env, facility: &str, percent: u32) -> Result<()> {
    let mut fs = Fs::make(env, &Spec::new("raid1", Csum::Crc32c))?;
    let files = files(env, &fs)?;
    fs.remount()?;
    let scarce = Scarce::new(env, &[(facility, percent)])?;
    let before = Stats::look(env)?;
    let refused = left(env)?;
    let mut rng = env.rng(7);
    let switch = File::options()
        .write(true)
        .open("/proc/thread-self/make-it-fail")?;
    let mut served = 0u32;
    let reads = env.scaled(READS);
    for nr in 0..20 * reads {
        // It is for the kernel's own chance to say which of them is refused.
        if nr >= reads && (refused.is_none() || left(env)? != refused) {
            break;
        }
        if nr % 8 == 0 {
            sys::drop_caches()?;
        }
        let file = &files[rng.random_range(0..files.len())];
        let direct = model::open_direct(&file.path)?;
        let request = Request::random(&mut rng, file.data.len() as u64);
        let request = match rng.random_range(0..3) {
            0 => request.jitter(&mut rng, 512),
            _ => request,
        };
        let request = match request.lens.len() {
            1 => request.via(WAYS[rng.random_range(0..WAYS.len())]),
            _ => request,
        };
        let before = left(env)?;
        switch.write_all_at(b"1", 0)?;
        let outcome = request.perform(&direct);
        switch.write_all_at(b"0", 0)?;
        if lost(&outcome) && (before.is_none() || left(env)? != before) {
            continue;
        }
        served += u32::from(verdict(&request, outcome, file)?);
    }
    drop(scarce);
    eprintln!("# {}: {served} served", env.case);
    ensure!(served > 0, "none was served");
    // Memory that may be of single pages is there in the end: nothing need be refused.
    self::served(env, before.as_ref()).map(drop)
}

/// Many decompress at a time where there is memory for few decoders, at times: each read ends,
/// and gives the right bytes unless it is refused.
fn decoders(env: &Env) -> Result<()> {
    let mut fs = Fs::make(env, &packed::spec("single", Csum::Crc32c, "zstd"))?;
    let mut file = Model::create(fs.path("file"))?;
    // Most of it is decompressed once only: what is kept needs no memory.
    let data = model::compressible(&mut env.rng(0), 32 << 20);
    file.write(0, &data)?;
    file.sync()?;
    fs.remount()?;
    let scarce = Scarce::new(env, &[("fail_page_alloc", 30)])?;
    let before = Stats::look(env)?;
    let served = AtomicU32::new(0);
    std::thread::scope(|scope| {
        let readers: Vec<_> = (1..=DECODING)
            .map(|nr| {
                let (file, served) = (&file, &served);
                scope.spawn(move || {
                    let mut rng = env.rng(nr);
                    let direct = model::open_direct(&file.path)?;
                    let switch = File::options()
                        .write(true)
                        .open("/proc/thread-self/make-it-fail")?;
                    for _ in 0..env.scaled(READS / 12) {
                        let at = rng.random_range(0..file.data.len() / BLOCK) * BLOCK;
                        let request = Request::pread(at as u64, 32 * BLOCK);
                        switch.write_all_at(b"1", 0)?;
                        let outcome = request.perform(&direct);
                        switch.write_all_at(b"0", 0)?;
                        // Mainline says so where it has no page.
                        if !lost(&outcome) && verdict(&request, outcome, file)? {
                            served.fetch_add(1, Relaxed);
                        }
                    }
                    Ok::<_, anyhow::Error>(())
                })
            })
            .collect();
        for reader in readers {
            reader.join().expect("a reader that does not panic")?;
        }
        Ok::<_, anyhow::Error>(())
    })?;
    drop(scarce);
    let served = served.into_inner();
    eprintln!("# {}: {served} served", env.case);
    ensure!(served > 0, "none was served");
    // In single pages there is memory in the end: nothing need be refused.
    self::served(env, before.as_ref()).map(drop)
}

/// The readers' cgroup may have little more than it has.
fn cgroup(env: &Env) -> Result<()> {
    let mut fs = Fs::make(env, &Spec::new("raid1", Csum::Crc32c))?;
    let files = files(env, &fs)?;
    fs.remount()?;
    let group = Cgroup::new("diotest")?;
    let stay = group.enter()?;
    // From now on the group is charged for buffers of some MiB, and little else.
    group.limit_memory("24M")?;
    let before = Stats::look(env)?;
    let mut rng = env.rng(8);
    for _ in 0..env.scaled(READS / 2) {
        let file = &files[rng.random_range(0..files.len())];
        let direct = model::open_direct(&file.path)?;
        let request = Request::random(&mut rng, file.data.len() as u64).any_via(&mut rng);
        let served = verdict(&request, request.perform(&direct), file)?;
        ensure!(served, "{request}: refused");
    }
    group.limit_memory("max")?;
    drop(stay);
    let moved = Stats::all_at_once(before.as_ref())?;
    eprintln!("# {}: {moved}", env.case);
    Ok(())
}
