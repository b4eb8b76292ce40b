// SPDX-License-Identifier: GPL-2.0

//! Devices that stop for good while there are writers and readers, at any moment,
//! and are mounted again: what was synced is there, what is there is what was
//! written, and nothing that was learned before the cut is believed after it.
//! The transactions after it have the numbers, and may have the places, of those
//! that it undid.

use super::Case;
use crate::device::Mapped;
use crate::env::Env;
use crate::fs::{self, Csum, Fs, Spec};
use crate::model;
use crate::race::{self, Arena};
use crate::stats::Stats;
use crate::sys;
use anyhow::{Context, Result, bail, ensure};
use rand::{RngExt, rngs::SmallRng};
use std::fs::File;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::{Duration, Instant};

const BLOCKS: usize = 128;
const READERS: u64 = 2;
const ROUNDS: u32 = 3;
/// How long all goes well, at most.
const MILLISECONDS: u64 = 1500;
/// How long after the cut writers may still believe that all is well.
const PATIENCE: Duration = Duration::from_secs(60);

pub fn cases(_: &Env) -> Vec<Case> {
    let specs = [
        ("single", "single", Csum::Crc32c, ""),
        ("compressed", "single", Csum::Xxhash, "compress-force=lzo"),
        ("nocow", "single", Csum::NoCow, ""),
        ("raid0", "raid0", Csum::Crc32c, ""),
        ("raid1", "raid1", Csum::Crc32c, ""),
    ];
    let case = |(name, profile, csum, options): (&str, &'static str, Csum, &'static str)| {
        Case::new(name, move |env| {
            let spec = Spec::new(profile, csum).options(options);
            cut_short(env, &spec)
        })
    };
    specs.into_iter().map(case).collect()
}

/// What the threads of a round share.
struct Round<'a> {
    arena: &'a Arena,
    /// Whether to commit, and not to sync the file. Of two devices, of which one
    /// has the newest file that was synced and the other has not, btrfs cannot tell
    /// which is newer; of two transactions it can.
    commit: bool,
    /// What is on the disk for sure.
    synced: Mutex<Vec<u64>>,
    /// From here on everything may fail.
    cut: AtomicBool,
    stop: AtomicBool,
}

impl Round<'_> {
    /// Lets pass what fails after the cut. What is read then may be old, too, if it
    /// need not be read from a device: new data that cannot be written is given up.
    fn failed(&self, error: anyhow::Error) -> Result<()> {
        if self.cut.load(SeqCst) {
            return Ok(());
        }
        Err(error)
    }

    fn read(&self, mut rng: SmallRng) -> Result<u64> {
        let file = model::open_direct(&self.arena.path)?;
        let mut region = Arena::memory()?;
        let mut reads = 0;
        while !self.stop.load(SeqCst) {
            match self.arena.read_some(&file, &mut region, &mut rng) {
                Ok(()) => reads += 1,
                Err(error) => self.failed(error)?,
            }
        }
        Ok(reads)
    }

    /// Writes until that fails, or it is told to stop.
    fn write(&self, mut rng: SmallRng) -> Result<u64> {
        let file = self.arena.file()?;
        let direct = race::open_direct_rw(&self.arena.path)?;
        let mut writes = 0;
        while !self.stop.load(SeqCst) {
            if let Err(error) = self.write_some(&file, &direct, &mut rng) {
                self.failed(error)?;
                break;
            }
            writes += 1;
        }
        Ok(writes)
    }

    fn write_some(&self, file: &File, direct: &File, rng: &mut SmallRng) -> Result<()> {
        let (first, count) = self.arena.range(rng, 16);
        let offset = (first * crate::buffer::BLOCK) as u64;
        match rng.random_range(0..4) {
            0 => self.arena.write(first, count, |bytes| {
                let mut region = crate::buffer::Region::new(bytes.len())?;
                region.bytes_mut().copy_from_slice(bytes);
                race::write_at(direct, region.bytes(), offset)
            })?,
            _ => self
                .arena
                .write(first, count, |bytes| race::write_at(file, bytes, offset))?,
        }
        if rng.random_range(0..8) == 0 {
            let noted = self.arena.noted();
            match self.commit {
                true => sys::sync_fs(file)?,
                false => file.sync_all()?,
            }
            *self.synced.lock().expect("not poisoned") = noted;
        }
        Ok(())
    }
}

