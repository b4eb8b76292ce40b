// SPDX-License-Identifier: GPL-2.0

//! Devices that fail again and again under reads of every kind: nobody sees a
//! wrong byte or an error as long as there is a good copy. And repair against
//! all that takes the blocks away that are to be repaired.

use super::Case;
use crate::buffer::{BLOCK, Region};
use crate::device::Mapped;
use crate::env::Env;
use crate::fs::{self, Csum, Fs, PARITY, Spec};
use crate::inject::Failing;
use crate::model::{self, Model};
use crate::packed;
use crate::race::{self, Arena, open_direct_rw, write_at};
use crate::read::Request;
use crate::stats::Stats;
use crate::sys;
use anyhow::{Context, Result, anyhow, ensure};
use rand::{RngExt, rngs::SmallRng};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::time::{Duration, Instant};

/// Seconds of each.
const SECONDS: u32 = 6;
/// Bytes of the files.
const SIZE: usize = 4 << 20;
/// Threads that read.
const READERS: u64 = 3;
/// Blocks of the file that is raced for.
const BLOCKS: usize = 128;
const B: u64 = BLOCK as u64;

pub fn cases(_: &Env) -> Vec<Case> {
    let mut cases = Vec::new();
    for (profile, legs, percent) in [
        ("raid1", 1, 1),
        ("raid1", 1, 10),
        ("raid1c3", 2, 10),
        ("raid10", 1, 10),
        ("raid5", 1, 10),
        ("raid6", 2, 10),
    ] {
        let name = format!("chance-{profile}-{percent}");
        cases.push(Case::new(name, move |env| {
            chance(env, profile, legs, percent)
        }));
    }
    for csum in [Csum::NoDataSum, Csum::NoCow] {
        cases.push(Case::new(csum.name(), move |env| nodatasum(env, csum)));
    }
    cases.push(Case::new("flakey", flakey));
    cases.push(Case::new("corrupting", corrupting));
    cases.push(Case::new("dust", dust));
    for (name, change) in [
        ("overwrite", overwrite as Change),
        ("overwrite_direct", overwrite_direct),
        ("punch", punch),
        ("truncate", truncate),
        ("balance", balance),
        ("snapshot", snapshot),
    ] {
        cases.push(Case::new(name, move |env| mend(env, change)));
    }
    cases.push(Case::new("freeze", |env| still(env, Still::Frozen)));
    cases.push(Case::new("remount", |env| still(env, Still::ReadOnly)));
    cases
}

/// A file of plain extents and one of compressed ones.
pub(super) fn files(env: &Env, fs: &Fs) -> Result<Vec<Model>> {
    let mut plain = Model::create(fs.path("plain"))?;
    plain.write_random(&mut env.rng(0), 0, SIZE)?;
    let mut compressed = Model::create(fs.path("compressed"))?;
    fs::run(
        "btrfs",
        [
            "property",
            "set",
            fs::path(&compressed.path),
            "compression",
            "zstd",
        ],
    )?;
    let bytes = model::uneven(&mut env.rng(1), SIZE);
    compressed.write(0, &bytes)?;
    for file in [&plain, &compressed] {
        file.sync()?;
    }
    fs.sync()?;
    Ok(vec![plain, compressed])
}

/// Reads at random, in every way, until `until` says so; returns how many reads.
fn read_until(env: &Env, files: &[Model], until: &(dyn Fn() -> bool + Sync)) -> Result<u64> {
    let count = AtomicU64::new(0);
    std::thread::scope(|scope| {
        let reader = |nr: u64| {
            let mut rng = env.rng(500 + nr);
            while !until() {
                let file = &files[rng.random_range(0..files.len())];
                let direct = model::open_direct(&file.path)?;
                let size = file.data.len();
                let mut request = Request::random(&mut rng, size as u64);
                if rng.random_range(0..3) == 0 {
                    request = request.jitter(&mut rng, 512);
                }
                let request = request.any_via(&mut rng);
                let start = (request.offset as usize).min(size);
                let end = size.min(start + request.total());
                let outcome = request.perform(&direct)?;
                let verdict = outcome.verify(&request, &file.data[start..end], env.module);
                verdict.map_err(|why| anyhow!("file={} {request}: {why}", file.name()))?;
                count.fetch_add(1, SeqCst);
            }
            Ok(())
        };
        let threads: Vec<_> = (0..READERS)
            .map(|nr| scope.spawn(move || reader(nr)))
            .collect();
        let mut result = Ok(());
        for thread in threads {
            result = result.and(thread.join().expect("a reader that does not panic"));
        }
        result
    })
    .map(|()| count.into_inner())
}

