// SPDX-License-Identifier: GPL-2.0

//! Everything at once: all that changes a file, all that moves it about, and
//! readers by every way there is, each of which checks what it gets.

use super::Case;
use crate::aio::Engine;
use crate::buffer::{BLOCK, Region};
use crate::env::Env;
use crate::flood::Flood;
use crate::fs::{self, Csum, Fs};
use crate::model::{clone_range, dedupe_range};
use crate::packed;
use crate::race::{self, Arena, open_direct_rw, write_at};
use crate::stats::Stats;
use crate::sys;
use anyhow::{Context, Result};
use rand::{RngExt, rngs::SmallRng};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::SeqCst};
use std::time::Duration;

/// Blocks of the file that is raced for.
const BLOCKS: usize = 256;
const B: u64 = BLOCK as u64;
/// Seconds of each.
const SECONDS: u32 = 20;
const HOLE: i32 = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
const ZERO: i32 = libc::FALLOC_FL_ZERO_RANGE;

pub fn cases(_: &Env) -> Vec<Case> {
    vec![
        Case::new("writers", |env| run(env, Kind::Writers)),
        Case::new("writers_and_mmap", |env| run(env, Kind::Mmap)),
    ]
}

/// What happens besides.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Writers,
    /// Stores, which nothing orders: of torn blocks nobody can be blamed.
    Mmap,
    /// The module comes and goes.
    Reload,
}

/// Who changes the file, one change at a time: every block has one history.
struct Writer<'a> {
    arena: &'a Arena,
    file: File,
    direct: File,
    /// Of the same size, to clone from.
    source: File,
    mapped: Option<Region>,
}

impl Writer<'_> {
    fn change(&mut self, rng: &mut SmallRng) -> Result<()> {
        let (arena, file) = (self.arena, &self.file);
        let (first, count) = arena.range(rng, 40);
        let (offset, len) = (first as u64 * B, count as u64 * B);
        let mapped = self.mapped.as_mut();
        let what = rng.random_range(0..10);
        let changed = match (what, mapped) {
            (0 | 1, _) => arena.write(first, count, |bytes| write_at(file, bytes, offset)),
            (2 | 3, _) => {
                let mut region = Region::new(count * BLOCK)?;
                arena.write(first, count, |bytes| {
                    region.bytes_mut().copy_from_slice(bytes);
                    write_at(&self.direct, region.bytes(), offset)
                })
            }
            (4, _) => arena.zero(first, count, || {
                Ok(sys::fallocate(file, HOLE, offset, len)?)
            }),
            (5, _) => arena.zero(first, count, || {
                if first % 2 == 0 {
                    return Ok(sys::fallocate(file, ZERO, offset, len)?);
                }
                sys::fallocate(file, HOLE, offset, len)?;
                Ok(sys::fallocate(file, 0, offset, len)?)
            }),
            (6, None) => arena.zero(first, BLOCKS - first, || {
                arena.resize(file, offset)?;
                arena.resize(file, BLOCKS as u64 * B)
            }),
            (7, _) => arena.write(first, count, |bytes| {
                write_at(&self.source, bytes, offset)?;
                clone_range(&self.source, offset, len, file, offset)
            }),
            (8, _) => arena
                .write(first, count, |bytes| {
                    write_at(&self.source, bytes, offset)?;
                    write_at(file, bytes, offset)
                })
                .and_then(|()| dedupe_range(&self.source, file, offset, len).map(drop)),
            (6 | 9, Some(mapped)) => arena.write(first, count, |bytes| {
                let at = offset as usize;
                mapped.part_mut(at..at + bytes.len()).copy_from_slice(bytes);
                Ok(())
            }),
            _ => match file.sync_all() {
                Err(error) if error.raw_os_error() == Some(libc::EIO) && collided() => Ok(()),
                other => other.map_err(Into::into),
            },
        };
        changed.with_context(|| format!("change {what} at={offset} length={len}"))
    }
}

