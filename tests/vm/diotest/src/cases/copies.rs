// SPDX-License-Identifier: GPL-2.0

//! Bad copies, on every profile: the data is right, what was met is repaired on
//! the device and counted, and a scrub finds nothing that is left.

use super::Case;
use crate::aio::Engine;
use crate::buffer::BLOCK;
use crate::chunks::{Chunks, Place};
use crate::device;
use crate::env::Env;
use crate::fiemap;
use crate::fs::{self, Csum, Fs, PARITY, PROFILES, Profile, Spec};
use crate::mirrors::{as_reader_of, device_stats};
use crate::model::{self, Model};
use crate::module::Policy;
use crate::packed;
use crate::read::{Request, Via};
use crate::stats::Stats;
use crate::tree;
use anyhow::{Context, Result, anyhow, ensure};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::ops::Range;

/// Bytes of the file.
const SIZE: usize = 512 << 10;
/// What the bad ones are overwritten with.
const JUNK: u8 = 0xbb;

pub fn cases(_: &Env) -> Vec<Case> {
    let mut cases = Vec::new();
    let csums = [Csum::Crc32c, Csum::Sha256, Csum::Xxhash, Csum::Blake2];
    let copied = PROFILES.into_iter().filter(|p| p.copies > 1);
    for (i, profile) in copied.chain(PARITY).enumerate() {
        for packed in [None, Some(["zstd", "lzo", "zlib"][i % 3])] {
            let csum = csums[(i + usize::from(packed.is_some())) % csums.len()];
            let kind = packed.unwrap_or("plain");
            let name = format!("{}-{kind}-{}", profile.name, csum.name());
            cases.push(Case::new(name, move |env| {
                every(env, profile, csum, packed)
            }));
        }
    }
    for (profile, bad) in [("raid5", 2), ("raid6", 3)] {
        cases.push(Case::new(format!("hopeless-{profile}"), move |env| {
            hopeless(env, profile, bad)
        }));
    }
    cases.push(Case::new("divided", divided));
    for profile in ["raid1", "dup", "raid1c3", "raid5", "raid6"] {
        cases.push(Case::new(format!("told-{profile}"), move |env| {
            told(env, profile)
        }));
    }
    cases
}

/// A block on disk: what is there, and where. If there is parity, behind its own
/// place come those it can be rebuilt from.
struct Stored {
    bytes: Vec<u8>,
    places: Vec<Place>,
}

/// The blocks of a file on disk, as they are read: of the file, or compressed.
fn stored(fs: &Fs, path: &std::path::Path) -> Result<Vec<Stored>> {
    fs.sync()?;
    let file = File::open(path)?;
    let mut ranges: Vec<_> = tree::packed(&file)?
        .iter()
        .map(|e| (e.logical, e.stored))
        .collect();
    if ranges.is_empty() {
        let extents = fiemap::extents(&file)?;
        ranges = extents.iter().map(|e| (e.logical, e.len)).collect();
    }
    let chunks = Chunks::read(&fs.mnt)?;
    let parity = PARITY.contains(&fs.spec.profile);
    let mut all = Vec::new();
    for (logical, len) in ranges {
        for at in (0..len).step_by(BLOCK) {
            let places = match parity {
                true => chunks.row(logical + at)?,
                false => chunks.copies(logical + at)?,
            };
            let bytes = device::read_block(fs, &places[0])?;
            all.push(Stored { bytes, places });
        }
    }
    Ok(all)
}

/// A file on a new file system.
fn file(env: &Env, profile: Profile, csum: Csum, packed: Option<&str>) -> Result<(Fs, Model)> {
    let spec = match packed {
        Some(algorithm) => packed::spec(profile.name, csum, algorithm),
        None => Spec::new(profile.name, csum),
    };
    let fs = Fs::make(env, &spec)?;
    let mut model = Model::create(fs.path("file"))?;
    match packed {
        Some(_) => {
            let bytes = model::uneven(&mut env.rng(0), SIZE);
            model.write(0, &bytes)?;
        }
        None => model.write_random(&mut env.rng(0), 0, SIZE)?,
    }
    model.sync()?;
    Ok((fs, model))
}

