// SPDX-License-Identifier: GPL-2.0

//! Reads spread over the copies: as fast as all devices together, where btrfs's
//! own rule is as fast as one of them; counted for each device; and right.

use super::Case;
use crate::aio::{Engine, Queue, Start};
use crate::buffer::{BLOCK, POISON, Region, first_difference};
use crate::device::Mapped;
use crate::devices::{Devices, REASONS, sum};
use crate::env::{Env, debug_kernel, skip};
use crate::fs::{Csum, Fs, Spec};
use crate::mirrors::{Placed, as_reader_of};
use crate::model::{self, Model};
use crate::module::{self, Policy};
use crate::nullb::{Nullb, Pace};
use crate::read::{Request, Via};
use crate::stats::Stats;
use crate::subject::{Expect, Subject};
use crate::sys;
use anyhow::{Context, Result, ensure};
use rand::{RngExt, rngs::SmallRng};
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::{Duration, Instant};

const MIB: usize = 1 << 20;

/// The policy if nothing is said.
const DEFAULT: &str = "spread";

/// Disks that take long, against what an emulated CPU takes for a read.
const RANDOM: Pace = Pace {
    nanoseconds: 30_000_000,
    depth: 4,
    bytes: 128 << 10,
};
/// Disks that take as long as there is data: 12.5 MiB a second.
const SEQUENTIAL: Pace = Pace {
    nanoseconds: 10_000_000,
    depth: 1,
    bytes: 128 << 10,
};
/// Reads in flight of who has many.
const DEPTH: usize = 32;
/// How often each policy is measured, in turns.
const TURNS: usize = 3;
/// How often at most, where so few do not tell: an emulated CPU shares its host, and
/// what is demanded may be nearer than what one measurement differs from the next.
const MOST_TURNS: usize = 12;
/// How long, after how long.
const TIME: Duration = Duration::from_millis(2000);
const WARM: Duration = Duration::from_millis(300);

pub fn cases(_: &Env) -> Vec<Case> {
    let mut cases = vec![Case::new("names", names), Case::new("parameter", parameter)];
    for (profile, least) in [("raid1", 1.9), ("raid1c4", 3.6), ("raid10", 1.9)] {
        cases.push(Case::new(format!("random-{profile}"), move |env| {
            random(env, profile, least)
        }));
    }
    cases.push(Case::new("sequential", sequential));
    cases.push(Case::new("sequential-8", sequential_by_many));
    cases.push(Case::new("split", split));
    cases.push(Case::new("counted", counted));
    for profile in ["single", "raid0"] {
        cases.push(Case::new(format!("counted-{profile}"), move |env| {
            counted_only(env, profile)
        }));
    }
    cases.push(Case::new("counted-errors", counted_errors));
    for profile in ["raid1", "raid1c3", "raid1c4", "raid10"] {
        cases.push(Case::new(format!("data-{profile}"), move |env| {
            data(env, profile)
        }));
    }
    cases
}

/// The policies, by name, and nothing else.
fn names(env: &Env) -> Result<()> {
    needs_module(env)?;
    let is = |want: &str| {
        let name = Policy::get()?;
        ensure!(name == want, "{name}, wanted {want}");
        Ok(())
    };
    is(DEFAULT)?;
    for name in ["fs", "spread", "fs\n", "spread\n"] {
        let _policy = Policy::set(env, name)?;
        is(name.trim_end())?;
        for junk in ["", "\n", "f", "fsx", "fs spread", "Spread", "pid", "0", "1"] {
            let errno = Policy::put(junk).err().and_then(|e| e.raw_os_error());
            // Of nothing, there is nothing to write.
            let right = errno == Some(libc::EINVAL) || junk.is_empty() && errno.is_none();
            ensure!(right, "{junk:?}: {errno:?}, wanted EINVAL");
            is(name.trim_end()).with_context(|| format!("after {junk:?}"))?;
        }
    }
    is(DEFAULT)
}

