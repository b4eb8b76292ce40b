// SPDX-License-Identifier: GPL-2.0

//! Reads that must not wait: they deliver everything, or say EAGAIN, and never
//! stop short of the end of the file. Where nothing is missing but the data
//! itself, io_uring needs no worker.

use super::Case;
use crate::aio::{Engine, Queue, Start};
use crate::buffer::{BLOCK, Region, first_difference};
use crate::env::Env;
use crate::fs::{Csum, Fs, Spec};
use crate::kinds;
use crate::model::{self, Model};
use crate::read::{Request, Via};
use crate::stats::Stats;
use crate::subject::{self, Subject};
use crate::sys;
use crate::tracing::Events;
use anyhow::{Context, Result, ensure};
use rand::RngExt;

const B: u64 = BLOCK as u64;
pub const NOWAIT: Via = Via::Preadv2(libc::RWF_NOWAIT);

pub fn cases(_: &Env) -> Vec<Case> {
    vec![
        Case::new("hot", |env| hot(env, &Spec::new("raid1", Csum::Crc32c))),
        Case::new("hot-nodatasum", |env| {
            hot(env, &Spec::new("single", Csum::NoDataSum))
        }),
        Case::new("hot-compressed", hot_compressed),
        Case::new("cold", cold),
        Case::new("dirty", dirty),
        Case::new("io_uring", uring),
    ]
}

/// Reads without waiting. Whether that was possible.
pub fn attempt(subject: &Subject<'_>, request: Request) -> Result<bool> {
    let request = request.via(NOWAIT);
    let (outcome, moved) = subject.observe(&request)?;
    let want = subject.wanted(&request);
    let said = |why: &str| match &moved {
        Some(moved) => format!("{why}; counters: {moved}"),
        None => why.to_owned(),
    };
    match &outcome.result {
        Err(e) if e.raw_os_error() == Some(libc::EAGAIN) => {
            let waits = Stats::of(&[("would_wait", 1)]);
            let good = moved.as_ref().is_none_or(|moved| {
                moved.get("would_wait") == 1
                    && moved.get("reads") + moved.get("declined") == 0
                    && moved.get("queued") == 0
            });
            let verdict = if good {
                Ok(())
            } else {
                Err(said(&format!("wanted {waits}")))
            };
            subject.judge(&request, verdict)?;
            Ok(false)
        }
        // The unmodified path may stop anywhere.
        Ok(count) if moved.is_none() && *count < want.len() => {
            let verdict = outcome.verify(&request, &want[..*count], false);
            subject.judge(&request, verdict)?;
            Ok(false)
        }
        _ => {
            let verdict = outcome.verify(&request, want, moved.is_some());
            subject.judge(&request, verdict)?;
            if let Some(moved) = moved.filter(|_| !want.is_empty()) {
                let kinds = subject.kinds(&request);
                let verdict = subject::served(&moved, want.len(), 1, kinds.as_deref())
                    .and_then(|()| subject::as_asked(&moved, &request, kinds.as_deref()));
                subject.judge(&request, verdict)?;
            }
            Ok(true)
        }
    }
}

/// With everything but the data in memory, ranges of any length and of any
/// number of extents are read at once.
fn hot(env: &Env, spec: &Spec) -> Result<()> {
    let mut fs = Fs::make(env, spec)?;
    let files = kinds::all(env, &fs)?;
    fs.remount()?;
    let mut rng = env.rng(100);
    let (mut all, mut ready) = (0, 0);
    for model in &files {
        let subject = Subject::open(env, model)?;
        let whole = model.size().next_multiple_of(B) as usize;
        // Brings in extent maps and checksums.
        subject.read(&Request::pread(0, whole))?;
        let mut requests = vec![Request::pread(0, whole), Request::pread(0, whole + 8192)];
        for _ in 0..env.scaled(5) {
            requests.push(Request::random(&mut rng, model.size()));
            requests.push(Request::random(&mut rng, model.size()).jitter(&mut rng, 512));
        }
        for request in requests {
            all += 1;
            ready += u32::from(attempt(&subject, request)?);
        }
    }
    eprintln!("# {}: {ready} of {all} without waiting", env.case);
    ensure!(
        ready * 10 >= all * 9 || !env.module,
        "{ready} of {all} only"
    );
    Ok(())
}

/// Compressed data, too, or EAGAIN.
fn hot_compressed(env: &Env) -> Result<()> {
    let spec = Spec::new("single", Csum::Crc32c).options("compress-force=zstd");
    let mut fs = Fs::make(env, &spec)?;
    let mut rng = env.rng(0);
    let mut file = Model::create(fs.path("file"))?;
    file.write(0, &model::compressible(&mut rng, 500_000))?;
    file.sync()?;
    file.write_direct(&mut rng, 20 * B, 10 * BLOCK)?;
    fs.remount()?;
    let subject = Subject::open(env, &file)?;
    subject.read(&Request::pread(0, file.data.len().next_multiple_of(BLOCK)))?;
    let mut ready = 0;
    for _ in 0..env.scaled(20) {
        let request = Request::random(&mut rng, file.size());
        ready += u32::from(attempt(&subject, request)?);
    }
    eprintln!("# {}: {ready} without waiting", env.case);
    Ok(())
}

