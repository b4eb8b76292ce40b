// SPDX-License-Identifier: GPL-2.0

//! A copy that is slow to answer: another one is asked, too, and nobody waits for
//! the slow one any more, whatever it writes later.

use super::Case;
use crate::aio::Engine;
use crate::buffer::BLOCK;
use crate::device;
use crate::device::Mapped;
use crate::devices::Devices;
use crate::env::{Env, skip};
use crate::fs::{Csum, Fs};
use crate::mirrors::{Placed, as_reader_of};
use crate::model::{self, Model};
use crate::module::{self, Parameter, Policy};
use crate::packed;
use crate::read::{Request, Via};
use crate::stats::Stats;
use anyhow::{Context, Result, anyhow, ensure};
use std::time::{Duration, Instant};

/// How long the slow device takes, and after how long another one is asked.
const SLOW: u32 = 6000;
const AFTER: &str = "150";
/// What a read takes at most that does not wait for the slow device, unless it is this
/// guest that is slow.
const MOST: Duration = Duration::from_millis(SLOW as u64 - 1500);
const SIZE: usize = 1 << 20;

pub fn cases(_: &Env) -> Vec<Case> {
    let mut cases = vec![Case::new("off", off)];
    for via in [
        Via::Pread,
        Via::Async(Engine::Libaio),
        Via::Async(Engine::Uring),
    ] {
        let name = format!("{via:?}").to_lowercase().replace(['(', ')'], "_");
        cases.push(Case::new(
            format!("on-{}", name.trim_end_matches('_')),
            move |env| on(env, via),
        ));
    }
    cases.push(Case::new("unload", unload));
    cases.push(Case::new("fast", fast));
    cases.push(Case::new("bad", bad));
    cases
}

/// Two legs, the second of which is slow, and a file of plain extents and a
/// compressed one. Nothing of them is in memory but the metadata.
struct Slow {
    files: [Model; 2],
    fs: Fs,
    mapped: Mapped,
}

impl Slow {
    fn make(env: &Env) -> Result<Self> {
        if !env.module {
            return Err(skip("nobody asks another copy"));
        }
        let disks = env.take(2)?.to_vec();
        let mapped = Mapped::new("diotest", &disks[1])?;
        let devices = vec![disks[0].clone(), mapped.path()];
        let fs = Fs::make_on(env, &packed::spec("raid1", Csum::Crc32c, "zstd"), devices)?;
        let mut plain = Model::create(fs.path("plain"))?;
        plain.write_random(&mut env.rng(0), 0, SIZE)?;
        let mut compressed = Model::create(fs.path("compressed"))?;
        compressed.write(0, &model::uneven(&mut env.rng(1), SIZE))?;
        let slow = Self {
            files: [plain, compressed],
            fs,
            mapped,
        };
        for file in &slow.files {
            file.sync()?;
            let request = Request::pread(0, SIZE);
            slow.read(file, &request)?;
        }
        // No commit is to be under way later on: what may not wait for it gives up,
        // and then the slow device is waited for.
        slow.fs.sync()?;
        slow.mapped.delay(SLOW)?;
        Ok(slow)
    }

    /// Reads, and returns how long that took.
    fn read(&self, file: &Model, request: &Request) -> Result<Duration> {
        let direct = model::open_direct(&file.path)?;
        let begin = Instant::now();
        let outcome = request.perform(&direct)?;
        let time = begin.elapsed();
        let start = request.offset as usize;
        let want = &file.data[start..start + request.total()];
        let verdict = outcome.verify(request, want, true);
        verdict.map_err(|why| anyhow!("file={} {request}: {why}", file.name()))?;
        Ok(time)
    }

    /// Reads of every size and place, by `via`.
    fn reads(via: Via) -> impl Iterator<Item = Request> {
        let places = [
            (0, SIZE),
            (3 * BLOCK, BLOCK),
            (512, 3584),
            (7 * BLOCK, 60 * BLOCK),
        ];
        let all = places.into_iter();
        all.map(move |(at, len)| Request::pread(at as u64, len).via(via))
    }

    /// Lets the slow device be as fast as the other one, and its file system go.
    fn end(mut self) -> Result<()> {
        self.mapped.heal()?;
        self.fs.umount()
    }
}

/// If nothing is said, the slow device is waited for.
fn off(env: &Env) -> Result<()> {
    let slow = Slow::make(env)?;
    let _policy = Policy::fs(env)?;
    let before = Stats::read()?;
    let mut waited = 0;
    for residue in 0..2 {
        let request = Request::pread(0, BLOCK);
        let before = Devices::read()?;
        let time = as_reader_of(2, residue, || slow.read(&slow.files[0], &request))?;
        let moved = Devices::read()?.since(&before, &slow.fs)?;
        if moved[1].get("reads") > 0 {
            ensure!(time >= Duration::from_millis(SLOW.into()), "{time:?}");
            waited += 1;
        }
    }
    ensure!(waited == 1, "{waited} of two copies are on the slow device");
    let moved = Stats::all_served(Some(&before))?;
    ensure!(moved.get("hedged") == 0, "{moved}");
    slow.end()
}

