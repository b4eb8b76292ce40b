// SPDX-License-Identifier: GPL-2.0

//! Devices that fail for good: what `btrfs device stats` says of them is the same
//! with the module and without it; a device that refuses writes does not keep others
//! from being repaired; and a bad sector does not make its neighbours bad.

use super::Case;
use crate::buffer::{BLOCK, Region, first_difference};
use crate::chunks::Place;
use crate::device::{self, Mapped};
use crate::env::Env;
use crate::fs::{self, Csum, Fs, PARITY, Spec};
use crate::mirrors::{Placed, as_reader_of, device_stats};
use crate::model::{self, Model};
use crate::module::{self, Policy};
use crate::stats::Stats;
use crate::sys;
use anyhow::{Context, Result, ensure};
use std::fs::File;
use std::ops::Range;
use std::os::fd::AsRawFd;
use std::path::Path;

/// Reads by which errors are counted: first block, and blocks. Short of a stripe, across
/// the end of one, across the end of a bio of btrfs, and as long as a window.
const READS: [(usize, usize); 4] = [(0, 1), (11, 21), (3, 300), (0, 1024)];
/// Longest read that btrfs has submitted when it finds out that a part of it is lost.
const ONE_BIO: usize = 256;
/// How long it takes to find out in a longer one, in milliseconds.
const LATER: u32 = 1000;
/// How long a device takes to refuse a write that is slow to do so, in milliseconds.
const SLOW: u32 = 6000;
/// Blocks of a stripe.
const STRIPE: usize = 16;

pub fn cases(_: &Env) -> Vec<Case> {
    let mut cases = Vec::new();
    for (profile, bad) in [
        ("single", 1),
        ("dup", 1),
        ("dup", 2),
        ("raid0", 1),
        ("raid1", 1),
        ("raid1c3", 2),
        ("raid1c4", 3),
        ("raid10", 1),
        ("raid5", 1),
        ("raid6", 1),
    ] {
        let name = format!("counts-{profile}-{bad}");
        cases.push(Case::new(name, move |env| counts(env, profile, bad)));
    }
    cases.push(Case::new("refused", |env| refused(env, false)));
    cases.push(Case::new("refused-slowly", |env| refused(env, true)));
    cases.push(Case::new("apart", apart));
    cases
}

/// A file system on devices that can be told to fail.
struct Legs {
    fs: Fs,
    file: Model,
    placed: Placed,
    legs: Vec<Mapped>,
    /// Under each leg, if what fails is to say so later.
    below: Vec<Mapped>,
}

impl Legs {
    fn new(env: &Env, profile: &str, blocks: usize, late: bool) -> Result<Self> {
        let spec = Spec::new(profile, Csum::Crc32c);
        let disks = env.take(spec.profile.devices)?;
        let (mut legs, mut below) = (Vec::new(), Vec::new());
        for (nr, disk) in disks.iter().enumerate() {
            let name = format!("leg{nr}");
            if !late {
                legs.push(Mapped::new(&name, disk)?);
                continue;
            }
            let lower = Mapped::new(&format!("below{nr}"), disk)?;
            legs.push(Mapped::new(&name, &lower.path())?);
            below.push(lower);
        }
        let paths = legs.iter().map(Mapped::path).collect();
        let mut fs = Fs::make_on(env, &spec, paths)?;
        let mut file = Model::create(fs.path("file"))?;
        file.write_random(&mut env.rng(0), 0, blocks * BLOCK)?;
        file.sync()?;
        let placed = Placed::find(&fs, &file)?;
        fs.remount()?;
        Ok(Self {
            fs,
            file,
            placed,
            legs,
            below,
        })
    }

    /// What fails, and says so at once.
    fn failing(&self) -> &[Mapped] {
        match self.below.is_empty() {
            true => &self.legs,
            false => &self.below,
        }
    }

    /// From now on, these places of the file fail: copy number such of block number such.
    /// Returns what fails now.
    fn fail(&self, fails: impl Fn(usize, usize, &Place) -> bool) -> Result<Vec<&Mapped>> {
        let mut failing = Vec::new();
        for device in 1..=self.legs.len() as u64 {
            let mut offsets = Vec::new();
            for (block, copies) in self.placed.blocks.iter().enumerate() {
                let bad = copies
                    .iter()
                    .enumerate()
                    .filter(|(copy, place)| place.device == device && fails(block, *copy, place));
                offsets.extend(bad.map(|(_, place)| place.offset));
            }
            offsets.sort_unstable();
            let mut ranges: Vec<(u64, u64)> = Vec::new();
            for offset in offsets {
                match ranges.last_mut() {
                    Some((start, len)) if *start + *len == offset => *len += BLOCK as u64,
                    _ => ranges.push((offset, BLOCK as u64)),
                }
            }
            if !ranges.is_empty() {
                let leg = &self.failing()[device as usize - 1];
                leg.fail(&ranges)?;
                failing.push(leg);
            }
        }
        Ok(failing)
    }