/// With nothing in memory.
fn cold(env: &Env) -> Result<()> {
    let mut fs = Fs::make(env, &Spec::new("raid1", Csum::Crc32c))?;
    let files = kinds::all(env, &fs)?;
    let mut rng = env.rng(100);
    let (mut all, mut ready) = (0, 0);
    for round in 0..env.scaled(3) {
        match round % 2 {
            0 => fs.remount()?,
            _ => sys::drop_caches()?,
        }
        for model in &files {
            // Its extents are not asked for: that would bring in metadata.
            let subject = Subject::unwritten(env, model)?;
            let whole = model.size().next_multiple_of(B) as usize;
            all += 2;
            ready += u32::from(attempt(&subject, Request::random(&mut rng, model.size()))?);
            ready += u32::from(attempt(&subject, Request::pread(0, whole))?);
        }
    }
    eprintln!("# {}: {ready} of {all} without waiting", env.case);
    Ok(())
}

/// Pages that are not written out yet: they would have to be, first.
fn dirty(env: &Env) -> Result<()> {
    let mut fs = Fs::make(env, &Spec::new("single", Csum::Crc32c))?;
    let mut rng = env.rng(0);
    let mut file = Model::create(fs.path("file"))?;
    file.write_random(&mut rng, 0, 1 << 20)?;
    file.sync()?;
    fs.remount()?;
    for _ in 0..env.scaled(8) {
        let first = rng.random_range(10..200);
        let blocks = rng.random_range(1..40);
        // Somewhere in the range: at its beginning, its end, or between.
        let at = (first + rng.random_range(0..blocks)) * B;
        file.write_random(&mut rng, at, 100)?;
        let subject = Subject::unwritten(env, &file)?;
        let request = Request::pread(first * B, blocks as usize * BLOCK);
        let ready = attempt(&subject, request.clone())?;
        ensure!(
            !ready || !env.module,
            "{}: read dirty pages",
            subject.at(&request)
        );
        // Elsewhere nothing is in the way.
        attempt(&subject, Request::pread(0, 4 * BLOCK))?;
        drop(subject);
        file.sync()?;
        sys::drop_pages(&file.file()?)?;
        let subject = Subject::open(env, &file)?;
        subject.read(&request)?;
        let ready = attempt(&subject, request.clone())?;
        ensure!(
            ready || !env.module,
            "{}: clean, but EAGAIN",
            subject.at(&request)
        );
    }
    file.cross_check()
}

/// Threads that io_uring made for this process to wait in.
fn workers() -> Result<usize> {
    let mut count = 0;
    for task in std::fs::read_dir("/proc/self/task")? {
        // Threads may end while we look.
        let name = std::fs::read_to_string(task?.path().join("comm")).unwrap_or_default();
        count += usize::from(name.starts_with("iou-wrk-"));
    }
    Ok(count)
}

/// Random reads of 64 KiB by io_uring, with checksums and extent maps at hand:
/// no worker has to wait for any of them.
fn uring(env: &Env) -> Result<()> {
    const LEN: usize = 64 << 10;
    const DEPTH: usize = 8;
    let mut fs = Fs::make(env, &Spec::new("raid1", Csum::Crc32c))?;
    let mut rng = env.rng(0);
    let mut file = Model::create(fs.path("file"))?;
    for at in 0..8 {
        // By extents of all sizes.
        file.write_direct(&mut rng, at << 20, 1 << 19)?;
        file.write_random(&mut rng, (at << 20) + (1 << 19), 1 << 19)?;
    }
    file.sync()?;
    fs.remount()?;
    let subject = Subject::open(env, &file)?;
    subject.read(&Request::pread(0, file.data.len()))?;
    let regions: Vec<_> = (0..DEPTH)
        .map(|_| Region::new(LEN))
        .collect::<Result<_, _>>()?;
    let mut queue = Queue::new(Engine::Uring, DEPTH as u32)?;
    let before = Stats::look(env)?;
    let idle = workers()?;
    let events = Events::of("io_uring/io_uring_queue_async_work")?;
    for _ in 0..env.scaled(40) {
        let offsets: Vec<u64> = (0..DEPTH)
            .map(|_| rng.random_range(0..=(file.size() - LEN as u64) / B) * B)
            .collect();
        let iovs: Vec<_> = regions.iter().map(|r| [r.iovec(0..LEN)]).collect();
        let starts: Vec<_> = (0..DEPTH)
            .map(|i| Start {
                offset: offsets[i],
                iov: &iovs[i],
                tag: i as u64,
            })
            .collect();
        queue.start(&subject.direct, &starts)?;
        for done in queue.finish(DEPTH)? {
            let i = done.tag as usize;
            let at = format!("offset={} length={LEN}", offsets[i]);
            let count = done.result.with_context(|| at.clone())?;
            ensure!(count == LEN, "{at}: {count}");
            let want = &file.data[offsets[i] as usize..][..LEN];
            let differs = first_difference(regions[i].bytes(), want);
            ensure!(differs.is_none(), "{at}: differs at {differs:?}");
        }
    }
    let trace = events.end()?;
    let mark = " io_uring_queue_async_work:";
    let punted = trace.lines().filter(|l| l.contains(mark)).count();
    let more = workers()?.saturating_sub(idle);
    let moved = Stats::all_at_once(before.as_ref())?;
    eprintln!("# {}: {punted} punted, {more} workers, {moved}", env.case);
    if env.module {
        ensure!(
            punted == 0 && more == 0,
            "{punted} punted, {more} workers: {moved}"
        );
        ensure!(moved.get("would_wait") == 0, "would have waited: {moved}");
    }
    Ok(())
}
