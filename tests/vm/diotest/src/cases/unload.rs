// SPDX-License-Identifier: GPL-2.0

//! The module comes and goes under load: no reader notices, nothing is left.

use super::Case;
use super::chaos::{self, Kind};
use crate::aio::Engine;
use crate::device::Mapped;
use crate::env::Env;
use crate::flood::{Flood, Reads};
use crate::fs::{self, Csum, Fs, Spec};
use crate::model::{self, Model};
use crate::module;
use crate::race::{self, Arena, write_at};
use crate::read::Request;
use crate::stats::{self, Stats};
use crate::subject::Subject;
use anyhow::{Context, Result, bail, ensure};
use std::fs::File;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

pub fn cases(_: &Env) -> Vec<Case> {
    vec![
        Case::new("idle", idle),
        Case::new("open_stats", open_stats),
        Case::new("readers", readers),
        Case::new("readers_and_writer", readers_and_writer),
        Case::new("in_flight", in_flight),
        Case::new("every_way", every_way),
        Case::new("flooded", flooded),
        Case::new("fio", fio),
        Case::new("chaos", |env| {
            module::able(env)?;
            chaos::run(env, Kind::Reload)
        }),
    ]
}

/// Unloads, waits, loads, and waits until something is served again.
fn cycle(env: &Env) -> Result<()> {
    module::unload_in_time()?;
    std::thread::sleep(Duration::from_millis(20));
    module::load(env)?;
    let deadline = Instant::now() + Duration::from_secs(30);
    while Stats::read()?.get("reads") == 0 {
        ensure!(Instant::now() < deadline, "loaded, but nothing is served");
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}

/// Without any reader, many times.
fn idle(env: &Env) -> Result<()> {
    module::able(env)?;
    for _ in 0..env.scaled(20) {
        module::unload()?;
        module::load(env)?;
        let fresh = Stats::read()?;
        ensure!(fresh.get("reads") == 0, "counters survived: {fresh}");
    }
    Ok(())
}

/// With its file open: the code behind the file must not go away before it is closed.
fn open_stats(env: &Env) -> Result<()> {
    module::able(env)?;
    let file = File::open(stats::PATH)?;
    match module::unload() {
        Err(e) if module::is_busy(&e) => {}
        Ok(()) => {
            drop(file);
            module::load(env)?;
            bail!("unloaded, although its file was open");
        }
        Err(e) => return Err(e),
    }
    drop(file);
    module::unload_in_time()?;
    module::load(env)
}

fn arena(env: &Env) -> Result<(Fs, Arena)> {
    module::able(env)?;
    let fs = Fs::make(env, &Spec::new("raid1", Csum::Crc32c))?;
    let arena = Arena::create(fs.path("raced"), 192)?;
    Ok((fs, arena))
}

/// Under readers of a file that does not change.
fn readers(env: &Env) -> Result<()> {
    let (mut fs, arena) = arena(env)?;
    race::run_uncounted(env, &arena, 8, |_, _| cycle(env))?;
    race::settle(&mut fs, &arena)
}

/// Under readers of a file that does.
fn readers_and_writer(env: &Env) -> Result<()> {
    let (mut fs, arena) = arena(env)?;
    let file = arena.file()?;
    race::run_uncounted(env, &arena, 8, |_, rng| {
        for _ in 0..4 {
            let (first, count) = arena.range(rng, 24);
            arena.write(first, count, |bytes| {
                write_at(&file, bytes, first as u64 * 4096)
            })?;
        }
        cycle(env)
    })?;
    drop(file);
    race::settle(&mut fs, &arena)
}

/// Under reads that nobody waits for, on a device that takes its time. It ends
/// after the last of them, or says that it is busy; they do not notice.
fn in_flight(env: &Env) -> Result<()> {
    module::able(env)?;
    let device = Mapped::new("diotest", &env.take(1)?[0])?;
    let spec = Spec::new("single", Csum::Crc32c);
    let mut fs = Fs::make_on(env, &spec, vec![device.path()])?;
    let mut file = Model::create(fs.path("file"))?;
    file.write_random(&mut env.rng(0), 0, 4 << 20)?;
    file.sync()?;
    fs.remount()?;
    let whole = Request::pread(0, 4 << 20);
    Subject::open(env, &file)?.read(&whole)?;
    device.delay(50)?;
    for round in 0..env.scaled(8) {
        let engine = Engine::ALL[round as usize % 4];
        let mut reads = Reads::new(env, engine, model::open_direct(&file.path)?)?;
        let before = Stats::read()?;
        reads.more()?;
        let moved = Stats::read()?.since(&before);
        let busy = module::unload();
        let refused = matches!(&busy, Err(e) if module::is_busy(e));
        if !refused {
            busy?;
        }
        eprintln!("# {}: {engine:?} busy {refused}: {moved}", env.case);
        if round % 2 == 0 {
            reads.all(&file.data)?;
        }
        if refused {
            module::unload_in_time()?;
        }
        reads.all(&file.data)?;
        drop(reads);
        module::load(env)?;
    }
    device.heal()?;
    Subject::open(env, &file)?.read(&whole)
}

/// Under readers that read in every way, and check what they get.
fn every_way(env: &Env) -> Result<()> {
    let (mut fs, mut arena) = arena(env)?;
    arena.every_way = true;
    let file = arena.file()?;
    race::run_uncounted(env, &arena, 8, |_, rng| {
        let (first, count) = arena.range(rng, 24);
        arena.write(first, count, |bytes| {
            write_at(&file, bytes, first as u64 * 4096)
        })?;
        cycle(env)
    })?;
    drop(file);
    race::settle(&mut fs, &arena)
}

/// Under processes with deep queues, which are killed while they are needed.
fn flooded(env: &Env) -> Result<()> {
    let (mut fs, arena) = arena(env)?;
    for round in 0..env.scaled(4) {
        let engines = [Engine::Libaio, Engine::ALL[round as usize % 4]];
        let mut floods = Vec::new();
        for engine in engines {
            floods.push(Flood::start(env, engine, &arena.path)?);
        }
        cycle(env)?;
        cycle(env)?;
        for flood in floods {
            flood.kill()?;
            module::unload_in_time()?;
            module::load(env)?;
        }
    }
    race::settle(&mut fs, &arena)
}

/// Under fio, which verifies what it reads.
fn fio(env: &Env) -> Result<()> {
    module::able(env)?;
    let fs = Fs::make(env, &Spec::new("raid1", Csum::Crc32c))?;
    // To load and to unload takes seconds where the checkers are.
    let runtime = format!("--runtime={}", env.duration(10).as_secs().max(20));
    let filename = format!("--filename={}", fs::path(&fs.path("fio")));
    let job = [
        "--name=job",
        &filename,
        "--size=4m",
        "--bs=8k",
        "--direct=1",
        "--ioengine=psync",
        "--verify=crc32c",
        "--verify_fatal=1",
        "--randseed=1",
        "--output-format=terse",
    ];
    fs::run(
        "fio",
        job.into_iter().chain(["--rw=write", "--do_verify=0"]),
    )?;
    fs.sync()?;
    let mut child = Command::new("fio")
        .args(job)
        .args(["--rw=randread", "--time_based", "--norandommap", &runtime])
        .stdout(Stdio::null())
        .spawn()
        .context("fio")?;
    let mut cycles = 0;
    let outcome = loop {
        if let Some(status) = child.try_wait()? {
            break Ok(status);
        }
        // Something is served again, unless fio is just about to end.
        module::unload_in_time()?;
        std::thread::sleep(Duration::from_millis(20));
        if let Err(error) = module::load(env) {
            break Err(error);
        }
        // An emulated processor may take its time.
        let begin = Instant::now();
        while Stats::read()?.get("reads") == 0 && begin.elapsed() < Duration::from_secs(5) {
            std::thread::sleep(Duration::from_millis(100));
        }
        cycles += u32::from(Stats::read()?.get("reads") > 0);
    };
    if outcome.is_err() {
        let _ = child.kill();
        let _ = child.wait();
    }
    let status = outcome?;
    eprintln!("# {}: {cycles} times served again", env.case);
    ensure!(status.success(), "fio: {status}");
    ensure!(cycles > 1, "fio was not served between unloads");
    Ok(())
}