/// Reads while faults happen, which `count` counts, until there were enough.
fn survive(
    env: &Env,
    files: &[Model],
    least: u64,
    count: &(dyn Fn() -> u64 + Sync),
) -> Result<Option<Stats>> {
    let begin = Instant::now();
    let time = env.duration(SECONDS);
    let most = time + Duration::from_secs(300);
    let before = Stats::look(env)?;
    let until = || begin.elapsed() > time && (count() >= least || begin.elapsed() > most);
    let reads = read_until(env, files, &until)?;
    let faults = count();
    let moved = match before {
        Some(before) => Some(Stats::all_served(Some(&before))?),
        None => None,
    };
    eprintln!("# {}: {reads} reads, {faults} faults", env.case);
    if let Some(moved) = &moved {
        eprintln!("# {}: {moved}", env.case);
        ensure!(moved.get("lost") == 0, "lost blocks: {moved}");
        let met = moved.get("io_errors") + moved.get("csum_mismatches");
        ensure!(met > 0, "no fault was met: {moved}");
    }
    ensure!(faults >= least, "only {faults} faults of {least}");
    Ok(moved)
}

fn chance(env: &Env, profile: &str, legs: usize, percent: u32) -> Result<()> {
    let mut fs = Fs::make(env, &Spec::new(profile, Csum::Crc32c))?;
    let files = files(env, &fs)?;
    fs.remount()?;
    let legs: Vec<PathBuf> = fs.devices[..legs].to_vec();
    let legs: Vec<&Path> = legs.iter().map(PathBuf::as_path).collect();
    let failing = Failing::some(&legs, percent)?;
    let usual = if percent < 10 { 30 } else { 300 };
    let least = u64::from(env.scaled(usual).min(10 * usual));
    let moved = survive(env, &files, least, &|| failing.count().unwrap_or(0))?;
    drop(failing);
    if let Some(moved) = moved.filter(|_| percent >= 10) {
        // What fails so often fails twice.
        ensure!(moved.get("recovered") > 0, "nothing recovered: {moved}");
        let parity = PARITY.contains(&fs.spec.profile);
        ensure!((moved.get("rebuilt") > 0) == parity, "{moved}");
    }
    whole(&fs)
}

/// Without checksums, only the device can tell.
fn nodatasum(env: &Env, csum: Csum) -> Result<()> {
    let mut fs = Fs::make(env, &Spec::new("raid1", csum))?;
    let mut file = Model::create(fs.path("file"))?;
    file.write_random(&mut env.rng(0), 0, SIZE)?;
    file.sync()?;
    fs.remount()?;
    let failing = Failing::some(&[&fs.devices[1]], 10)?;
    let least = u64::from(env.scaled(300));
    survive(env, &[file], least, &|| failing.count().unwrap_or(0))?;
    Ok(())
}

/// What is left is for a scrub to correct, all of it.
fn whole(fs: &Fs) -> Result<()> {
    let _ = fs.btrfs(["scrub", "start", "-B"]);
    fs.btrfs(["scrub", "start", "-B"])?;
    let status = fs.btrfs(["scrub", "status"])?;
    ensure!(status.contains("no errors found"), "scrub: {status}");
    Ok(())
}

/// Two legs, the second of which can be told to fail.
fn mapped_leg(env: &Env) -> Result<(Mapped, Fs)> {
    let disks = env.take(2)?.to_vec();
    let mapped = Mapped::new("diotest", &disks[1])?;
    let devices = vec![disks[0].clone(), mapped.path()];
    let fs = Fs::make_on(env, &Spec::new("raid1", Csum::Crc32c), devices)?;
    Ok((mapped, fs))
}

/// What a counter has moved since a look at all; much, if there is no module.
fn met<'a>(before: &'a Option<Stats>, counter: &'a str) -> impl Fn() -> u64 + Sync + 'a {
    move || match (before, Stats::read()) {
        (Some(before), Ok(now)) => now.since(before).get(counter),
        _ => 1000,
    }
}

/// A leg that `fails`, until `counter` has moved that much.
fn failing_leg(
    env: &Env,
    fails: impl Fn(&Mapped) -> Result<()>,
    counter: &str,
    least: u32,
) -> Result<()> {
    let (mapped, mut fs) = mapped_leg(env)?;
    let files = files(env, &fs)?;
    fs.remount()?;
    fails(&mapped)?;
    let before = Stats::look(env)?;
    let least = u64::from(env.scaled(least));
    survive(env, &files, least, &met(&before, counter))?;
    mapped.heal()?;
    whole(&fs)?;
    fs.umount()
}

/// It gives wrong bytes now and then.
fn corrupting(env: &Env) -> Result<()> {
    failing_leg(env, |leg| leg.corrupt(20), "csum_mismatches", 50)
}