/// The policy as a parameter of insmod.
fn parameter(env: &Env) -> Result<()> {
    needs_module(env)?;
    for name in ["fs", "spread"] {
        let got = module::with(env, &format!("read_policy={name}"), Policy::get)?;
        ensure!(got == name, "{got}, wanted {name}");
    }
    module::without(env, || {
        let junk = module::load_with(env, "read_policy=junk");
        if junk.is_ok() {
            module::unload()?;
        }
        ensure!(junk.is_err(), "loaded with read_policy=junk");
        Ok(())
    })?;
    let name = Policy::get()?;
    ensure!(name == DEFAULT, "{name}, if nothing is said");
    Ok(())
}

fn needs_module(env: &Env) -> Result<()> {
    match env.module {
        true => Ok(()),
        false => Err(skip("there is no policy")),
    }
}

fn needs_time(env: &Env) -> Result<()> {
    needs_module(env)?;
    match debug_kernel() {
        true => Err(skip("a debug kernel is too slow to be measured")),
        false => Ok(()),
    }
}

/// A file system on disks that take their time.
struct Slow {
    // In this order: unmounted before the disks go.
    fs: Fs,
    _disks: Vec<Nullb>,
}

impl Slow {
    fn make(env: &Env, spec: &Spec, pace: Pace) -> Result<Self> {
        let disks = Nullb::some(spec.profile.devices, pace)?;
        let paths = disks.iter().map(Nullb::path).collect();
        Ok(Self {
            fs: Fs::make_on(env, spec, paths)?,
            _disks: disks,
        })
    }
}

/// A file that was read once, so that only data has to come from the devices.
fn warm_file(fs: &Fs, name: &str, rng: &mut SmallRng, size: usize) -> Result<Model> {
    let mut file = Model::create(fs.path(name))?;
    file.write_random(rng, 0, size)?;
    file.sync()?;
    sys::drop_pages(&file.file()?)?;
    let direct = model::open_direct(&file.path)?;
    let mut region = Region::new(MIB)?;
    for at in (0..size).step_by(MIB) {
        read_checked(&direct, &mut region, &file, at)?;
    }
    Ok(file)
}

/// One read of a MiB, waited for.
fn read_checked(
    direct: &std::fs::File,
    region: &mut Region,
    file: &Model,
    at: usize,
) -> Result<()> {
    let want = &file.data[at..file.data.len().min(at + MIB)];
    let iov = region.iovec(0..want.len());
    let got = sys::pread(direct.as_raw_fd(), &iov, at as i64)?;
    let right = got == want.len() && region.part(0..got) == want;
    ensure!(
        right,
        "{}: offset={at} returned {got}, or not what was written",
        file.name()
    );
    region.part_mut(0..got).fill(POISON);
    Ok(())
}

/// Reads blocks at random and checks them, many in flight, all started by this
/// thread, as long as `more` says so: told how many have ended, whenever some
/// have. How many there were.
fn read_blocks(
    file: &Model,
    rng: &mut SmallRng,
    mut more: impl FnMut(u64) -> Result<bool>,
) -> Result<u64> {
    let direct = model::open_direct(&file.path)?;
    let mut memory = Region::new(DEPTH * BLOCK)?;
    let mut queue = Queue::new(Engine::Uring, DEPTH as u32)?;
    let mut flights: Vec<Option<usize>> = vec![None; DEPTH];
    let (mut ended, mut on) = (0, true);
    loop {
        let free: Vec<_> = (0..DEPTH)
            .filter(|slot| on && flights[*slot].is_none())
            .map(|slot| {
                let at = rng.random_range(0..file.data.len() / BLOCK) * BLOCK;
                (slot, at, [memory.iovec(slot * BLOCK..(slot + 1) * BLOCK)])
            })
            .collect();
        let starts: Vec<_> = free
            .iter()
            .map(|(slot, at, iov)| Start {
                offset: *at as u64,
                iov,
                tag: *slot as u64,
            })
            .collect();
        if !starts.is_empty() {
            let taken = queue.start(&direct, &starts)?;
            ensure!(taken == starts.len(), "{taken} of {} taken", starts.len());
        }
        for (slot, at, _) in &free {
            flights[*slot] = Some(*at);
        }
        if flights.iter().all(Option::is_none) {
            return Ok(ended);
        }
        for done in queue.finish(1)? {
            let slot = done.tag as usize;
            let at = flights[slot].take().context("ended twice")?;
            let count = done.result.with_context(|| format!("offset={at}"))?;
            ensure!(count == BLOCK, "offset={at}: {count}");
            let part = slot * BLOCK..(slot + 1) * BLOCK;
            let differs = first_difference(memory.part(part.clone()), &file.data[at..][..BLOCK]);
            ensure!(differs.is_none(), "offset={at}: differs at {differs:?}");
            memory.part_mut(part).fill(POISON);
            ended += 1;
        }
        on = on && more(ended)?;
    }
}

