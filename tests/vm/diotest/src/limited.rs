// SPDX-License-Identifier: GPL-2.0

//! A process of a cgroup with little memory that reads a file of more than that.

use crate::aio::{self, Engine, Queue};
use crate::blocks::{Found, Version, identify};
use crate::buffer::{BLOCK, Region};
use crate::model;
use crate::sys;
use anyhow::{Context, Result, bail, ensure};
use std::fs::File;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};
use std::sync::Barrier;

/// Size of the file, and of the buffers of all reads together.
pub const SIZE: usize = 96 << 20;
/// Bytes of each read of a thread: as many as the module pins at a time.
const LEN: usize = 4 << 20;
/// Bytes of each read of a queue.
const LONG: usize = 16 << 20;

const FILE: u64 = 0x11;
const VERSION: u64 = 1;

/// How the process reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// All of the file by one pread(2), a few times.
    Whole,
    /// Each thread its part by one pread(2), all at the same time, a few times.
    Threads,
    /// All parts in flight together.
    Queue(Engine),
    /// All of the file by one pread(2) into memory that was never touched.
    Untouched,
}

impl Way {
    const ALL: [Self; 5] = [
        Self::Whole,
        Self::Threads,
        Self::Queue(Engine::Libaio),
        Self::Queue(Engine::Uring),
        Self::Untouched,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Self::Whole => "whole",
            Self::Threads => "threads",
            Self::Queue(engine) => engine.name(),
            Self::Untouched => "untouched",
        }
    }

    /// How many reads the process makes.
    pub fn reads(self) -> u64 {
        let reads = match self {
            Self::Whole => ROUNDS,
            Self::Threads => ROUNDS * (SIZE / LEN),
            Self::Queue(_) => SIZE / LONG,
            Self::Untouched => 1,
        };
        reads as u64
    }
}

const ROUNDS: usize = 3;

/// Fills a file for [`run`].
pub fn fill(path: &Path) -> Result<()> {
    let file = File::create_new(path)?;
    let mut bytes = vec![0; 1 << 20];
    for at in (0..SIZE).step_by(bytes.len()) {
        for (nr, block) in bytes.chunks_mut(BLOCK).enumerate() {
            version(at / BLOCK + nr).fill(block);
        }
        file.write_all_at(&bytes, at as u64)?;
    }
    file.sync_all()?;
    sys::drop_pages(&file)?;
    Ok(())
}

fn version(block: usize) -> Version {
    Version {
        file: FILE,
        block: block as u64,
        version: VERSION,
    }
}

/// Reads a file that [`fill`] has filled as a process of the cgroup in `group`.
/// Returns how the process ended, and what it said.
pub fn read(group: &Path, way: Way, path: &Path) -> Result<(ExitStatus, String)> {
    let output = Command::new("/proc/self/exe")
        .args(["limited", way.name()])
        .args([group, path])
        .stderr(Stdio::piped())
        .output()
        .context("limited")?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    Ok((output.status, said))
}

/// The process.
pub fn run(arguments: &[String]) -> Result<()> {
    let [way, group, path] = arguments else {
        bail!("limited needs a way, a cgroup and a file");
    };
    std::fs::write(Path::new(group).join("cgroup.procs"), "0").context("to join the cgroup")?;
    let direct = model::open_direct(Path::new(path))?;
    let way = Way::ALL.into_iter().find(|known| known.name() == way);
    match way.context("no such way")? {
        Way::Whole => whole(&direct),
        Way::Threads => threads(&direct),
        Way::Queue(engine) => queue(&direct, engine),
        Way::Untouched => pread(&direct, &Region::untouched(SIZE)?, 0),
    }
}

/// Reads all of a region by one call.
fn pread(direct: &File, region: &Region, offset: usize) -> Result<()> {
    let len = region.bytes().len();
    let count = sys::pread(direct.as_raw_fd(), &region.iovec(0..len), offset as i64)?;
    ensure!(count == len, "offset={offset}: {count} of {len}");
    Ok(())
}

/// Checks what has been read from `offset` on.
fn check(bytes: &[u8], offset: usize) -> Result<()> {
    for (nr, block) in bytes.chunks(BLOCK).enumerate() {
        let nr = offset / BLOCK + nr;
        let found = identify(block, FILE, nr as u64);
        ensure!(found == Found::Whole(VERSION), "block {nr}: {found:?}");
    }
    Ok(())
}

fn whole(direct: &File) -> Result<()> {
    let mut region = Region::new(SIZE)?;
    for _ in 0..ROUNDS {
        pread(direct, &region, 0)?;
        check(region.bytes(), 0)?;
        region.bytes_mut().fill(0xa5);
    }
    Ok(())
}

fn threads(direct: &File) -> Result<()> {
    let count = SIZE / LEN;
    let mut regions = Vec::new();
    for _ in 0..count {
        regions.push(Region::new(LEN)?);
    }
    for _ in 0..ROUNDS {
        let start = Barrier::new(count);
        std::thread::scope(|scope| {
            let mut threads = Vec::new();
            for (nr, region) in regions.iter_mut().enumerate() {
                let start = &start;
                threads.push(scope.spawn(move || {
                    start.wait();
                    pread(direct, region, nr * LEN)?;
                    check(region.bytes(), nr * LEN)?;
                    region.bytes_mut().fill(0xa5);
                    anyhow::Ok(())
                }));
            }
            for thread in threads {
                thread.join().expect("a thread that does not panic")?;
            }
            anyhow::Ok(())
        })?;
    }
    Ok(())
}

fn queue(direct: &File, engine: Engine) -> Result<()> {
    let region = Region::new(SIZE)?;
    let mut queue = Queue::new(engine, 16)?;
    let parts = (0..SIZE).step_by(LONG);
    let iovs: Vec<_> = parts.map(|at| [region.iovec(at..at + LONG)]).collect();
    let starts: Vec<_> = iovs
        .iter()
        .enumerate()
        .map(|(nr, iov)| aio::Start {
            offset: (nr * LONG) as u64,
            iov,
            tag: nr as u64,
        })
        .collect();
    let started = queue.start(direct, &starts)?;
    ensure!(started == starts.len(), "{started} started");
    let mut ended = 0;
    while ended < starts.len() {
        for done in queue.finish(1)? {
            let nr = done.tag as usize;
            let count = done.result.with_context(|| format!("read {nr}"))?;
            ensure!(count == LONG, "read {nr}: {count}");
            ended += 1;
        }
    }
    check(region.bytes(), 0)
}
