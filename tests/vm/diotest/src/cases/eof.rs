// SPDX-License-Identifier: GPL-2.0

//! The end of a file: reads before it, across it, at it and past it return
//! exactly what pread(2) promises, of inline files and of others, also after
//! the size was changed, and the file position moves by exactly that.

use super::Case;
use super::nowait::NOWAIT;
use crate::aio::Engine;
use crate::buffer::{BLOCK, Region};
use crate::env::Env;
use crate::fiemap::{self, Kind};
use crate::fs::{Csum, Fs, Spec};
use crate::model::{self, Model};
use crate::race::open_direct_rw;
use crate::read::{Request, Via};
use crate::stats::Stats;
use crate::subject::Subject;
use anyhow::{Context, Result, anyhow, ensure};
use rand::RngExt;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::Instant;

const B: u64 = BLOCK as u64;

/// Sizes of a file that grows at once, and how many bytes of it are asked for.
const SMALL: u64 = 100;
const LARGE: u64 = 1 << 20;
const ASKED: usize = 2 * BLOCK;

pub fn cases(_: &Env) -> Vec<Case> {
    let mut cases = vec![
        Case::new("sizes", sizes),
        Case::new("position", position),
        Case::new("resized_inline", resized_inline),
        Case::new("resized", resized),
        Case::new("far", far),
        Case::new("beyond", beyond),
        Case::new("unwritten", unwritten),
        Case::new("growing", growing),
    ];
    for (name, via) in [
        ("pread", Via::Pread),
        ("nowait", NOWAIT),
        ("libaio", Via::Async(Engine::Libaio)),
        ("io_uring", Via::Async(Engine::Uring)),
        ("io_uring_async", Via::Async(Engine::UringAsync)),
    ] {
        let name = format!("grows-{name}");
        cases.push(Case::new(name, move |env| grows(env, via)));
    }
    cases
}

fn make(env: &Env) -> Result<Fs> {
    Fs::make(env, &Spec::new("single", Csum::Crc32c))
}

/// Reads around every interesting offset of a file, by every call.
fn around(env: &Env, model: &Model) -> Result<()> {
    let subject = Subject::open(env, model)?;
    let end = model.size().next_multiple_of(B);
    let mut offsets = vec![0, B];
    for blocks in 0..3 {
        offsets.extend([end.saturating_sub(blocks * B), end + blocks * B]);
    }
    offsets.sort_unstable();
    offsets.dedup();
    for (i, &offset) in offsets.iter().enumerate() {
        for len in [BLOCK, 4 * BLOCK] {
            let via = [Via::Pread, Via::Read, Via::Preadv2(0)][i % 3];
            subject.read(&Request::pread(offset, len).via(via))?;
        }
        let lens = vec![BLOCK, 2 * BLOCK, BLOCK];
        subject.read(&Request::preadv(offset, lens))?;
    }
    Ok(())
}

/// Files of every size around the limits.
fn sizes(env: &Env) -> Result<()> {
    let mut fs = make(env)?;
    let mut rng = env.rng(0);
    let mut files = Vec::new();
    let small = [0, 1, 511, 512, 513, 2047, 2048, 2049, 4095, 4096, 4097];
    let large = [8191, 65535, 65536, 65537, 131_072, 300_001];
    for size in small.into_iter().chain(large) {
        let mut file = Model::create(fs.path(format!("size{size}")))?;
        file.write_random(&mut rng, 0, size)?;
        file.sync()?;
        files.push(file);
    }
    fs.remount()?;
    for file in &files {
        around(env, file)?;
        file.cross_check()?;
    }
    Ok(())
}

