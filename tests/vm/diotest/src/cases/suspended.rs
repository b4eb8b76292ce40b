// SPDX-License-Identifier: GPL-2.0

//! A device that answers nothing for longer than the watchdog of hung tasks waits:
//! neither readers nor the task that unloads the module are taken for hung, and once
//! the device answers, all of them get on.

use super::Case;
use crate::aio::{Engine, Queue, Start};
use crate::buffer::{BLOCK, Region};
use crate::chunks::Place;
use crate::device::Mapped;
use crate::env::Env;
use crate::fs::{self, Csum, Fs, Spec};
use crate::hung::Watchdog;
use crate::mirrors::{Placed, as_reader_of};
use crate::model::{self, Model};
use crate::module::{self, Policy};
use crate::read::Request;
use crate::stats::Stats;
use crate::subject::Subject;
use crate::sys;
use anyhow::{Context, Result, anyhow, ensure};
use std::fs::File;
use std::time::{Duration, Instant};

const B: u64 = BLOCK as u64;
/// Bytes of the file.
const SIZE: usize = 1 << 20;
/// Reads in flight.
const DEPTH: usize = 4;

pub fn cases(_: &Env) -> Vec<Case> {
    vec![
        Case::new("readers", readers),
        Case::new("in_flight", in_flight),
    ]
}

/// Two legs: of one nothing is read, to the other nothing is written, and its first
/// block is bad.
struct Legs {
    // In this order: unmounted before the devices go.
    fs: Fs,
    reads: Mapped,
    writes: Mapped,
    file: Model,
    /// Which copy is on each of them.
    copies: [u32; 2],
    _policy: Policy,
    watchdog: Watchdog,
}

impl Legs {
    fn make(env: &Env) -> Result<Self> {
        module::able(env)?;
        let disks = env.take(2)?;
        let reads = Mapped::new("diotest", &disks[0])?;
        let writes = Mapped::new("diotest2", &disks[1])?;
        // Nothing else is to be written for a while.
        let spec = Spec::new("raid1", Csum::Crc32c).options("commit=300");
        let devices = vec![reads.path(), writes.path()];
        let mut fs = Fs::make_on(env, &spec, devices)?;
        let mut file = Model::create(fs.path("file"))?;
        file.write_random(&mut env.rng(0), 0, SIZE)?;
        file.sync()?;
        let placed = Placed::find(&fs, &file)?;
        let copy = |device: u64| -> Result<u32> {
            let on = |block: &Vec<Place>| {
                let nr = block.iter().position(|place| place.device == device);
                nr.map(|nr| nr as u32)
            };
            let first = placed.blocks.first().and_then(on).context("a copy")?;
            let same = placed.blocks.iter().all(|block| on(block) == Some(first));
            ensure!(same, "the copies change places");
            Ok(first)
        };
        let copies = [copy(1)?, copy(2)?];
        placed.spoil(&mut fs, &file, 0..1, copies[1] as usize)?;
        let mnt = fs::path(&fs.mnt).to_owned();
        fs::run("mount", ["-o", "remount,noatime", &mnt])?;
        // Brings in extent maps and checksums.
        for copy in copies {
            let subject = Subject::open(env, &file)?;
            as_reader_of(2, copy, || subject.read(&Request::pread(B, SIZE - BLOCK)))?;
        }
        writes.delay_writes_behind(1 << 20, 600_000)?;
        let policy = Policy::fs(env)?;
        Ok(Self {
            fs,
            reads,
            writes,
            file,
            copies,
            _policy: policy,
            watchdog: Watchdog::new()?,
        })
    }

    /// Waits until the bad block is being written anew, and then has reads wait as well.
    fn stop(&self) -> Result<()> {
        let stopped = wait("a repair", || Ok(self.writes.delayed_writes()? > 0))
            .and_then(|()| self.reads.suspend());
        if stopped.is_err() {
            let _ = self.go();
        }
        stopped
    }

    /// Lets everything through again.
    fn go(&self) -> Result<()> {
        self.reads.resume()?;
        self.writes.heal()
    }

    /// Checks that all is as it was.
    fn end(mut self, env: &Env) -> Result<()> {
        module::load(env)?;
        self.fs.remount()?;
        for copy in self.copies {
            let subject = Subject::open(env, &self.file)?;
            as_reader_of(2, copy, || subject.read(&Request::pread(0, SIZE)))?;
        }
        self.fs.umount()
    }
}