/// How many random blocks a second one thread reads.
fn blocks_a_second(file: &Model, rng: &mut SmallRng) -> Result<f64> {
    let begin = Instant::now();
    let mut first = None;
    let mut last = (0, WARM);
    read_blocks(file, rng, |ended| {
        let now = begin.elapsed();
        if now >= WARM {
            first.get_or_insert((ended, now));
            last = (ended, now);
        }
        Ok(now < WARM + TIME)
    })?;
    let first = first.context("nothing was read")?;
    Ok((last.0 - first.0) as f64 / (last.1 - first.1).as_secs_f64())
}

/// The fewest and the most of the bytes that devices read.
fn extremes(bytes: &[u64]) -> Result<(u64, u64)> {
    let extremes = bytes.iter().min().zip(bytes.iter().max());
    let (fewest, most) = extremes.context("no device read anything")?;
    Ok((*fewest, *most))
}

fn best(rates: &[f64]) -> f64 {
    rates.iter().copied().fold(0.0, f64::max)
}

/// Measures under both policies in turns, and demands that `spread` reaches
/// `least` times the rate of `fs`, by the best of all that was measured: no disk is
/// faster than its timer, and whatever else the host has to do makes a rate worse.
/// `used` is how many devices `fs` reads.
fn compare(
    env: &Env,
    fs: &Fs,
    least: f64,
    used: usize,
    mut rate: impl FnMut() -> Result<f64>,
) -> Result<()> {
    let mut rates = [Vec::new(), Vec::new()];
    let before = Stats::read()?;
    let mut ratio = 0.0;
    for turn in 0..MOST_TURNS {
        if turn >= TURNS && ratio >= least {
            break;
        }
        // Either is the first as often: what the host has to do besides may grow.
        let order = if turn % 2 == 0 { [0, 1] } else { [1, 0] };
        for policy in order {
            let name = ["fs", "spread"][policy];
            let _policy = Policy::set(env, name)?;
            let before = Devices::read()?;
            rates[policy].push(rate()?);
            let moved = Devices::read()?.since(&before, fs)?;
            let bytes: Vec<_> = moved.iter().map(|d| d.get("bytes")).collect();
            let busy = bytes.iter().filter(|b| **b > 0).count();
            let want = if name == "fs" { used } else { bytes.len() };
            ensure!(busy == want, "{name} reads {busy} devices: {bytes:?}");
            // However slow the host is, all disks are equally slow.
            let (fewest, most) = extremes(&bytes)?;
            let even = fewest * 4 >= most * 3;
            ensure!(even || name == "fs", "{name} reads unevenly: {bytes:?}");
        }
        ratio = best(&rates[1]) / best(&rates[0]);
    }
    Stats::all_at_once(Some(&before))?;
    let each = format!("fs {:.1?}, spread {:.1?}", rates[0], rates[1]);
    eprintln!("# {}: {each} a second: {ratio:.2} times", env.case);
    ensure!(ratio >= least, "{ratio:.3} times, not {least}: {each}");
    Ok(())
}

/// Random blocks by one thread.
fn random(env: &Env, profile: &str, least: f64) -> Result<()> {
    needs_time(env)?;
    let slow = Slow::make(env, &Spec::new(profile, Csum::Crc32c), RANDOM)?;
    let mut rng = env.rng(0);
    let file = warm_file(&slow.fs, "file", &mut rng, 16 * MIB)?;
    // One of each set of copies.
    let profile = slow.fs.spec.profile;
    let used = profile.devices / profile.copies as usize;
    compare(env, &slow.fs, least, used, || {
        blocks_a_second(&file, &mut rng)
    })
}