/// read(2) to the end and past it, without ever setting the position.
fn position(env: &Env) -> Result<()> {
    let mut fs = make(env)?;
    let mut rng = env.rng(0);
    for size in [1, 2000, 4096, 50_000, 65_536] {
        let mut file = Model::create(fs.path(format!("size{size}")))?;
        file.write_random(&mut rng, 0, size)?;
        file.sync()?;
        fs.remount()?;
        let subject = Subject::open(env, &file)?;
        let mut at = 0;
        loop {
            let request = Request::pread(at, 4 * BLOCK).via(Via::Read);
            subject.read(&request)?;
            let count = subject.wanted(&request).len() as u64;
            at += count;
            if count < 4 * B {
                break;
            }
        }
        ensure!(at == file.size(), "{} of {}", at, file.size());
        subject.read(&Request::pread(at.next_multiple_of(B), BLOCK).via(Via::Read))?;
    }
    Ok(())
}

/// Inline files cut and grown: what is past the old end reads as zeros, never
/// as what was there before.
fn resized_inline(env: &Env) -> Result<()> {
    let mut fs = make(env)?;
    let mut files = Vec::new();
    let steps: [&[u64]; 6] = [
        &[100],
        &[100, 1500],
        &[100, 4096],
        &[1, 10_000],
        &[0, 2000],
        &[1999, 2001],
    ];
    for (i, steps) in steps.iter().enumerate() {
        for synced in [false, true] {
            let mut file = Model::create(fs.path(format!("steps{i}-{synced}")))?;
            file.write(0, &[0xff; 2000])?;
            file.sync()?;
            for &size in *steps {
                file.truncate(size)?;
                if synced {
                    file.sync()?;
                }
            }
            file.sync()?;
            files.push(file);
        }
    }
    // Grown by preallocation: the extent stays as short as it was.
    for (size, to) in [(100, 1500), (100, 4096), (700, 9000)] {
        let mut file = Model::create(fs.path(format!("preallocated{size}-{to}")))?;
        file.write(0, &vec![0xff; size])?;
        file.sync()?;
        file.preallocate(0, to)?;
        file.sync()?;
        let extents = fiemap::extents(&file.file()?)?;
        let inline = extents.first().is_some_and(|e| e.kind == Kind::Inline);
        ensure!(inline, "{}: {extents:?}", file.name());
        files.push(file);
    }
    for file in &files {
        crate::sys::drop_pages(&file.file()?)?;
        around(env, file)?;
    }
    fs.remount()?;
    for file in &files {
        around(env, file).context("after remount")?;
        file.cross_check()?;
    }
    Ok(())
}

/// Larger files cut and grown.
fn resized(env: &Env) -> Result<()> {
    let mut fs = make(env)?;
    let mut rng = env.rng(0);
    let mut file = Model::create(fs.path("resized"))?;
    file.write_random(&mut rng, 0, 300_000)?;
    file.sync()?;
    for round in 0..env.scaled(20) {
        let size = rng.random_range(0..400_000);
        file.truncate(size)?;
        match round % 2 {
            0 => file.sync()?,
            _ => fs.remount()?,
        }
        let subject = Subject::open(env, &file)?;
        crate::sys::drop_pages(&subject.direct)?;
        let end = size.next_multiple_of(B);
        for back in [1, 2, 5] {
            let offset = end.saturating_sub(back * B);
            subject.read(&Request::pread(offset, 8 * BLOCK))?;
        }
        crate::sys::drop_pages(&subject.direct)?;
        if round % 4 == 0 {
            let at = rng.random_range(0..size.max(1));
            file.write_random(&mut rng, at, 10_000)?;
        }
    }
    file.cross_check()
}

