// SPDX-License-Identifier: GPL-2.0

//! Where asynchronous reads are completed: one that is verified for long holds up no
//! other, not of another file system either.

use super::Case;
use crate::aio::{Engine, Queue, Start};
use crate::buffer::Region;
use crate::env::{Env, debug_kernel, skip};
use crate::fs::{Csum, Fs, Spec};
use crate::model::{self, Model};
use crate::module;
use crate::stats::Stats;
use crate::sys;
use anyhow::{Context, Result, ensure};
use rand::{RngExt, rngs::SmallRng};
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::{Duration, Instant};

const MIB: usize = 1 << 20;
/// What is measured: reads that a worker verifies, but not for long.
const SHORT: usize = 64 << 10;
/// How many of them are in flight.
const DEPTH: usize = 4;
/// How many in a turn.
const READS: u32 = 300;
/// What they are read beside, many times as long and many times as hard to verify.
const LONG: usize = 16 * MIB;
const LONG_DEPTH: usize = 2;
/// How often both is measured, in turns.
const TURNS: usize = 3;
/// How often at most, where so few do not tell.
const MOST_TURNS: usize = 6;
/// How much longer the slowest may take than without the module.
const TOLERANCE: f64 = 1.25;

pub fn cases(_: &Env) -> Vec<Case> {
    vec![Case::new("beside-long", beside_long)]
}

/// A file that was written out, and is not cached.
fn file(fs: &Fs, rng: &mut SmallRng, size: usize) -> Result<Model> {
    let mut file = Model::create(fs.path("file"))?;
    file.write_random(rng, 0, size)?;
    file.sync()?;
    sys::drop_pages(&file.file()?)?;
    Ok(file)
}

/// The slowest reads of 64 KiB of one file system beside long reads of another take
/// no longer with the module than without.
fn beside_long(env: &Env) -> Result<()> {
    module::able(env)?;
    if debug_kernel() {
        return Err(skip("a debug kernel is too slow to be measured"));
    }
    if !env.full {
        return Err(skip(
            "takes a machine that does nothing else: measured with --full",
        ));
    }
    let disks = env.take(2)?;
    let short = Fs::make_on(
        env,
        &Spec::new("single", Csum::Crc32c),
        vec![disks[0].clone()],
    )?;
    let mut other = Env {
        mnt: env.mnt.with_extension("other"),
        ..env.clone()
    };
    other.prepare()?;
    let long = Fs::make_on(
        &other,
        &Spec::new("single", Csum::Sha256),
        vec![disks[1].clone()],
    )?;
    let mut rng = env.rng(0);
    let short = (file(&short, &mut rng, 16 * MIB)?, short);
    let long = (file(&long, &mut rng, 2 * LONG)?, long);
    let mut worst = [Vec::new(), Vec::new()];
    let mut ratio = 0.0;
    for turn in 0..MOST_TURNS {
        if turn >= TURNS && ratio <= TOLERANCE {
            break;
        }
        let order = if turn % 2 == 0 { [0, 1] } else { [1, 0] };
        for with in order {
            let mut measure = || {
                let before = Stats::look(env).ok().flatten();
                let slow = slowest(&short.0, &long.0, &mut rng, env.scaled(READS))?;
                Ok::<_, anyhow::Error>((slow, before))
            };
            let slow = match with {
                0 => module::without(env, || Ok(measure()?.0))?,
                _ => {
                    let (slow, before) = measure()?;
                    let moved = Stats::all_at_once(before.as_ref())?;
                    let queued = u64::from(env.scaled(READS));
                    ensure!(moved.get("by_worker") > queued, "not by workers: {moved}");
                    slow
                }
            };
            worst[with].push(slow);
        }
        ratio = median(&worst[1]) / median(&worst[0]);
    }
    let each = format!("without {:.1?} ms, with {:.1?} ms", worst[0], worst[1]);
    eprintln!("# {}: {each}: {ratio:.2} times", env.case);
    ensure!(ratio <= TOLERANCE, "{ratio:.2} times as long: {each}");
    Ok(())
}

fn median(all: &[f64]) -> f64 {
    let mut all = all.to_vec();
    all.sort_by(f64::total_cmp);
    all[all.len() / 2]
}

/// Reads the one file at random while the other is read by another thread, and
/// returns the median of what the slowest hundredth takes, in milliseconds.
fn slowest(short: &Model, long: &Model, rng: &mut SmallRng, reads: u32) -> Result<f64> {
    let enough = AtomicBool::new(false);
    let mut times = std::thread::scope(|scope| {
        let beside = scope.spawn(|| {
            let mut at = 0;
            let (more, next) = (
                || !enough.load(SeqCst),
                || {
                    at = (at + LONG) % long.data.len();
                    at
                },
            );
            read(long, LONG, LONG_DEPTH, more, next)
        });
        // They have begun by then.
        std::thread::sleep(Duration::from_millis(50));
        let mut left = reads;
        let blocks = short.data.len() / SHORT;
        let more = || {
            left = left.saturating_sub(1);
            left > 0
        };
        let times = read(short, SHORT, DEPTH, more, || {
            rng.random_range(0..blocks) * SHORT
        });
        enough.store(true, SeqCst);
        beside.join().expect("a reader that does not panic")?;
        times
    })?;
    times.sort_by(f64::total_cmp);
    let worst = times.len().div_ceil(100);
    Ok(median(&times[times.len() - worst..]))
}

/// Reads parts of a file, so many in flight, as long as there is `more` to read, and
/// checks them; returns how long each took, in milliseconds.
fn read(
    file: &Model,
    len: usize,
    depth: usize,
    mut more: impl FnMut() -> bool,
    mut next: impl FnMut() -> usize,
) -> Result<Vec<f64>> {
    let direct = model::open_direct(&file.path)?;
    let memory = Region::new(depth * len)?;
    let mut queue = Queue::new(Engine::Libaio, depth as u32)?;
    let mut flights = vec![None; depth];
    let (mut times, mut on) = (Vec::new(), true);
    loop {
        for (slot, flight) in flights.iter_mut().enumerate() {
            if on && flight.is_none() {
                let at = next();
                let iov = [memory.iovec(slot * len..(slot + 1) * len)];
                *flight = Some((at, Instant::now()));
                let start = Start {
                    offset: at as u64,
                    iov: &iov,
                    tag: slot as u64,
                };
                ensure!(queue.start(&direct, &[start])? == 1, "not taken");
            }
        }
        if flights.iter().all(Option::is_none) {
            return Ok(times);
        }
        for done in queue.finish(1)? {
            let slot = done.tag as usize;
            let (at, begin) = flights[slot].take().context("ended twice")?;
            times.push(begin.elapsed().as_secs_f64() * 1e3);
            let count = done.result.with_context(|| format!("offset={at}"))?;
            let part = memory.part(slot * len..(slot + 1) * len);
            let right = count == len && part == &file.data[at..at + len];
            ensure!(right, "offset={at}: {count}, or not what was written");
            on = on && more();
        }
    }
}