/// Nobody waits for it, the data is right, and stays so when it answers at last.
fn on(env: &Env, via: Via) -> Result<()> {
    let slow = Slow::make(env)?;
    let _slow = Parameter::set(env, "slow_copy_ms", AFTER)?;
    let before = Stats::read()?;
    let mut late = Vec::new();
    let end = Instant::now() + Duration::from_millis(2 * u64::from(SLOW));
    let mut reads = 0u64;
    let mut long = Vec::new();
    while Instant::now() < end {
        // Both as one who would be given the slow copy, and as one who would not.
        let policy = ["spread", "fs", "fs"][reads as usize / 8 % 3];
        let _policy = Policy::set(env, policy)?;
        for file in &slow.files {
            for request in Slow::reads(via) {
                let direct = model::open_direct(&file.path)?;
                let residue = reads as u32 / 8 % 2;
                let (outcome, time) = as_reader_of(2, residue, || {
                    let begin = Instant::now();
                    Ok((request.perform(&direct)?, begin.elapsed()))
                })?;
                if time >= MOST {
                    long.push(format!("{request}: {time:?}"));
                }
                let start = request.offset as usize;
                let want = &file.data[start..start + request.total()];
                // Kept, to be looked at once more.
                late.push((outcome, request, want));
                reads += 1;
            }
        }
    }
    // A device that is suspended lets go of what it has delayed.
    slow.mapped.heal()?;
    Devices::settle()?;
    Stats::settle()?;
    for (outcome, request, want) in &late {
        let verdict = outcome.verify(request, want, true);
        verdict.map_err(|why| anyhow!("{request}: {why}"))?;
    }
    drop(late);
    let moved = Stats::all_served(Some(&before))?;
    eprintln!("# {}: {reads} reads, {moved}", env.case);
    // A processor that the host does not run holds up one read, not one in twenty.
    ensure!(long.len() as u64 * 20 <= reads, "{long:?}");
    ensure!(moved.get("hedged") > 5, "hardly ever asked: {moved}");
    ensure!(moved.get("reads") >= reads, "{reads} reads: {moved}");
    slow.end()
}

/// The module goes while the slow device has not answered yet: it waits for that.
fn unload(env: &Env) -> Result<()> {
    let slow = Slow::make(env)?;
    let parameter = Parameter::set(env, "slow_copy_ms", AFTER)?;
    let before = Stats::read()?;
    let begin = Instant::now();
    let mut hedged = false;
    while !hedged {
        for request in Slow::reads(Via::Pread) {
            slow.read(&slow.files[0], &request)?;
        }
        hedged = Stats::read()?.since(&before).get("hedged") > 0;
        ensure!(begin.elapsed() < Duration::from_secs(60), "never asked");
    }
    module::without(env, || Ok(()))?;
    drop(parameter);
    slow.end()
}

/// Where no device is slow no other one is asked, and all else is as ever.
fn fast(env: &Env) -> Result<()> {
    let slow = Slow::make(env)?;
    slow.mapped.heal()?;
    let _slow = Parameter::set(env, "slow_copy_ms", "60000")?;
    let before = Stats::read()?;
    let mut rng = env.rng(2);
    for i in 0..env.scaled(100) as usize {
        let file = &slow.files[i % 2];
        let (at, len) = (i * 7 % 128 * BLOCK, (1 + i % 30) * BLOCK);
        let request = Request::pread(at as u64, len).any_via(&mut rng);
        slow.read(file, &request)?;
    }
    let moved = Stats::all_served(Some(&before))?;
    ensure!(moved.get("hedged") == 0, "{moved}");
    slow.end()
}

/// The one that is asked, too, is bad: that is found out and repaired, though the
/// data is that of the slow one.
fn bad(env: &Env) -> Result<()> {
    let slow = Slow::make(env)?;
    let _policy = Policy::fs(env)?;
    let _slow = Parameter::set(env, "slow_copy_ms", AFTER)?;
    let (file, nr) = (&slow.files[0], 9usize);
    let placed = Placed::find(&slow.fs, file)?;
    let places = &placed.blocks[nr];
    let fast = places.iter().position(|p| p.device == 1);
    let fast = fast.context("a copy on the first leg")?;
    device::write_block(&slow.fs, &places[fast], &[0xbb; BLOCK])?;
    let before = Stats::read()?;
    let request = Request::pread((nr * BLOCK) as u64, BLOCK);
    as_reader_of(2, 1 - fast as u32, || slow.read(file, &request))?;
    let moved = Stats::all_served(Some(&before))?;
    let found = ["hedged", "csum_mismatches", "repaired"].map(|name| moved.get(name));
    ensure!(found == [1, 1, 1] && moved.get("lost") == 0, "{moved}");
    ensure!(
        placed.sound(&slow.fs, file, nr..nr + 1, fast)?,
        "not repaired"
    );
    slow.end()
}