fn cut_short(env: &Env, spec: &Spec) -> Result<()> {
    let disks = env.take(spec.profile.devices)?;
    let mapped = disks.iter().enumerate();
    let mapped: Vec<_> = mapped
        .map(|(i, disk)| Mapped::new(&format!("diotest{i}"), disk))
        .collect::<Result<_>>()?;
    let paths = mapped.iter().map(Mapped::path).collect();
    let mut fs = Fs::make_on(env, spec, paths)?;
    let arena = Arena::create(fs.path("file"), BLOCKS)?;
    fs.sync()?;
    for nr in 0..env.scaled(ROUNDS) {
        let synced = round(env, &arena, &mapped, nr)?;
        fs.umount().context("after the cut")?;
        for device in &mapped {
            device.heal()?;
        }
        let device = mapped[0].path();
        // It does not find the others.
        if mapped.len() == 1 {
            fs::run("btrfs", ["check", "--readonly", fs::path(&device)])?;
        }
        fs.mount().context("after the cut")?;
        arena.undone(&synced);
        let before = Stats::look(env)?;
        for _ in 0..2 {
            arena.check_all().context("after the cut")?;
        }
        let direct = read_all(&model::open_direct(&arena.path)?)?;
        ensure!(
            direct == std::fs::read(&arena.path)?,
            "buffered reads differ"
        );
        let moved = Stats::all_served(before.as_ref())?;
        for name in ["csum_mismatches", "buffer_changed", "reread", "io_errors"] {
            ensure!(moved.get(name) == 0, "{name} moved: {moved}");
        }
        fs.btrfs(["scrub", "start", "-B"])?;
        let file = arena.file()?;
        arena.write(0, BLOCKS, |bytes| race::write_at(&file, bytes, 0))?;
        fs.sync()?;
    }
    drop(fs);
    Ok(())
}

/// Reads a file in whole blocks.
fn read_all(file: &File) -> Result<Vec<u8>> {
    use std::os::unix::fs::FileExt;
    let mut region = crate::buffer::Region::new(file.metadata()?.len() as usize)?;
    file.read_exact_at(region.bytes_mut(), 0)?;
    Ok(region.bytes().to_vec())
}

/// Has the devices cut off in the midst of all. What has been synced by then.
fn round(env: &Env, arena: &Arena, mapped: &[Mapped], nr: u32) -> Result<Vec<u64>> {
    let round = Round {
        arena,
        commit: mapped.len() > 1,
        synced: Mutex::new(arena.noted()),
        cut: AtomicBool::new(false),
        stop: AtomicBool::new(false),
    };
    let mut rng = env.rng(300 + u64::from(nr));
    std::thread::scope(|scope| -> Result<()> {
        let (round, salt) = (&round, 400 + 10 * u64::from(nr));
        let writer = scope.spawn(move || round.write(env.rng(salt)));
        let readers: Vec<_> = (1..=READERS)
            .map(|i| scope.spawn(move || round.read(env.rng(salt + i))))
            .collect();
        std::thread::sleep(Duration::from_millis(rng.random_range(1..=MILLISECONDS)));
        round.cut.store(true, SeqCst);
        let cut = Mapped::cut(mapped);
        let begin = Instant::now();
        while cut.is_ok() && !writer.is_finished() && begin.elapsed() < PATIENCE {
            std::thread::sleep(Duration::from_millis(10));
        }
        let late = !writer.is_finished();
        round.stop.store(true, SeqCst);
        let writes = writer.join().expect("a writer that does not panic")?;
        let mut reads = 0;
        for reader in readers {
            reads += reader.join().expect("a reader that does not panic")?;
        }
        eprintln!("# {}: round {nr}, {writes} writes, {reads} reads", env.case);
        if late && cut.is_ok() {
            bail!("who writes and syncs does not notice");
        }
        cut
    })?;
    Ok(round.synced.into_inner().expect("not poisoned"))
}
