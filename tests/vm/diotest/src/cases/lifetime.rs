// SPDX-License-Identifier: GPL-2.0

//! Whoever asked for a read may be gone before it ends: killed, or with its
//! queue closed, on a device that takes its time. Nothing is written to memory
//! of others, nothing stays behind, and the file system lets go.

use super::Case;
use crate::aio::Engine;
use crate::buffer::{POISON, Region};
use crate::device::Mapped;
use crate::env::Env;
use crate::flood::{Flood, Reads};
use crate::fs::{Csum, Fs, Spec};
use crate::model::{self, Model};
use crate::packed;
use crate::read::Request;
use crate::stats::Stats;
use crate::subject::{Expect, Subject};
use crate::sys;
use anyhow::{Context, Result, ensure};
use rand::{RngExt, rngs::SmallRng};
use std::time::Duration;

/// Size of the file.
const SIZE: usize = 4 << 20;
/// How long each read takes, in milliseconds.
const DELAY: u32 = 40;

pub fn cases(_: &Env) -> Vec<Case> {
    let mut cases = Vec::new();
    for engine in Engine::ALL {
        let name = format!("killed-{}", engine.name());
        cases.push(Case::new(name, move |env| {
            let spec = Spec::new("single", Csum::Crc32c);
            with_slow(env, &spec, |slow, rng| killed(env, slow, engine, rng))
        }));
        let name = format!("closed-{}", engine.name());
        cases.push(Case::new(name, move |env| {
            let spec = Spec::new("single", Csum::Crc32c);
            with_slow(env, &spec, |slow, rng| closed(env, slow, engine, rng))
        }));
    }
    cases.push(Case::new("killed-compressed", |env| {
        let spec = packed::spec("single", Csum::Crc32c, "zstd");
        with_slow(env, &spec, |slow, rng| {
            killed(env, slow, Engine::Libaio, rng)?;
            killed(env, slow, Engine::Uring, rng)
        })
    }));
    cases.push(Case::new("umount", |env| {
        let spec = Spec::new("single", Csum::Crc32c);
        with_slow(env, &spec, |slow, rng| umount(env, slow, rng))
    }));
    cases
}

/// A file on a device that is slow for a while.
struct Slow {
    // In this order: unmounted before the device goes.
    fs: Fs,
    device: Mapped,
    file: Model,
}

impl Slow {
    fn make(env: &Env, spec: &Spec) -> Result<Self> {
        let device = Mapped::new("diotest", &env.take(1)?[0])?;
        let mut fs = Fs::make_on(env, spec, vec![device.path()])?;
        let mut rng = env.rng(0);
        let mut file = Model::create(fs.path("file"))?;
        let bytes = match spec.options.is_empty() {
            true => model::random(&mut rng, SIZE),
            false => model::uneven(&mut rng, SIZE),
        };
        file.write(0, &bytes)?;
        file.sync()?;
        fs.remount()?;
        Ok(Self { fs, device, file })
    }

    /// Reads it all, so that only data has to come from the device, and makes
    /// that slow from now on.
    fn begin(&self, env: &Env) -> Result<()> {
        let subject = Subject::open(env, &self.file)?;
        subject.expect(&Request::pread(0, SIZE), Expect::Anyone)?;
        sys::drop_pages(&subject.direct)?;
        self.device.delay(DELAY)
    }

    /// Makes the device quick again, and checks that all is as it was.
    fn end(&mut self, env: &Env) -> Result<()> {
        self.device.heal()?;
        if env.module {
            Stats::settle()?;
        }
        self.fs.remount()?;
        let subject = Subject::open(env, &self.file)?;
        subject.read(&Request::pread(0, SIZE))
    }
}

fn with_slow(
    env: &Env,
    spec: &Spec,
    f: impl FnOnce(&mut Slow, &mut SmallRng) -> Result<()>,
) -> Result<()> {
    let mut slow = Slow::make(env, spec)?;
    let before = Stats::look(env)?;
    slow.begin(env)?;
    f(&mut slow, &mut env.rng(1))?;
    slow.end(env)?;
    let Some(before) = before else { return Ok(()) };
    let moved = Stats::read()?.since(&before);
    eprintln!("# {}: {moved}", env.case);
    // Of reads that a worker had not begun, the memory can be gone.
    let declined = moved.get("declined") - moved.get("declined_fault");
    let good = moved.get("queued") > 0 && declined == 0;
    ensure!(good, "nothing was in flight: {moved}");
    Ok(())
}

fn pause(rng: &mut SmallRng) {
    std::thread::sleep(Duration::from_millis(
        rng.random_range(0..2 * u64::from(DELAY)),
    ));
}

/// SIGKILL to a process with a deep queue.
fn killed(env: &Env, slow: &Slow, engine: Engine, rng: &mut SmallRng) -> Result<()> {
    for _ in 0..env.scaled(4) {
        let flood = Flood::start(env, engine, &slow.file.path)?;
        pause(rng);
        flood.kill()?;
    }
    Ok(())
}

/// The ring, or the context, closed.
fn closed(env: &Env, slow: &Slow, engine: Engine, rng: &mut SmallRng) -> Result<()> {
    for round in 0..env.scaled(6) {
        let direct = model::open_direct(&slow.file.path)?;
        let mut reads = Reads::new(env, engine, direct)?;
        reads.more()?;
        if round % 2 == 0 {
            pause(rng);
        }
        drop(reads);
        // Reads that are handed to workers go on with the address alone: only
        // of those that are not can it be said that they let go of the memory.
        let fresh = Region::new(4 << 20)?;
        std::thread::sleep(Duration::from_millis(u64::from(2 * DELAY)));
        let clean = fresh.bytes().iter().all(|&b| b == POISON);
        ensure!(
            clean || engine != Engine::Libaio,
            "read into memory of others"
        );
    }
    Ok(())
}

/// Attempts to unmount, politely or not, while reads are in flight.
fn umount(env: &Env, slow: &mut Slow, rng: &mut SmallRng) -> Result<()> {
    for round in 0..env.scaled(8) {
        let engine = Engine::ALL[round as usize % Engine::ALL.len()];
        let direct = model::open_direct(&slow.file.path)?;
        let mut reads = Reads::new(env, engine, direct)?;
        reads.more()?;
        let busy = sys::umount(&slow.fs.mnt)
            .err()
            .and_then(|e| e.raw_os_error());
        ensure!(
            busy == Some(libc::EBUSY),
            "umount with an open file: {busy:?}"
        );
        if round % 2 == 0 {
            // Nothing but the reads holds it now.
            reads.close()?;
        }
        let detached = round % 4 >= 2;
        if detached {
            sys::umount_lazily(&slow.fs.mnt);
        } else {
            match sys::umount(&slow.fs.mnt) {
                Err(e) if e.raw_os_error() == Some(libc::EBUSY) => {}
                Err(e) => return Err(e).context("umount"),
                Ok(()) => {
                    ensure!(round % 2 == 0, "unmounted with an open file");
                    slow.fs.mount()?;
                }
            }
        }
        pause(rng);
        reads.all(&slow.file.data)?;
        drop(reads);
        if detached {
            slow.fs.mount()?;
        }
    }
    Ok(())
}
