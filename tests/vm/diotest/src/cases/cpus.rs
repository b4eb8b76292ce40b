// SPDX-License-Identifier: GPL-2.0

//! What there is for each CPU, on a machine with many: the choice of a copy hardly
//! looks at what other CPUs have in flight, and as many extents are decompressed at
//! a time as there are CPUs. The guest has 16 CPUs for this group.

use super::Case;
use crate::buffer::{BLOCK, Region, first_difference};
use crate::devices::{Devices, sum};
use crate::env::{Env, debug_kernel, skip};
use crate::fs::{Csum, Fs, Spec};
use crate::model::{self, Model};
use crate::packed;
use crate::stats::Stats;
use crate::sys;
use anyhow::{Context, Result, bail, ensure};
use rand::RngExt;
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::{Duration, Instant};

const MIB: usize = 1 << 20;
/// Readers at a time, one for each CPU.
const READERS: usize = 16;
/// Reads of each.
const READS: u32 = 300;
/// How often at most that is measured, until it is as it must be: the host may run an
/// emulated CPU so seldom that it has few reads between two ticks of the clock, or stop
/// one in the middle of a read, so that all others read the other device.
const TURNS: usize = 6;
/// Of the devices of a read's copies, how often what is in flight may be added up.
const SUMS: f64 = 1.0 / 8.0;
/// How much of what one device reads the other one has to read at least.
const EVEN: f64 = 0.75;
/// How long a state is waited for.
const PATIENCE: Duration = Duration::from_secs(60);

pub fn cases(_: &Env) -> Vec<Case> {
    let mut cases = vec![Case::new("sums", sums)];
    for algorithm in packed::ALGORITHMS {
        cases.push(Case::new(format!("decoders-{algorithm}"), move |env| {
            decoders(env, algorithm)
        }));
    }
    cases
}

fn needs_cpus(env: &Env) -> Result<()> {
    if !env.module {
        return Err(skip("nothing of the module to count"));
    }
    let cpus = std::thread::available_parallelism()?.get();
    match cpus >= READERS {
        true => Ok(()),
        false => Err(skip(format!("needs {READERS} CPUs, not {cpus}"))),
    }
}

/// Reads of 4 KiB of a mirror by all CPUs: spread evenly, without asking all CPUs
/// each time.
fn sums(env: &Env) -> Result<()> {
    needs_cpus(env)?;
    let fs = Fs::make(env, &Spec::new("raid1", Csum::Crc32c))?;
    let mut file = Model::create(fs.path("file"))?;
    file.write_random(&mut env.rng(0), 0, 16 * MIB)?;
    file.sync()?;
    sys::drop_pages(&file.file()?)?;
    let reads = env.scaled(READS);
    let (mut least, mut evenest) = (f64::MAX, 0.0f64);
    for turn in 0..TURNS as u64 {
        Devices::settle()?;
        let (before, devices) = (Stats::read()?, Devices::read()?);
        std::thread::scope(|scope| {
            let readers: Vec<_> = (0..READERS as u64)
                .map(|nr| (nr, &file))
                .map(|(nr, file)| {
                    scope.spawn(move || read_blocks(env, file, 1 + turn * 100 + nr, reads))
                })
                .collect();
            for reader in readers {
                reader.join().expect("a reader that does not panic")?;
            }
            Ok::<_, anyhow::Error>(())
        })?;
        // None is in flight to any device when this returns.
        Devices::settle()?;
        let moved = Stats::all_at_once(Some(&before))?;
        let devices = Devices::read()?.since(&devices, &fs)?;
        let bytes: Vec<_> = devices.iter().map(|d| d.get("bytes")).collect();
        let all = READERS as u64 * u64::from(reads);
        ensure!(moved.get("reads") == all, "not {all} reads: {moved}");
        ensure!(
            sum(&devices, "bytes") == all * BLOCK as u64,
            "not the bytes of {all} reads: {bytes:?}"
        );
        let extremes = bytes.iter().min().zip(bytes.iter().max());
        let (fewest, most) = extremes.context("no devices")?;
        let even = *fewest as f64 / *most as f64;
        let choices = all * bytes.len() as u64;
        let sums = moved.get("account_sums");
        ensure!(sums > 0, "as if there were few CPUs: {moved}");
        let share = sums as f64 / choices as f64;
        eprintln!(
            "# {}: {sums} sums for {choices} devices looked at: {share:.3}; {bytes:?}",
            env.case
        );
        if share <= SUMS && even >= EVEN {
            return Ok(());
        }
        (least, evenest) = (least.min(share), evenest.max(even));
    }
    ensure!(
        least <= SUMS,
        "adds up what all CPUs have {least:.3} times for each device that it looks at, not {SUMS}"
    );
    ensure!(
        evenest >= EVEN,
        "one device reads {evenest:.2} times what the other one does"
    );
    bail!("never evenly without adding up what all CPUs have")
}