/// Waits until something is so.
fn wait(what: &str, is: impl Fn() -> Result<bool>) -> Result<()> {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !is()? {
        ensure!(Instant::now() < deadline, "{what}: not within a minute");
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

/// Whether a task of ours waits for something: without being idle, or so.
fn waits(task: u32) -> Result<bool> {
    let path = format!("/proc/self/task/{task}/status");
    let status = std::fs::read_to_string(path)?;
    Ok(status.contains("State:\tD") || status.contains("State:\tI"))
}

/// Unloads the module meanwhile, and waits for the watchdog; nobody may be through by then.
fn watch(legs: &Legs, going: impl Fn() -> bool) -> Result<()> {
    std::thread::scope(|scope| {
        let (sender, receiver) = std::sync::mpsc::channel();
        let unloading = scope.spawn(move || {
            let _ = sender.send(sys::gettid());
            module::unload()
        });
        let task = receiver.recv()?;
        let held = wait("rmmod", || waits(task)).and_then(|()| legs.watchdog.nobody());
        let through = unloading.is_finished() || !going();
        legs.go()?;
        let unloaded = unloading.join().map_err(|_| anyhow!("rmmod panicked"))?;
        held?;
        unloaded?;
        ensure!(!through, "somebody did not wait for the device");
        Ok(())
    })
}

/// Tasks that wait for their reads: one for the other leg, and one whose repair is stuck.
fn readers(env: &Env) -> Result<()> {
    let legs = Legs::make(env)?;
    let subject = Subject::open(env, &legs.file)?;
    let before = Stats::read()?;
    std::thread::scope(|scope| {
        let read = |copy: usize, request: Request, tell: std::sync::mpsc::Sender<u32>| {
            let (legs, subject) = (&legs, &subject);
            move || {
                as_reader_of(2, legs.copies[copy], || {
                    let _ = tell.send(sys::gettid());
                    let outcome = request.perform(&subject.direct)?;
                    let want = subject.wanted(&request);
                    subject.judge(&request, outcome.verify(&request, want, true))
                })
            }
        };
        let (sender, receiver) = std::sync::mpsc::channel();
        let repairs = scope.spawn(read(1, Request::pread(0, BLOCK), sender.clone()));
        let repairing = receiver.recv()?;
        legs.stop()?;
        let reads = scope.spawn(read(0, Request::pread(8 * B, 8 * BLOCK), sender));
        let reading = receiver.recv()?;
        let started = wait("readers", || Ok(waits(repairing)? && waits(reading)?));
        let moved = Stats::read()?.since(&before);
        let going = || !repairs.is_finished() && !reads.is_finished();
        let held = started.and_then(|()| watch(&legs, going));
        if held.is_err() {
            let _ = legs.go();
        }
        for reader in [repairs, reads] {
            reader.join().map_err(|_| anyhow!("a reader panicked"))??;
        }
        held?;
        // Both are ours: what btrfs serves waits elsewhere.
        ensure!(moved.get("declined") == 0, "declined: {moved}");
        Ok(())
    })?;
    drop(subject);
    legs.end(env)
}

/// Reads that nobody waits for: many on the other leg, and one whose repair is stuck. Nobody
/// but them is left when the module is unloaded.
fn in_flight(env: &Env) -> Result<()> {
    let legs = Legs::make(env)?;
    let direct = model::open_direct(&legs.file.path)?;
    let before = Stats::read()?;
    let mut bad = Batch::new(Engine::Libaio, 0, 1)?;
    as_reader_of(2, legs.copies[1], || bad.start(&direct))?;
    legs.stop()?;
    as_reader_of(2, legs.copies[0], || {
        let mut aio = Batch::new(Engine::Libaio, 1, DEPTH)?;
        let mut ring = Batch::new(Engine::Uring, 1 + DEPTH, DEPTH)?;
        let started = aio
            .start(&direct)
            .and_then(|()| ring.start(&direct))
            .and_then(|()| Ok(Stats::read()?.since(&before)));
        let held = watch(&legs, || true);
        if held.is_err() {
            let _ = legs.go();
        }
        for batch in [&mut bad, &mut aio, &mut ring] {
            batch.finish(&legs.file)?;
        }
        held?;
        // Of those of the ring some may be in the hands of its workers.
        let moved = started?;
        let good = moved.get("declined") == 0 && moved.get("queued") > DEPTH as u64;
        ensure!(good, "not in flight: {moved}");
        Ok(())
    })?;
    drop(direct);
    legs.end(env)
}

/// Reads of a block each, in flight.
struct Batch {
    // In this order: the kernel is done before the memory goes.
    queue: Queue,
    memory: Region,
    first: usize,
    count: usize,
}

impl Batch {
    /// Of so many blocks from the first one on.
    fn new(engine: Engine, first: usize, count: usize) -> Result<Self> {
        Ok(Self {
            queue: Queue::new(engine, count as u32)?,
            memory: Region::new(count * BLOCK)?,
            first,
            count,
        })
    }

    fn start(&mut self, file: &File) -> Result<()> {
        for nr in 0..self.count {
            let start = Start {
                offset: (self.first + nr) as u64 * B,
                iov: &[self.memory.iovec(nr * BLOCK..(nr + 1) * BLOCK)],
                tag: nr as u64,
            };
            let started = self.queue.start(file, &[start])?;
            ensure!(started == 1, "block {nr} not started");
        }
        Ok(())
    }

    /// Waits for all of them, and compares.
    fn finish(&mut self, file: &Model) -> Result<()> {
        let mut left = self.count;
        while left > 0 {
            for done in self.queue.finish(1)? {
                let nr = done.tag as usize;
                let block = self.first + nr;
                let count = done.result.with_context(|| format!("block {block}"))?;
                let want = &file.data[block * BLOCK..][..BLOCK];
                let right = self.memory.part(nr * BLOCK..(nr + 1) * BLOCK) == want;
                ensure!(count == BLOCK && right, "block {block}: {count} bytes");
                left -= 1;
            }
        }
        Ok(())
    }
}