/// A file from its beginning to its end by one thread, a MiB at a time.
fn sequential(env: &Env) -> Result<()> {
    needs_time(env)?;
    let slow = Slow::make(env, &Spec::new("raid1", Csum::NoDataSum), SEQUENTIAL)?;
    let file = warm_file(&slow.fs, "file", &mut env.rng(0), 16 * MIB)?;
    let direct = model::open_direct(&file.path)?;
    let mut region = Region::new(MIB)?;
    compare(env, &slow.fs, 1.8, 1, || {
        let begin = Instant::now();
        for at in (0..file.data.len()).step_by(MIB) {
            read_checked(&direct, &mut region, &file, at)?;
        }
        Ok((file.data.len() / MIB) as f64 / begin.elapsed().as_secs_f64())
    })
}

/// As many readers, each of a file of its own, and what they read in all.
const READERS: usize = 8;
const READS: usize = 96;

/// Many at a time keep both devices busy under any policy, if half of them have
/// pids for one and half for the other: nothing to be won, nor to be lost. What
/// is allowed for is the end, when there are too few readers for both devices.
fn sequential_by_many(env: &Env) -> Result<()> {
    needs_time(env)?;
    let slow = Slow::make(env, &Spec::new("raid1", Csum::NoDataSum), SEQUENTIAL)?;
    let mut rng = env.rng(0);
    let mut files = Vec::new();
    for i in 0..READERS {
        files.push(warm_file(&slow.fs, &format!("file{i}"), &mut rng, 4 * MIB)?);
    }
    compare(env, &slow.fs, 0.97, 2, || {
        let left = AtomicUsize::new(READS);
        let begin = Instant::now();
        std::thread::scope(|scope| {
            let readers: Vec<_> = files
                .iter()
                .enumerate()
                .map(|(i, file)| {
                    let left = &left;
                    scope
                        .spawn(move || as_reader_of(2, i as u32 % 2, || read_from_pool(file, left)))
                })
                .collect();
            for reader in readers {
                reader.join().expect("a reader that does not panic")?;
            }
            Ok::<_, anyhow::Error>(())
        })?;
        Ok(READS as f64 / begin.elapsed().as_secs_f64())
    })
}

/// Reads a file round and round while there are reads left to be done by anyone.
fn read_from_pool(file: &Model, left: &AtomicUsize) -> Result<()> {
    let direct = model::open_direct(&file.path)?;
    let mut region = Region::new(MIB)?;
    let take = || left.fetch_update(SeqCst, SeqCst, |n| n.checked_sub(1));
    let mut at = 0;
    while take().is_ok() {
        read_checked(&direct, &mut region, file, at)?;
        at = (at + MIB) % file.data.len();
    }
    Ok(())
}

/// Of idle devices, each has its part of a long read, and one all of a short one.
fn split(env: &Env) -> Result<()> {
    needs_module(env)?;
    let fs = Fs::make(env, &Spec::new("raid1c3", Csum::Crc32c))?;
    let file = warm_file(&fs, "file", &mut env.rng(0), 8 * MIB)?;
    let subject = Subject::open(env, &file)?;
    let extents = subject.extents.as_ref().map_or(0, Vec::len);
    ensure!(extents == 1, "{extents} extents, so not one run");
    for (name, len, used) in [
        ("spread", 512, 1..=1),
        ("spread", BLOCK, 1..=1),
        ("spread", 60 << 10, 1..=1),
        // Of whole stripes, there may not be one for each.
        ("spread", 256 << 10, 2..=3),
        ("spread", MIB, 3..=3),
        ("spread", 3 * MIB, 3..=3),
        ("fs", 3 * MIB, 1..=1),
    ] {
        let _policy = Policy::set(env, name)?;
        for at in [0, MIB, 3 * MIB + 9 * BLOCK] {
            Devices::settle()?;
            let before = Devices::read()?;
            subject.read(&Request::pread(at as u64, len))?;
            Devices::settle()?;
            let moved = Devices::read()?.since(&before, &fs)?;
            let bytes: Vec<_> = moved.iter().map(|d| d.get("bytes")).collect();
            let busy: Vec<_> = bytes.iter().copied().filter(|b| *b > 0).collect();
            let at = format!("{name}: {len} bytes at {at}: {bytes:?}");
            ensure!(used.contains(&busy.len()), "{at}, not of {used:?}");
            let (fewest, most) = extremes(&busy)?;
            ensure!(most - fewest <= 2 * (64 << 10), "{at}: uneven");
        }
    }
    Ok(())
}