/// Reads blocks at random, one after the other, and checks them.
fn read_blocks(env: &Env, file: &Model, salt: u64, reads: u32) -> Result<()> {
    let direct = model::open_direct(&file.path)?;
    let mut region = Region::new(BLOCK)?;
    let mut rng = env.rng(salt);
    for _ in 0..reads {
        let at = rng.random_range(0..file.data.len() / BLOCK) * BLOCK;
        read_part(&direct, &mut region, file, at, BLOCK)?;
    }
    Ok(())
}

/// One read, which has to give what the file has there.
fn read_part(
    direct: &std::fs::File,
    region: &mut Region,
    file: &Model,
    at: usize,
    len: usize,
) -> Result<()> {
    let iov = region.iovec(0..len);
    let got = sys::pread(direct.as_raw_fd(), &iov, at as i64).with_context(|| file.name())?;
    let want = &file.data[at..at + len];
    ensure!(got == len, "offset={at}: {got} bytes");
    let differs = first_difference(region.part(0..len), want);
    ensure!(differs.is_none(), "offset={at}: differs at {differs:?}");
    Ok(())
}

/// While all CPUs decompress there is a decoder for more than eight of them; when
/// none does any more, one is left of each algorithm.
fn decoders(env: &Env, algorithm: &str) -> Result<()> {
    needs_cpus(env)?;
    if debug_kernel() {
        return Err(skip("a debug kernel decompresses too slowly"));
    }
    let reserve = packed::ALGORITHMS.len() as u64;
    settled(reserve)?;
    let fs = Fs::make(env, &packed::spec("single", Csum::Crc32c, algorithm))?;
    let mut file = Model::create(fs.path("file"))?;
    let data = model::compressible(&mut env.rng(0), 4 * MIB);
    file.write(0, &data)?;
    file.sync()?;
    sys::drop_pages(&file.file()?)?;
    let before = Stats::read()?;
    let enough = AtomicBool::new(false);
    let most = std::thread::scope(|scope| {
        let readers: Vec<_> = (0..READERS)
            .map(|nr| {
                let (file, enough) = (&file, &enough);
                scope.spawn(move || {
                    let direct = model::open_direct(&file.path)?;
                    let mut region = Region::new(MIB)?;
                    let mut at = nr % 4 * MIB;
                    while !enough.load(SeqCst) {
                        read_part(&direct, &mut region, file, at, MIB)?;
                        at = (at + MIB) % file.data.len();
                    }
                    Ok::<_, anyhow::Error>(())
                })
            })
            .collect();
        let begin = Instant::now();
        let mut most = 0;
        while most <= reserve - 1 + 8 && begin.elapsed() < PATIENCE {
            most = most.max(Stats::read()?.get("decoders"));
            std::thread::sleep(Duration::from_millis(5));
        }
        enough.store(true, SeqCst);
        for reader in readers {
            reader.join().expect("a reader that does not panic")?;
        }
        Ok::<_, anyhow::Error>(most)
    })?;
    let moved = Stats::all_at_once(Some(&before))?;
    eprintln!("# {}: {most} decoders; {moved}", env.case);
    ensure!(
        most > reserve - 1 + 8,
        "never more than {most} decoders, with one each of the other algorithms"
    );
    settled(reserve)
}

/// Waits until there are so many decoders left.
fn settled(reserve: u64) -> Result<()> {
    let begin = Instant::now();
    loop {
        let now = Stats::read()?.get("decoders");
        if now == reserve {
            return Ok(());
        }
        ensure!(
            now > reserve && begin.elapsed() < PATIENCE,
            "nobody reads, and there are {now} decoders, not {reserve}"
        );
        std::thread::sleep(Duration::from_millis(50));
    }
}