/// Which copies are bad, counted from 0, and of whom it is the first that is read.
struct Damage {
    bad: Vec<u32>,
    reader: u32,
}

impl Damage {
    /// The copies that are found bad, one after the other, before a good one is.
    fn met(&self, copies: u32) -> Vec<u32> {
        let order = (0..copies).map(|n| (self.reader + n) % copies);
        order.take_while(|n| self.bad.contains(n)).collect()
    }
}

/// Every single copy and every pair, as long as a good one is left.
fn damages(profile: Profile) -> Vec<Damage> {
    let parity = |bad: &[u32]| Damage {
        bad: bad.to_vec(),
        reader: 0,
    };
    match profile.name {
        "raid5" => return vec![parity(&[0])],
        // Its own stripe, and with it each of the three others.
        "raid6" => return [&[0][..], &[0, 1], &[0, 2], &[0, 3]].map(parity).into(),
        _ => {}
    }
    let n = profile.copies;
    let mut all = Vec::new();
    for first in 0..n {
        for second in first..n {
            let mut bad = vec![first, second];
            bad.dedup();
            for reader in bad.clone() {
                // Of DUP, all read the first.
                let reachable = profile.name != "dup" || reader == 0;
                if (bad.len() as u32) < n && reachable {
                    let bad = bad.clone();
                    all.push(Damage { bad, reader });
                }
            }
        }
    }
    all
}

fn every(env: &Env, profile: Profile, csum: Csum, packed: Option<&str>) -> Result<()> {
    let _policy = Policy::fs(env)?;
    let (mut fs, model) = file(env, profile, csum, packed)?;
    let all = stored(&fs, &model.path)?;
    // Not at its edges, and across more than one stripe or extent. Of what parity
    // is for, a block of each row only.
    let mut rows = BTreeSet::new();
    let alone = |block: &&Stored| {
        let last = block.places.last().map(|p| (p.device, p.offset));
        !PARITY.contains(&profile) || rows.insert(last)
    };
    let damaged = &all[3..all.len().saturating_sub(2).min(40)];
    let damaged: Vec<_> = damaged.iter().filter(alone).collect();
    ensure!(damaged.len() > 4, "only {} blocks on disk", all.len());
    // Those that are issued by the reader itself, whose copy is known.
    let ways = [Via::Pread, Via::Async(Engine::Libaio)];
    for (i, damage) in damages(profile).into_iter().enumerate() {
        let via = ways[i % ways.len()];
        let at = format!("{:?} bad, reader of {}, {via:?}", damage.bad, damage.reader);
        one(env, &mut fs, &model, &damaged, &damage, via).context(at)?;
    }
    Ok(())
}

