// SPDX-License-Identifier: GPL-2.0

//! Space that is given up, and to another file, while a slow device is about to
//! read it: whoever asked for what was there gets that, or what has taken its
//! place in the file, and nothing of the other file's.

use super::Case;
use crate::aio::{Engine, Queue, Start};
use crate::buffer::{BLOCK, Region};
use crate::device::Mapped;
use crate::env::Env;
use crate::fiemap;
use crate::fs::{Csum, Fs, Spec};
use crate::model::{self, Model};
use crate::stats::Stats;
use crate::sys;
use anyhow::{Context, Result, ensure};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::{Duration, Instant};

/// Milliseconds that the device takes, unless it is told to hurry up.
const SLOW: u32 = 100_000;
const SIZE: usize = 1 << 20;
/// How much is free beside, and how many files are written, at most, until one is
/// where the file was.
const SPARE: u64 = 8 << 20;
const FILES: usize = 20;

pub fn cases(_: &Env) -> Vec<Case> {
    let mut cases = Vec::new();
    for csum in [Csum::Crc32c, Csum::NoDataSum] {
        let changes: [(_, Change); 3] = [
            ("overwrite", |file, new| file.write(0, new)),
            ("overwrite_direct", overwrite_direct),
            ("punch", |file, _| file.punch(0, SIZE as u64)),
        ];
        for (name, change) in changes {
            let name = format!("{}-{name}", csum.name());
            cases.push(Case::new(name, move |env| reuse(env, csum, change)));
        }
    }
    cases
}

fn overwrite_direct(file: &mut Model, new: &[u8]) -> Result<()> {
    let mut region = Region::new(SIZE)?;
    region.bytes_mut().copy_from_slice(new);
    crate::race::write_at(&crate::race::open_direct_rw(&file.path)?, region.bytes(), 0)?;
    file.data.copy_from_slice(new);
    Ok(())
}

/// Returns whether any of a file is at an address.
fn is_at(file: &File, address: u64) -> Result<bool> {
    let extents = fiemap::extents(file)?;
    Ok(extents
        .iter()
        .any(|e| (e.logical..e.logical + e.len).contains(&address)))
}

/// Leaves little free space.
fn fill(fs: &Fs) -> Result<()> {
    let spare = fs.path("spare");
    sys::fallocate(&File::create(&spare)?, 0, 0, SPARE)?;
    let file = File::create(fs.path("full"))?;
    let (mut at, mut size) = (0, 256 << 20);
    while size >= SIZE as u64 {
        match sys::fallocate(&file, 0, at, size) {
            Ok(_) => at += size,
            Err(_) => size /= 2,
        }
    }
    fs.sync()?;
    std::fs::remove_file(spare)?;
    fs.sync()
}

type Change = fn(&mut Model, &[u8]) -> Result<()>;

fn reuse(env: &Env, csum: Csum, change: Change) -> Result<()> {
    let mapped = Mapped::new("diotest", &env.take(1)?[0])?;
    let mut fs = Fs::make_on(env, &Spec::new("single", csum), vec![mapped.path()])?;
    let mut file = Model::create(fs.path("mine"))?;
    file.write_random(&mut env.rng(0), 0, SIZE)?;
    file.sync()?;
    fill(&fs)?;
    let old = file.data.clone();
    let new = model::random(&mut env.rng(1), SIZE);
    let foreign = [0xf0u8; BLOCK];
    let extents = fiemap::extents(&file.file()?)?;
    let was = extents.first().context("an extent")?.logical;
    let direct = model::open_direct(&file.path)?;
    let mut region = Region::new(SIZE)?;
    // The metadata is in memory from here on.
    let memory = region.iovec(0..SIZE).iov_base as usize;
    direct.read_exact_at(region.bytes_mut(), 0)?;
    region.bytes_mut().fill(0);
    let before = Stats::look(env)?;

    mapped.delay(SLOW)?;
    // Whoever waits for a read keeps most writers out; this one does not.
    let mut queue = Queue::new(Engine::Uring, 1)?;
    let iov = [region.iovec(0..SIZE)];
    let start = Start {
        offset: 0,
        iov: &iov,
        tag: 0,
    };
    queue.start(&direct, &[start])?;
    let done = AtomicBool::new(false);
    let (result, seen) = std::thread::scope(|scope| -> Result<_> {
        // Who shares the memory, and looks at it all the time.
        let spy = scope.spawn(|| {
            let mut seen = 0u64;
            while !done.load(SeqCst) {
                seen += u64::from(looks_like(memory, foreign[0]));
                std::thread::sleep(Duration::from_millis(1));
            }
            seen
        });
        let begin = Instant::now();
        let taken = (|| {
            change(&mut file, &new)?;
            file.sync()?;
            fs.sync()?;
            for nr in 0..FILES {
                let mut other = Model::create(fs.path(format!("other{nr}")))?;
                other.write(0, &foreign.repeat(SIZE / BLOCK))?;
                other.sync()?;
                if is_at(&other.file()?, was)? {
                    return Ok(nr);
                }
            }
            anyhow::bail!("the space is not used again")
        })();
        let late = begin.elapsed().as_millis() >= u128::from(SLOW);
        let healed = mapped.heal();
        let ended = queue.finish(1);
        done.store(true, SeqCst);
        let seen = spy.join().expect("the spy ends");
        healed?;
        eprintln!("# {}: used again by file {}", env.case, taken?);
        // btrfs by itself lets direct writers wait.
        ensure!(
            !late || !env.module,
            "all was over before the space was used again"
        );
        let ended = ended?.pop().context("an end")?;
        Ok((ended.result, seen))
    })?;
    eprintln!("# {}: seen meanwhile {seen} times", env.case);

    let region = region.bytes();
    ensure!(
        !region.chunks(BLOCK).any(|block| block == foreign),
        "another file's data"
    );
    let count = result?;
    ensure!(count == SIZE, "the read returned {count}");
    for (nr, block) in region.chunks(BLOCK).enumerate() {
        let range = nr * BLOCK..(nr + 1) * BLOCK;
        ensure!(
            block == &old[range.clone()] || block == &file.data[range],
            "block {nr} is not what the file had"
        );
    }
    Stats::all_served(before.as_ref())?;
    drop((queue, direct));
    fs.umount()
}

/// Returns whether the first bytes of any block are all this one.
fn looks_like(memory: usize, byte: u8) -> bool {
    (0..SIZE).step_by(BLOCK).any(|at| {
        let block = (memory + at) as *const u8;
        // SAFETY: Mapped; others may write to it, so it is read without any
        // assumption.
        (0..8).all(|n| unsafe { block.add(n).read_volatile() } == byte)
    })
}