/// Demands that of the reasons exactly these were counted.
fn ensure_reasons(moved: &[Stats], want: &[&str]) -> Result<()> {
    for reason in REASONS {
        let seen = sum(moved, reason) > 0;
        let shown: Vec<_> = moved.iter().map(Stats::to_string).collect();
        ensure!(
            seen == want.contains(&reason),
            "{reason} counted: {seen}; {shown:?}"
        );
    }
    Ok(())
}

/// What is counted for the devices of a mirror.
fn counted(env: &Env) -> Result<()> {
    needs_module(env)?;
    let slow = Slow::make(env, &Spec::new("raid1", Csum::Crc32c), RANDOM)?;
    let mut rng = env.rng(0);
    let file = warm_file(&slow.fs, "file", &mut rng, 4 * MIB)?;
    let reads = u64::from(env.scaled(400));
    for (name, reasons) in [("spread", &["least", "near"][..]), ("fs", &["policy"])] {
        let _policy = Policy::set(env, name)?;
        Devices::settle()?;
        let before = Devices::read()?;
        let mut most = 0;
        let ended = read_blocks(&file, &mut rng, |ended| {
            most = most.max(Devices::read()?.in_flight());
            Ok(ended + (DEPTH as u64) < reads)
        })?;
        Devices::settle()?;
        let moved = Devices::read()?.since(&before, &slow.fs)?;
        let shown: Vec<_> = moved.iter().map(Stats::to_string).collect();
        eprintln!(
            "# {}: {name}: {shown:?}, at most {most} in flight",
            env.case
        );
        ensure_reasons(&moved, reasons).context(name)?;
        let (bytes, all) = (sum(&moved, "bytes"), ended * BLOCK as u64);
        ensure!(bytes == all, "{name}: {bytes} bytes, not {all}: {shown:?}");
        let most_possible = (DEPTH * BLOCK) as u64;
        ensure!(
            (1..=most_possible).contains(&most),
            "{name}: {most} bytes in flight"
        );
        ensure!(sum(&moved, "errors") == 0, "{name}: errors: {shown:?}");
        for device in &moved {
            let read = device.get("reads") > 0;
            ensure!(
                read == (device.get("bytes") > 0),
                "{name}: reads, but no bytes, or bytes, but no reads: {shown:?}"
            );
            ensure!(
                name == "fs" || read,
                "{name}: not all devices read: {shown:?}"
            );
        }
    }
    Ok(())
}

/// Where there is one copy, there is no choice.
fn counted_only(env: &Env, profile: &str) -> Result<()> {
    needs_module(env)?;
    let fs = Fs::make(env, &Spec::new(profile, Csum::Crc32c))?;
    let mut rng = env.rng(0);
    let file = warm_file(&fs, "file", &mut rng, 4 * MIB)?;
    for name in ["spread", "fs"] {
        let _policy = Policy::set(env, name)?;
        let before = Devices::read()?;
        read_blocks(&file, &mut rng, |ended| Ok(ended < 100))?;
        let subject = Subject::open(env, &file)?;
        subject.read(&Request::pread(0, 4 * MIB))?;
        let moved = Devices::read()?.since(&before, &fs)?;
        ensure_reasons(&moved, &["only"]).context(name)?;
        let idle = moved.iter().find(|d| d.get("bytes") == 0);
        ensure!(idle.is_none(), "{name}: a device was not read");
    }
    Ok(())
}