/// It comes and goes; what counts is each window in which it has failed.
fn flakey(env: &Env) -> Result<()> {
    failing_leg(env, |leg| leg.flakey(1, 1), "io_errors", 200)
}

/// A leg on which dozens of blocks cannot be read until they are written.
fn dust(env: &Env) -> Result<()> {
    let (mapped, mut fs) = mapped_leg(env)?;
    let files = files(env, &fs)?;
    let placed = crate::mirrors::Placed::find(&fs, &files[0])?;
    fs.remount()?;
    let on = |p: &&crate::chunks::Place| p.device == 2;
    let mut bad = Vec::new();
    // Several near each other, then none for a while: it takes a process to say so of each.
    let apart = 400 / env.scaled(100).clamp(10, 100) as usize;
    for (nr, block) in placed.blocks.iter().enumerate().step_by(3) {
        if nr / 12 % apart > 0 {
            continue;
        }
        let place = block.iter().find(on).context("a copy on the leg")?;
        bad.push(place.offset);
    }
    mapped.dusty(&bad)?;
    let before = Stats::look(env)?;
    let least = bad.len() as u64 / 2;
    survive(env, &files[..1], least, &met(&before, "repaired"))?;
    whole(&fs)?;
    fs.umount()
}

/// Changes a file, one change at a time.
type Change = fn(&mut Mending<'_>, &mut SmallRng) -> Result<()>;

struct Mending<'a> {
    fs: &'a Fs,
    arena: &'a Arena,
    file: std::fs::File,
    direct: std::fs::File,
    calls: usize,
}

impl Mending<'_> {
    fn write(&mut self, rng: &mut SmallRng) -> Result<()> {
        let (first, count) = self.arena.range(rng, 24);
        self.arena.write(first, count, |bytes| {
            write_at(&self.file, bytes, first as u64 * B)
        })
    }
}

fn overwrite(it: &mut Mending<'_>, rng: &mut SmallRng) -> Result<()> {
    it.write(rng)?;
    if it.calls % 4 == 0 {
        it.file.sync_data()?;
    }
    Ok(())
}

fn overwrite_direct(it: &mut Mending<'_>, rng: &mut SmallRng) -> Result<()> {
    let (first, count) = it.arena.range(rng, 24);
    let mut region = Region::new(count * BLOCK)?;
    it.arena.write(first, count, |bytes| {
        region.bytes_mut().copy_from_slice(bytes);
        write_at(&it.direct, region.bytes(), first as u64 * B)
    })
}

fn punch(it: &mut Mending<'_>, rng: &mut SmallRng) -> Result<()> {
    let hole = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
    let (first, count) = it.arena.range(rng, 24);
    it.arena.zero(first, count, || {
        sys::fallocate(&it.file, hole, first as u64 * B, count as u64 * B)?;
        Ok(())
    })?;
    it.write(rng)
}

fn truncate(it: &mut Mending<'_>, rng: &mut SmallRng) -> Result<()> {
    let keep = rng.random_range(0..BLOCKS);
    it.arena.zero(keep, BLOCKS - keep, || {
        it.arena.resize(&it.file, keep as u64 * B)?;
        it.arena.resize(&it.file, BLOCKS as u64 * B)
    })?;
    it.write(rng)
}

fn balance(it: &mut Mending<'_>, rng: &mut SmallRng) -> Result<()> {
    it.write(rng)?;
    it.file.sync_data()?;
    // With devices that fail it need not get far.
    let _ = it.fs.btrfs(["balance", "start", "--full-balance"]);
    Ok(())
}

fn snapshot(it: &mut Mending<'_>, rng: &mut SmallRng) -> Result<()> {
    let snap = it.fs.path("snap");
    let both = [fs::path(&it.fs.mnt), fs::path(&snap)];
    fs::run("btrfs", ["subvolume", "snapshot"].into_iter().chain(both))?;
    it.write(rng)?;
    fs::run("btrfs", ["subvolume", "delete", fs::path(&snap)])?;
    it.write(rng)
}