/// Offsets as large as they get.
fn far(env: &Env) -> Result<()> {
    let fs = make(env)?;
    let mut rng = env.rng(0);
    let mut file = Model::create(fs.path("far"))?;
    file.write_random(&mut rng, 0, 10_000)?;
    file.sync()?;
    crate::sys::drop_pages(&file.file()?)?;
    let subject = Subject::open(env, &file)?;
    let last = i64::MAX as u64 / B * B;
    for offset in [1 << 40, 1 << 62, last - 4 * B, last - B] {
        subject.read(&Request::pread(offset, BLOCK))?;
        subject
            .read(&Request::pread(offset, BLOCK).via(Via::Read))
            .or_else(|error| {
                // Positions past what the file system can hold cannot be set.
                match error.downcast_ref::<std::io::Error>() {
                    Some(e) if e.raw_os_error() == Some(libc::EINVAL) => Ok(()),
                    _ => Err(error),
                }
            })?;
    }
    let request = Request::pread(last, BLOCK);
    let (outcome, _) = subject.observe(&request)?;
    let errno = outcome.result.err().and_then(|e| e.raw_os_error());
    let at = subject.at(&request);
    ensure!(
        errno == Some(libc::EINVAL),
        "{at}: {errno:?}, wanted EINVAL"
    );
    Ok(())
}

/// Extents past the end: preallocated there, or left from before.
fn beyond(env: &Env) -> Result<()> {
    let mut fs = make(env)?;
    let mut rng = env.rng(0);
    let mut files = Vec::new();
    for size in [100, 4096, 70_000] {
        let mut file = Model::create(fs.path(format!("beyond{size}")))?;
        file.write_random(&mut rng, 0, size)?;
        file.sync()?;
        file.preallocate_beyond(B * 32, 1 << 16)?;
        file.sync()?;
        files.push(file);
    }
    fs.remount()?;
    for file in &files {
        around(env, file)?;
    }
    Ok(())
}

/// What was written or cut a moment ago, with nothing of it on disk yet: the
/// read itself has to see to that.
fn unwritten(env: &Env) -> Result<()> {
    let fs = make(env)?;
    let mut rng = env.rng(0);
    let mut file = Model::create(fs.path("unwritten"))?;
    let mut small = Model::create(fs.path("small"))?;
    for _ in 0..env.scaled(20) {
        let at = rng.random_range(0..300_000);
        let len = rng.random_range(1..60_000);
        match rng.random_range(0..4) {
            0 => file.truncate(at)?,
            1 => file.punch(at, len as u64)?,
            2 => file.preallocate(at, len as u64)?,
            _ => file.write_random(&mut rng, at, len)?,
        }
        let subject = Subject::unwritten(env, &file)?;
        let first = at / B * B;
        subject.read(&Request::pread(first, len.next_multiple_of(BLOCK)))?;
        subject.read(&Request::random(&mut rng, file.size()))?;
        let size = rng.random_range(1..2048);
        small.write_random(&mut rng, 0, size)?;
        Subject::unwritten(env, &small)?.read(&Request::pread(0, BLOCK))?;
    }
    file.sync()?;
    file.cross_check()
}

/// Reads that begin at the end of a file while it moves to and fro, aligned in no way: whatever the
/// size was at the moment that counted, they return zeros of it, and nobody trips over them.
fn growing(env: &Env) -> Result<()> {
    const LARGE: u64 = 20_000;
    let fs = make(env)?;
    let path = fs.path("growing");
    let file = File::create_new(&path)?;
    let direct = model::open_direct(&path)?;
    let until = Instant::now() + env.duration(4);
    let requests = [
        Request::pread(100, BLOCK),
        Request::pread(100, BLOCK).shift(4),
        Request::pread(B, BLOCK).shift(4),
        Request::pread(B, 2 * BLOCK),
        Request::preadv(512, vec![BLOCK, BLOCK]),
    ];
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| -> Result<()> {
            let mut small = requests.iter().map(|r| r.offset).cycle();
            while Instant::now() < until {
                file.set_len(small.next().unwrap_or(0))?;
                file.set_len(LARGE)?;
            }
            Ok(())
        });
        while Instant::now() < until {
            for request in &requests {
                let outcome = request.perform(&direct)?;
                let count = outcome.result.with_context(|| request.to_string())?;
                let bytes = outcome.buffers.gathered(count);
                ensure!(
                    bytes.iter().all(|byte| *byte == 0),
                    "{request}: not the zeros of a hole"
                );
            }
        }
        writer.join().map_err(|_| anyhow!("the writer panicked"))?
    })
}