    /// Reads blocks as a task for which btrfs chooses the first copy.
    fn read(&self, direct: &File, blocks: Range<usize>) -> Result<Result<usize, Option<i32>>> {
        let len = blocks.len() * BLOCK;
        let region = Region::new(len)?;
        let base = region.iovec(0..len).iov_base as usize;
        let fd = direct.as_raw_fd();
        let copies = self.placed.blocks[0].len() as u32;
        let result = as_reader_of(copies, 0, move || {
            let iov = libc::iovec {
                iov_base: base as *mut _,
                iov_len: len,
            };
            Ok(sys::pread(fd, &iov, (blocks.start * BLOCK) as i64))
        })?;
        if result.is_ok() {
            let want = &self.file.data[blocks.start * BLOCK..][..len];
            let differs = first_difference(region.bytes(), want);
            ensure!(differs.is_none(), "{blocks:?}: differs at {differs:?}");
        }
        Ok(result.map_err(|error| error.raw_os_error()))
    }

    /// Has all metadata in memory, and says how to read the file.
    fn open(&self) -> Result<File> {
        let direct = model::open_direct(&self.file.path)?;
        let all = self.file.data.len() / BLOCK;
        ensure!(self.read(&direct, 0..all)?.is_ok(), "cannot be read");
        self.fs.sync()?;
        Ok(direct)
    }
}

/// Copies fail, all of them, or those on one device where data is spread over several.
fn counts(env: &Env, profile: &str, bad: usize) -> Result<()> {
    module::able(env)?;
    let profile_copies = fs::by_name(profile).copies as usize;
    let lost = bad >= profile_copies && !PARITY.iter().any(|parity| parity.name == profile);
    let mut legs = Legs::new(env, profile, READS[3].1, lost)?;
    let spread = ["raid0", "raid10", "raid5", "raid6"].contains(&profile);
    let first = legs.placed.blocks[0][0].device;
    let with = errors(env, &legs, (bad, spread.then_some(first)), lost)?;
    let unloaded = Env {
        module: false,
        ..env.clone()
    };
    let without = module::without(env, || {
        errors(&unloaded, &legs, (bad, spread.then_some(first)), lost)
    })?;
    for (with, without) in with.iter().zip(&without) {
        eprintln!("# {}: {without:?}", env.case);
        let some = with.1.iter().any(|line| line.contains("read_io_errs"));
        ensure!(some && with == without, "{with:?}, mainline {without:?}");
    }
    legs.fs.umount()
}

/// A read and what it came to, and what devices are said to have done.
type Told = (String, Vec<String>);

fn errors(
    env: &Env,
    legs: &Legs,
    (bad, only): (usize, Option<u64>),
    lost: bool,
) -> Result<Vec<Told>> {
    let _policy = Policy::fs(env)?;
    let direct = legs.open()?;
    let failing =
        legs.fail(|_, copy, place| copy < bad && only.is_none_or(|only| place.device == only))?;
    let slow = &legs.legs[only.unwrap_or(1) as usize - 1];
    let mut told = Vec::new();
    for (start, count) in READS {
        // The second mirror of what is lost is read as long as none of it is known to be.
        let short = lost && bad > 1;
        // It takes long to repair so much; once will do.
        let once = lost || legs.fs.spec.profile.name == "raid1";
        if short && count > ONE_BIO || !once && count > 2 * ONE_BIO {
            continue;
        }
        // Nobody goes on to submit what would be lost anyway.
        let late = lost && count > ONE_BIO;
        if late {
            slow.delay(LATER)?;
        }
        legs.fs.btrfs(["device", "stats", "-z"])?;
        let before = Stats::look(env)?;
        let result = legs.read(&direct, start..start + count)?;
        if let Some(before) = before {
            let moved = Stats::all_served(Some(&before))?;
            ensure!(moved.get("io_errors") > 0, "{moved}");
            ensure!((moved.get("lost") > 0) == lost, "{moved}");
        }
        let right = match lost {
            true => result == Err(Some(libc::EIO)),
            false => result == Ok(count * BLOCK),
        };
        ensure!(right, "{start}+{count}: {result:?}");
        told.push((format!("{start}+{count}"), device_stats(&legs.fs)?));
        if late {
            slow.heal()?;
        }
    }
    failing.into_iter().try_for_each(Mapped::heal)?;
    Ok(told)
}