fn one(
    env: &Env,
    fs: &mut Fs,
    model: &Model,
    blocks: &[&Stored],
    damage: &Damage,
    via: Via,
) -> Result<()> {
    fs.umount()?;
    for block in blocks {
        for n in &damage.bad {
            device::write_block(fs, &block.places[*n as usize], &[JUNK; BLOCK])?;
        }
    }
    fs.mount()?;
    fs.btrfs(["device", "stats", "-z"])?;
    let parity = PARITY.contains(&fs.spec.profile);
    let copies = fs.spec.profile.copies;
    let met = match parity {
        true => vec![0],
        false => damage.met(copies),
    };
    let direct = model::open_direct(&model.path)?;
    let request = Request::pread(0, SIZE).via(via);
    let before = Stats::look(env)?;
    let verdict = as_reader_of(copies, damage.reader, || {
        Ok(request
            .perform(&direct)?
            .verify(&request, &model.data, true))
    })?;
    verdict.map_err(|why| anyhow!(why))?;
    drop(direct);
    let sound = |block: &Stored, n: u32| -> Result<bool> {
        Ok(device::read_block(fs, &block.places[n as usize])? == block.bytes)
    };
    if let Some(before) = before {
        let moved = Stats::read()?.since(&before);
        let count = blocks.len() as u64;
        // Another block of the file may be bad with it.
        let alone = !(parity && damage.bad.contains(&1));
        let wanted = [
            ("reads", 1),
            ("declined", 0),
            ("recovered", count),
            ("rebuilt", if parity { count } else { 0 }),
            ("repaired", count * met.len() as u64),
            ("unrepaired", 0),
            ("lost", 0),
        ];
        for (name, value) in wanted {
            let got = moved.get(name);
            let right = got == value || !alone && got > value && value > 1;
            ensure!(right, "{name}, wanted {value}: {moved}");
        }
        for block in blocks {
            for n in &met {
                ensure!(sound(block, *n)?, "copy {n} was not repaired");
            }
        }
        // As many as were found bad, on the devices they were found on.
        let mut errors = BTreeMap::new();
        for block in blocks {
            for n in &met {
                let device = &fs.devices[block.places[*n as usize].device as usize - 1];
                *errors.entry(device.display().to_string()).or_insert(0u64) += 1;
            }
        }
        let wanted: Vec<_> = errors
            .iter()
            .map(|(device, count)| format!("[{device}].corruption_errs {count}"))
            .collect();
        let mut told = device_stats(fs)?;
        told.sort();
        let right = told == wanted || !alone;
        ensure!(right, "device stats {told:?}, wanted {wanted:?}");
    }
    // What was not met may be bad still; parity, too, is for a scrub to find.
    let left = damage.bad.iter().any(|n| !met.contains(n));
    if left || !env.module {
        fs.umount()?;
        for block in blocks.iter().filter(|_| !parity) {
            for place in &block.places {
                device::write_block(fs, place, &block.bytes)?;
            }
        }
        fs.mount()?;
        if parity {
            fs.btrfs(["scrub", "start", "-B"])?;
        }
        return Ok(());
    }
    fs.btrfs(["scrub", "start", "-B"])?;
    let status = fs.btrfs(["scrub", "status"])?;
    ensure!(status.contains("no errors found"), "scrub: {status}");
    Ok(())
}

/// More of a row is bad than parity makes up for: EIO for what includes it, from
/// whom it was asked for, and nothing is written.
fn hopeless(env: &Env, profile: &str, bad: usize) -> Result<()> {
    let (mut fs, model) = file(env, fs::by_name(profile), Csum::Crc32c, None)?;
    let all = stored(&fs, &model.path)?;
    let nr = 7;
    fs.umount()?;
    for place in &all[nr].places[..bad] {
        device::write_block(&fs, place, &[JUNK; BLOCK])?;
    }
    fs.mount()?;
    let direct = model::open_direct(&model.path)?;
    let before = Stats::look(env)?;
    for via in [Via::Pread, Via::Async(Engine::Uring)] {
        let request = Request::pread(0, 16 * BLOCK).via(via);
        let errno = request.perform(&direct)?.result.err();
        let errno = errno.and_then(|e| e.raw_os_error());
        ensure!(errno == Some(libc::EIO), "{request}: {errno:?}, wanted EIO");
        let request = Request::pread(0, nr * BLOCK).via(via);
        let verdict = request
            .perform(&direct)?
            .verify(&request, &model.data[..nr * BLOCK], true);
        verdict.map_err(|why| anyhow!("{request}: {why}"))?;
    }
    if let Some(before) = before {
        let moved = Stats::read()?.since(&before);
        let good = moved.get("lost") == 2 && moved.get("repaired") + moved.get("declined") == 0;
        ensure!(good, "{moved}");
    }
    for place in &all[nr].places[..bad] {
        let found = device::read_block(&fs, place)?;
        ensure!(found == [JUNK; BLOCK], "{place:?} was written");
    }
    Ok(())
}

/// Of a long read one half is of one copy and one of the other, and each has a bad
/// block there: both are met, or neither. In the midst of the halves, and close to
/// where they meet, which is within a stripe.
fn divided(env: &Env) -> Result<()> {
    let _policy = Policy::set(env, "spread")?;
    let (mut fs, model) = file(env, fs::by_name("raid1"), Csum::Crc32c, None)?;
    let all = stored(&fs, &model.path)?;
    for (read, blocks) in [(0..128, [32, 96]), (4..96, [51, 52])] {
        let bad = blocks.map(|nr: usize| &all[nr]);
        let mut met = Vec::new();
        for first in [0usize, 1] {
            met.push(divided_read(env, &mut fs, &model, &read, bad, first)?);
        }
        met.sort_unstable();
        let wanted = if env.module { [0, 2] } else { [0; 2] };
        ensure!(met == wanted, "{blocks:?} bad, met: {met:?}");
    }
    Ok(())
}