/// Repair against whoever changes the file: one leg misses one write in ten, so
/// that it has old blocks, and fails one read in ten.
fn mend(env: &Env, change: Change) -> Result<()> {
    let mut fs = Fs::make(env, &packed::spec("raid1", Csum::Crc32c, "lzo"))?;
    let mut arena = Arena::create(fs.path("raced"), BLOCKS)?;
    (arena.zeros, arena.every_way, arena.readers) = (true, true, 2);
    let failing = Failing::some(&[&fs.devices[1]], 10)?;
    let before = Stats::look(env)?;
    let mut it = Mending {
        fs: &fs,
        arena: &arena,
        file: arena.file()?,
        direct: open_direct_rw(&arena.path)?,
        calls: 0,
    };
    // A slow machine may not get far in one round.
    for round in 0.. {
        race::run(env, &arena, SECONDS, |_, rng| {
            it.calls += 1;
            change(&mut it, rng)
        })?;
        let Some(before) = &before else { break };
        let moved = Stats::read()?.since(before);
        ensure!(moved.get("lost") == 0, "{moved}");
        if moved.get("recovered") > 0 && moved.get("repaired") > 0 {
            break;
        }
        ensure!(round < 20, "{moved}");
    }
    drop(it);
    let faults = failing.count()?;
    drop(failing);
    eprintln!("# {}: {faults} faults", env.case);
    fs.sync()?;
    whole(&fs)?;
    race::settle(&mut fs, &arena)
}

/// Why nothing may be written.
#[derive(Clone, Copy)]
enum Still {
    Frozen,
    ReadOnly,
}

/// While the file system is still, nothing is written to the devices, though
/// readers find bad copies all the time.
fn still(env: &Env, how: Still) -> Result<()> {
    let (mapped, mut fs) = mapped_leg(env)?;
    let files = files(env, &fs)?;
    fs.remount()?;
    // Where all is sound: btrfs repairs its metadata though it is frozen.
    for file in &files {
        let read = Request::pread(0, BLOCK).perform(&model::open_direct(&file.path)?)?;
        ensure!(matches!(read.result, Ok(BLOCK)), "{:?}", read.result);
    }
    mapped.corrupt(30)?;
    let stop = AtomicBool::new(false);
    let mnt = fs::path(&fs.mnt);
    let set = |on: bool| match (how, on) {
        (Still::Frozen, true) => fs::run("fsfreeze", ["-f", mnt]),
        (Still::Frozen, false) => fs::run("fsfreeze", ["-u", mnt]),
        (Still::ReadOnly, true) => fs::run("mount", ["-o", "remount,ro", mnt]),
        (Still::ReadOnly, false) => fs::run("mount", ["-o", "remount,rw", mnt]),
    };
    let before = Stats::look(env)?;
    let rounds = std::thread::scope(|scope| {
        let reader = scope.spawn(|| read_until(env, &files, &|| stop.load(SeqCst)));
        let turns = || -> Result<u32> {
            let (begin, mut rounds) = (Instant::now(), 0);
            while begin.elapsed() < env.duration(SECONDS) || rounds < 3 {
                set(true)?;
                let checked = quiet(env, &fs.devices, before.as_ref());
                // btrfs looks at its superblocks when it may write again.
                mapped.heal()?;
                set(false)?;
                mapped.corrupt(30)?;
                checked?;
                std::thread::sleep(Duration::from_millis(100));
                rounds += 1;
                ensure!(!reader.is_finished(), "a reader failed");
            }
            Ok(rounds)
        };
        let result = turns();
        stop.store(true, SeqCst);
        let reads = reader.join().expect("a reader that does not panic");
        reads.and(result)
    })?;
    mapped.heal()?;
    eprintln!("# {}: {rounds} times still", env.case);
    if let Some(before) = before {
        let moved = Stats::all_served(Some(&before))?;
        eprintln!("# {}: {moved}", env.case);
        let both = moved.get("repaired") > 0 && moved.get("unrepaired") > 0;
        ensure!(both && moved.get("lost") == 0, "{moved}");
    }
    whole(&fs)?;
    fs.umount()
}

/// Looks on, while blocks are recovered, that nothing is written to the devices.
fn quiet(env: &Env, devices: &[PathBuf], stats: Option<&Stats>) -> Result<()> {
    let written = || {
        devices
            .iter()
            .map(|d| sectors_written(d))
            .collect::<Result<Vec<_>>>()
    };
    let recovered = || Ok::<u64, anyhow::Error>(Stats::read()?.get("recovered"));
    let before = written()?;
    let begin = Instant::now();
    if stats.is_some() {
        let first = recovered()?;
        while recovered()? < first + 5 {
            let time = begin.elapsed();
            ensure!(time < Duration::from_secs(60), "nothing is recovered");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
    std::thread::sleep(Duration::from_millis(100));
    let after = written()?;
    ensure!(
        before == after,
        "{}: sectors written to the devices: {before:?}, later {after:?}",
        env.case
    );
    Ok(())
}

/// How many sectors were written to a disk so far.
fn sectors_written(disk: &Path) -> Result<u64> {
    let number = std::fs::metadata(disk)?.rdev();
    let (major, minor) = (libc::major(number), libc::minor(number));
    let text = std::fs::read_to_string(format!("/sys/dev/block/{major}:{minor}/stat"))?;
    let field = text.split_whitespace().nth(6).context("a field")?;
    Ok(field.parse()?)
}