/// Whether btrfs has said that a direct write could not throw out the page cache
/// behind it: it answers the next sync with EIO then, whoever reads directly.
fn collided() -> bool {
    fs::run("dmesg", [""; 0]).is_ok_and(|log| log.contains("Page cache invalidation failure"))
}

/// Moves the file about, but leaves what is in it.
struct Upkeep<'a> {
    env: &'a Env,
    fs: &'a Fs,
    path: &'a Path,
    /// The devices the file system has.
    devices: Vec<PathBuf>,
    spare: PathBuf,
}

impl Upkeep<'_> {
    fn something(&mut self, rng: &mut SmallRng) -> Result<()> {
        let fs = self.fs;
        match rng.random_range(0..10) {
            0 => self.defragment(None),
            1 => self.defragment(Some(packed::ALGORITHMS[rng.random_range(0..3)])),
            2 => self.snapshot(rng),
            3 => fs.sync(),
            4 => Ok(sys::drop_caches()?),
            5 => fs.btrfs(["scrub", "start", "-B"]).map(drop),
            6 => self.replace(rng),
            7 => self.remount(rng),
            8 => self.kill(rng),
            _ => {
                let profile = ["raid1", "single", "raid0", "raid10", "dup"][rng.random_range(0..5)];
                let convert = format!("-dconvert={profile}");
                fs.btrfs(["balance", "start", "-f", &convert]).map(drop)
            }
        }
    }

    fn defragment(&self, packed: Option<&str>) -> Result<()> {
        let how = packed.map_or("-t32M".into(), |name| format!("-c{name}"));
        let args = ["filesystem", "defragment", "-f", &how, fs::path(self.path)];
        fs::run("btrfs", args).map(drop)
    }

    fn snapshot(&self, rng: &mut SmallRng) -> Result<()> {
        let (sub, snap) = (self.fs.path("sub"), self.fs.path("snap"));
        let args = ["subvolume", "snapshot", fs::path(&sub), fs::path(&snap)];
        fs::run("btrfs", args)?;
        std::thread::sleep(Duration::from_millis(rng.random_range(0..200)));
        fs::run("btrfs", ["subvolume", "delete", fs::path(&snap)]).map(drop)
    }

    /// Puts the spare device in the place of another one.
    fn replace(&mut self, rng: &mut SmallRng) -> Result<()> {
        let leaves = &mut self.devices[rng.random_range(1..4)];
        let (from, to) = (fs::path(leaves), fs::path(&self.spare));
        self.fs.btrfs(["replace", "start", "-B", "-f", from, to])?;
        std::mem::swap(leaves, &mut self.spare);
        Ok(())
    }

    /// Changes how what is written from now on is stored.
    fn remount(&self, rng: &mut SmallRng) -> Result<()> {
        let options = ["compress=no", "compress=lzo", "compress-force=zlib"];
        let options = format!("remount,{}", options[rng.random_range(0..options.len())]);
        fs::run("mount", ["-o", &options, fs::path(&self.fs.mnt)]).map(drop)
    }

    /// Kills a process that has reads in flight.
    fn kill(&self, rng: &mut SmallRng) -> Result<()> {
        let engine = Engine::ALL[rng.random_range(0..Engine::ALL.len())];
        let flood = Flood::start(self.env, engine, self.path)?;
        std::thread::sleep(Duration::from_millis(rng.random_range(0..200)));
        flood.kill()
    }
}

/// Unloads the module and loads it again, whatever is going on, until told to stop; or
/// stops all others, and says why.
fn come_and_go(env: &Env, arena: &Arena, stop: &AtomicBool, outcome: &Mutex<Result<()>>) {
    let mut rng = env.rng(401);
    while !stop.load(SeqCst) {
        let served = Stats::read().map(|stats| stats.get("reads") > 0);
        let gone = match served {
            // Each time it serves something before it goes.
            Ok(false) => Ok(()),
            Ok(true) => arena.presence.reload(env),
            Err(error) => Err(error),
        };
        if let Err(error) = gone {
            *outcome.lock().expect("not poisoned") = Err(error);
            stop.store(true, SeqCst);
        }
        std::thread::sleep(Duration::from_millis(rng.random_range(0..1000)));
    }
}