/// A device that refuses to be written to, at once or only after a while: the blocks on
/// it stay bad, those on others are repaired, though they are of the same mirror.
fn refused(env: &Env, slowly: bool) -> Result<()> {
    const BAD: usize = 3;
    let _policy = Policy::fs(env)?;
    let mut legs = Legs::new(env, "raid10", 8 * STRIPE, slowly)?;
    // The stripes whose first mirror is on the first device, and those where it is elsewhere.
    let on = |legs: &Legs, nr: usize| legs.placed.blocks[nr * STRIPE][0].device;
    let refuses = (0..8).find(|&nr| on(&legs, nr) == 1);
    let (refuses, mirror) = match refuses {
        Some(nr) => (nr, 0),
        None => {
            let second = |nr: &usize| legs.placed.blocks[nr * STRIPE][1].device == 1;
            (
                (0..8).find(second).context("a copy on the first device")?,
                1,
            )
        }
    };
    let device_of = |legs: &Legs, nr: usize| legs.placed.blocks[nr * STRIPE][mirror].device;
    let healthy = (refuses + 1..8)
        .find(|&nr| device_of(&legs, nr) != 1)
        .context("a copy elsewhere")?;
    let range = |nr: usize| nr * STRIPE + 5..nr * STRIPE + 5 + BAD;
    let junk: Vec<_> = (0..2).map(|m| (m == mirror).then_some(0xbb)).collect();
    let Legs {
        fs, file, placed, ..
    } = &mut legs;
    placed.lay(fs, file, range(refuses), &junk)?;
    placed.lay(fs, file, range(healthy), &junk)?;
    // The metadata is in memory from here on.
    let direct = model::open_direct(&legs.file.path)?;
    ensure!(legs.read(&direct, 0..1)?.is_ok(), "cannot be read");
    legs.fs.btrfs(["device", "stats", "-z"])?;
    legs.fs.sync()?;
    legs.failing()[0].refuse_writes()?;
    if slowly {
        legs.legs[0].delay_writes_behind(1 << 20, SLOW)?;
    }
    let before = Stats::look(env)?;
    let all = legs.file.data.len();
    let read = || -> Result<()> {
        let region = Region::new(all)?;
        let base = region.iovec(0..all).iov_base as usize;
        let fd = direct.as_raw_fd();
        let count = as_reader_of(2, mirror as u32, move || {
            let iov = libc::iovec {
                iov_base: base as *mut _,
                iov_len: all,
            };
            Ok(sys::pread(fd, &iov, 0)?)
        })?;
        ensure!(count == all, "{count}");
        let differs = first_difference(region.bytes(), &legs.file.data);
        ensure!(differs.is_none(), "differs at {differs:?}");
        Ok(())
    };
    read()?;
    let told = device_stats(&legs.fs)?;
    if let Some(before) = before {
        let moved = Stats::all_served(Some(&before))?;
        let bad = BAD as u64;
        let counted = moved.get("recovered") == 2 * bad
            && moved.get("repaired") == bad
            && moved.get("unrepaired") == bad;
        ensure!(counted, "{moved}");
    }
    legs.failing()[0].heal()?;
    if slowly {
        legs.legs[0].heal()?;
    }
    let sound = |nr: usize| legs.placed.sound(&legs.fs, &legs.file, range(nr), mirror);
    ensure!(sound(healthy)?, "the healthy device was not repaired");
    for block in range(refuses) {
        let place = &legs.placed.blocks[block][mirror];
        let junk = device::read_block(&legs.fs, place)?;
        ensure!(junk == [0xbb; BLOCK], "block {block} was written");
    }
    // btrfs is patient; of what is slow to refuse, the module tries one.
    let refused = if slowly && env.module { 1 } else { BAD };
    let name = legs.legs[0].path();
    let want = format!("[{}].write_io_errs {refused}", Path::display(&name));
    ensure!(told.contains(&want), "{told:?}, wanted {want}");
    drop(direct);
    legs.fs.umount()
}

/// Blocks next to each other, of which no mirror has all, but each has some mirror.
fn apart(env: &Env) -> Result<()> {
    const BAD: Range<usize> = 20..28;
    let _policy = Policy::fs(env)?;
    let mut legs = Legs::new(env, "raid1c3", 64, false)?;
    let direct = legs.open()?;
    let failing = legs.fail(|block, copy, _| match copy {
        0 => BAD.contains(&block),
        1 => block == BAD.start + 2,
        _ => block == BAD.start + 5,
    })?;
    let before = Stats::look(env)?;
    let result = legs.read(&direct, 0..64)?;
    ensure!(result == Ok(64 * BLOCK), "{result:?}");
    if let Some(before) = before {
        let moved = Stats::all_served(Some(&before))?;
        let good = moved.get("recovered") > 0 && moved.get("lost") == 0;
        ensure!(good, "{moved}");
    }
    failing.into_iter().try_for_each(Mapped::heal)?;
    drop(direct);
    legs.fs.umount()
}