/// Reads some blocks, when the `first` copy of the first of two blocks is
/// bad, and the other one of the second. Returns how many were repaired.
fn divided_read(
    env: &Env,
    fs: &mut Fs,
    model: &Model,
    read: &Range<usize>,
    blocks: [&Stored; 2],
    first: usize,
) -> Result<u64> {
    let bad = [&blocks[0].places[first], &blocks[1].places[1 - first]];
    fs.umount()?;
    for place in bad {
        device::write_block(fs, place, &[JUNK; BLOCK])?;
    }
    fs.mount()?;
    let direct = model::open_direct(&model.path)?;
    let before = Stats::look(env)?;
    let read = read.start * BLOCK..read.end * BLOCK;
    let request = Request::pread(read.start as u64, read.len());
    let outcome = request.perform(&direct)?;
    let verdict = outcome.verify(&request, &model.data[read], true);
    verdict.map_err(|why| anyhow!(why))?;
    drop(direct);
    let moved = Stats::all_served(before.as_ref())?;
    let good = moved.get("lost") + moved.get("unrepaired") == 0
        && moved.get("csum_mismatches") == moved.get("repaired");
    ensure!(good, "{moved}");
    fs.umount()?;
    for (place, block) in bad.into_iter().zip(blocks) {
        device::write_block(fs, place, &block.bytes)?;
    }
    fs.mount()?;
    Ok(moved.get("repaired"))
}

/// What people look for in the log: which block of which file, of which mirror,
/// and where it was corrected.
fn told(env: &Env, profile: &str) -> Result<()> {
    let _policy = Policy::fs(env)?;
    let (mut fs, model) = file(env, fs::by_name(profile), Csum::Crc32c, None)?;
    let all = stored(&fs, &model.path)?;
    let (nr, bad) = (7usize, if profile == "raid1c3" { 2 } else { 0 });
    let place = all[nr].places[bad];
    fs.umount()?;
    device::write_block(&fs, &place, &[JUNK; BLOCK])?;
    fs.mount()?;
    use std::os::unix::fs::MetadataExt;
    let ino = std::fs::metadata(&model.path)?.ino();
    let direct = model::open_direct(&model.path)?;
    // Messages like these are limited to so many in five seconds.
    std::thread::sleep(std::time::Duration::from_secs(6));
    let before = fs::run("dmesg", [""; 0])?;
    let request = Request::pread(0, SIZE);
    let reader = bad as u32;
    let verdict = as_reader_of(fs.spec.profile.copies.max(reader + 1), reader, || {
        Ok(request
            .perform(&direct)?
            .verify(&request, &model.data, true))
    })?;
    verdict.map_err(|why| anyhow!(why))?;
    let after = fs::run("dmesg", [""; 0])?;
    let new: Vec<&str> = after.lines().skip(before.lines().count()).collect();
    let offset = nr * BLOCK;
    let device = fs.devices[place.device as usize - 1].display();
    let mirror = bad + 1;
    let wanted = [
        vec![
            format!("csum failed root 5 ino {ino} off {offset} csum 0x"),
            format!("mirror {mirror}"),
        ],
        vec![format!(
            "bdev {device} errs: wr 0, rd 0, flush 0, corrupt 1, gen 0"
        )],
        vec![
            format!("read error corrected: ino {ino} off {offset} (dev {device} sector "),
            format!("sector {})", place.offset / 512),
        ],
    ];
    for parts in wanted {
        let found = |line: &&str| parts.iter().all(|part| line.contains(part.as_str()));
        let count = new.iter().copied().filter(|line| found(line)).count();
        ensure!(count == 1, "{parts:?} {count} times in {new:#?}");
    }
    Ok(())
}