/// Makes a file large at once, in one way or another, and small again, until told to stop.
fn resize(direct: &File, file: &File, stop: &AtomicBool) -> Result<u64> {
    let mut region = Region::new(LARGE as usize)?;
    region.bytes_mut().fill(1);
    let mut rounds = 0;
    while !stop.load(SeqCst) {
        file.set_len(SMALL)?;
        if rounds % 4 < 2 {
            // Pages that are dirty are waited for, which would hide what comes after that.
            file.sync_data()?;
        }
        match rounds % 3 {
            0 => file.set_len(LARGE)?,
            1 => file.write_all_at(region.bytes(), 0)?,
            _ => direct.write_all_at(region.bytes(), 0)?,
        }
        rounds += 1;
    }
    Ok(rounds)
}

/// A file that grows from less than a block to many blocks at once has either size, and none
/// between, for a reader that asks for two blocks.
fn grows(env: &Env, via: Via) -> Result<()> {
    let fs = make(env)?;
    let path = fs.path("grows");
    let file = File::create_new(&path)?;
    file.write_all_at(&[1; SMALL as usize], 0)?;
    let direct = open_direct_rw(&path)?;
    let reader = model::open_direct(&path)?;
    let request = Request::pread(0, ASKED).via(via);
    // Returns whether it could be read without waiting.
    let read = |request: &Request| -> Result<Option<usize>> {
        let outcome = request.perform(&reader)?;
        let count = match outcome.result {
            Err(e) if request.via == NOWAIT && e.raw_os_error() == Some(libc::EAGAIN) => {
                return Ok(None);
            }
            result => result.with_context(|| request.to_string())?,
        };
        // Of what has come to it, btrfs by itself reads as much as is there through the page
        // cache, where nobody keeps writers away.
        let between = !env.module && count > SMALL as usize && count < ASKED;
        let right = count == SMALL as usize || count == ASKED || between;
        ensure!(right, "{request}: {count} bytes of {SMALL} or {LARGE}");
        let begin = outcome.buffers.gathered(SMALL as usize);
        ensure!(begin.iter().all(|&b| b == 1), "{request}: wrong bytes");
        Ok(Some(count))
    };
    let before = Stats::look(env)?;
    let stop = AtomicBool::new(false);
    let begin = Instant::now();
    let least = env.scaled(300);
    let (mut small, mut large, mut refused) = (0, 0, 0);
    let rounds = std::thread::scope(|scope| {
        let writer = scope.spawn(|| resize(&direct, &file, &stop));
        let mut result = Ok(());
        while result.is_ok() && (begin.elapsed() < env.duration(3) || small + large < least) {
            let count = read(&request).and_then(|count| match count {
                Some(count) => Ok(count),
                None => {
                    refused += 1;
                    read(&request.clone().via(Via::Pread)).map(Option::unwrap_or_default)
                }
            });
            match count {
                Ok(count) if count == SMALL as usize => small += 1,
                Ok(_) => large += 1,
                Err(error) => result = Err(error),
            }
        }
        stop.store(true, SeqCst);
        let rounds = writer
            .join()
            .map_err(|_| anyhow!("the writer panicked"))??;
        result.map(|()| rounds)
    })?;
    let said = format!("{rounds} rounds, {small} small, {large} large, {refused} refused");
    eprintln!("# {}: {said}", env.case);
    ensure!(small > 0 && large > 0, "{said}");
    let (Via::Async(engine), Some(before)) = (via, &before) else {
        return Stats::all_served(before.as_ref()).map(drop);
    };
    // A ring asks for the rest of a short read, which begins within a sector: that is for btrfs.
    let moved = Stats::read()?.since(before);
    let rest = match engine {
        Engine::Libaio => 0,
        _ => moved.get("declined_unaligned"),
    };
    let good = moved.get("reads") > 0 && moved.get("declined") == rest;
    ensure!(good, "not all of it served: {moved}");
    Ok(())
}