/// An error is counted where it was, and nothing stays in flight.
fn counted_errors(env: &Env) -> Result<()> {
    needs_module(env)?;
    let disks = env.take(2)?;
    let mapped = Mapped::new("diotest", &disks[0])?;
    let spec = Spec::new("raid1", Csum::Crc32c);
    let mut fs = Fs::make_on(env, &spec, vec![mapped.path(), disks[1].clone()])?;
    let mut rng = env.rng(0);
    let file = warm_file(&fs, "file", &mut rng, MIB)?;
    let placed = Placed::find(&fs, &file)?;
    fs.remount()?;
    let places = &placed.blocks[20];
    let copy = places
        .iter()
        .position(|p| p.device == 1)
        .context("a copy on the device that fails")?;
    let subject = Subject::open(env, &file)?;
    subject.read(&Request::pread(0, MIB))?;
    mapped.fail(&[(places[copy].offset, 3 * BLOCK as u64)])?;
    let across = Request::pread(8 * BLOCK as u64, 40 * BLOCK);
    let before = Devices::read()?;
    let policy = Policy::fs(env)?;
    as_reader_of(2, copy as u32, || subject.expect(&across, Expect::Anyone))?;
    drop(policy);
    let _policy = Policy::set(env, "spread")?;
    Devices::settle()?;
    let moved = Devices::read()?.since(&before, &fs)?;
    let shown: Vec<_> = moved.iter().map(Stats::to_string).collect();
    eprintln!("# {}: {shown:?}", env.case);
    let right = moved[0].get("errors") > 0 && moved[1].get("errors") == 0;
    ensure!(right, "errors: {shown:?}");
    // Whichever device a read gets, it is answered rightly.
    sys::drop_pages(&subject.direct)?;
    for _ in 0..env.scaled(40) {
        let request = Request::random(&mut rng, file.size()).any_via(&mut rng);
        subject.expect(&request, Expect::Anyone)?;
    }
    drop(subject);
    fs.umount()
}

/// Reads of all sizes and ways, which are served, and right.
fn data(env: &Env, profile: &str) -> Result<()> {
    let mut fs = Fs::make(env, &Spec::new(profile, Csum::Crc32c))?;
    let mut rng = env.rng(0);
    let size = 6 * MIB + 5 * BLOCK + 700;
    let mut file = Model::create(fs.path("file"))?;
    file.write_random(&mut rng, 0, size)?;
    file.sync()?;
    fs.remount()?;
    let subject = Subject::open(env, &file)?;
    let _policy = Policy::set(env, "spread")?;
    let before = Devices::look(env)?;
    for shift in 9..=22 {
        let len = 1usize << shift;
        for via in [Via::Pread].into_iter().chain(Engine::ALL.map(Via::Async)) {
            for _ in 0..env.scaled(3) {
                // Of blocks or of parts of them, around that size.
                let unit = [512, BLOCK][rng.random_range(0..2)];
                let jitter = rng.random_range(0..=2 * len / unit / 8) * unit;
                let len = (len + jitter).saturating_sub(len / 8 / unit * unit);
                let at = rng.random_range(0..=(size - len.min(size)) / unit) * unit;
                let lens = match rng.random_range(0..3) {
                    0 if len >= 2 * unit => {
                        let first = rng.random_range(1..len / unit) * unit;
                        vec![first, len - first]
                    }
                    _ => vec![len],
                };
                let via = match via {
                    Via::Pread if lens.len() > 1 => Via::Preadv,
                    other => other,
                };
                subject.read(&Request::preadv(at as u64, lens).via(via))?;
            }
        }
    }
    if env.module {
        let moved = Devices::read()?.since(&before, &fs)?;
        let idle = moved.iter().find(|d| d.get("bytes") == 0);
        ensure!(idle.is_none(), "a device was not read");
    }
    // Many at a time.
    read_blocks(&file, &mut rng, |ended| {
        Ok(ended < u64::from(env.scaled(400)))
    })?;
    drop(subject);
    file.cross_check()?;
    fs.umount()
}