/// Everything at once, for a while.
pub fn run(env: &Env, kind: Kind) -> Result<()> {
    let mmap = kind == Kind::Mmap;
    let mut devices = env.take(5)?.to_vec();
    let spare = devices.remove(4);
    let spec = packed::spec("raid1", Csum::Crc32c, "zstd");
    let mut fs = Fs::make_on(env, &spec, devices)?;
    let sub = fs.path("sub");
    fs::run("btrfs", ["subvolume", "create", fs::path(&sub)])?;
    let mut arena = Arena::create(sub.join("raced"), BLOCKS)?;
    (arena.zeros, arena.mixed) = (true, mmap);
    (arena.every_way, arena.readers) = (true, 3);
    let path = fs.path("source");
    File::create_new(&path)?.set_len(BLOCKS as u64 * B)?;
    let file = arena.file()?;
    let mapped = mmap
        .then(|| Region::of_file(&file, BLOCKS * BLOCK))
        .transpose()?;
    let mut writer = Writer {
        arena: &arena,
        direct: open_direct_rw(&arena.path)?,
        source: File::options().read(true).write(true).open(&path)?,
        file,
        mapped,
    };
    let (stop, done, failed) = (AtomicBool::new(false), AtomicU32::new(0), AtomicU32::new(0));
    let mut upkeep = Upkeep {
        env,
        fs: &fs,
        path: &arena.path,
        devices: fs.devices.clone(),
        spare,
    };
    let reloading = Mutex::new(Ok(()));
    let result = std::thread::scope(|scope| {
        let upkeep = scope.spawn(|| {
            let mut rng = env.rng(400);
            while !stop.load(SeqCst) {
                done.fetch_add(1, SeqCst);
                // There may be no room for a profile right now.
                if let Err(error) = upkeep.something(&mut rng) {
                    failed.fetch_add(1, SeqCst);
                    eprintln!("# {}: {error:#}", env.case);
                }
            }
        });
        // Loading takes its time, however few rounds there are.
        let seconds = match kind {
            Kind::Reload => SECONDS.max(SECONDS * 100 / env.rounds),
            _ => SECONDS,
        };
        let result = race::run(env, &arena, seconds, |turn, rng| {
            // Whose counters have been looked at by now.
            if kind == Kind::Reload && turn == 0 {
                scope.spawn(|| come_and_go(env, &arena, &stop, &reloading));
            }
            anyhow::ensure!(!stop.load(SeqCst), "the module is not there");
            writer.change(rng)
        });
        stop.store(true, SeqCst);
        upkeep.join().expect("upkeep that does not panic");
        result
    });
    let reloading = reloading.into_inner().expect("not poisoned");
    let result = match (result, reloading) {
        (Err(error), Err(other)) => Err(error.context(other)),
        (result, reloading) => result.and(reloading),
    };
    let (done, failed) = (done.into_inner(), failed.into_inner());
    let reloaded = arena.presence.times();
    eprintln!(
        "# {}: moved about {done} times, {failed} in vain; {reloaded} times without the module",
        env.case
    );
    drop(writer);
    let devices = upkeep.devices;
    fs.devices = devices;
    result?;
    // On a debug kernel the only one may have been that.
    anyhow::ensure!(failed <= (done / 2).max(1), "{failed} of {done} in vain");
    let reload = kind == Kind::Reload;
    anyhow::ensure!(
        reload == (reloaded > 0),
        "{reloaded} times without the module"
    );
    race::settle(&mut fs, &arena)
}
