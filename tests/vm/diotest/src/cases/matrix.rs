// SPDX-License-Identifier: GPL-2.0

//! Every kind of extent, on every profile, under every checksum type, asked for in
//! every way and at every alignment: the bytes are right, the module served them by
//! the expected path, and the page cache stayed empty.
//!
//! A case is a file system. Usually it is some of them, half of which have files
//! that are compressed, with one algorithm, and each way is tried at one alignment,
//! all as the seed has it. With `--full` it is everything.

use super::Case;
use super::engines::Loop;
use super::nowait::{self, NOWAIT};
use crate::aio::Engine;
use crate::buffer::BLOCK;
use crate::env::Env;
use crate::fs::{self, CSUMS, Csum, Fs, PARITY, PROFILES, Spec};
use crate::kinds;
use crate::model::{self, Model};
use crate::packed;
use crate::read::{Request, Via};
use crate::subject::{Expect, Subject};
use crate::sys;
use anyhow::{Result, ensure};
use rand::{RngExt, rngs::SmallRng, seq::SliceRandom};

/// A mirror of which one device is not there.
const DEGRADED: &str = "degraded";
/// Every way to ask that says so if it waits.
const WAYS: [Via; 6] = [
    Via::Pread,
    NOWAIT,
    Via::Async(Engine::Libaio),
    Via::Async(Engine::Uring),
    Via::Async(Engine::UringFixed),
    Via::Async(Engine::UringAsync),
];
/// Offset, length and memory are multiples of this. What is a multiple of less
/// than a sector is mainline's.
const UNITS: [usize; 2] = [BLOCK, 512];

/// Each layout with crc32c, each other checksum type once, and some of the rest,
/// or all.
pub fn cases(env: &Env) -> Vec<Case> {
    let profiles = PROFILES.into_iter().chain(PARITY).map(|p| p.name);
    let layouts: Vec<&str> = profiles.chain([DEGRADED]).collect();
    let mut pairs: Vec<(&str, Csum)> = layouts.iter().map(|name| (*name, Csum::Crc32c)).collect();
    for (i, csum) in CSUMS.into_iter().skip(1).enumerate() {
        pairs.push((["raid1", "single"][i % 2], csum));
    }
    let mut rest = Vec::new();
    for layout in layouts {
        let others = CSUMS.map(|csum| (layout, csum));
        rest.extend(others.into_iter().filter(|pair| !pairs.contains(pair)));
    }
    if !env.full {
        rest.shuffle(&mut env.rng(0));
        rest.truncate(env.scaled(2) as usize);
    }
    pairs.extend(rest);
    let case = |(layout, csum): (&'static str, Csum)| {
        let name = format!("{layout}-{}", csum.name());
        Case::new(name, move |env| one(env, layout, csum))
    };
    pairs.into_iter().map(case).collect()
}

fn one(env: &Env, layout: &str, csum: Csum) -> Result<()> {
    let degraded = layout == DEGRADED;
    let profile = if degraded { "raid1" } else { layout };
    let mut fs = Fs::make(env, &Spec::new(profile, csum))?;
    let mut files = Vec::new();
    if !matches!(csum, Csum::NoDataSum | Csum::NoCow) {
        let mut algorithms = packed::ALGORITHMS;
        algorithms.shuffle(&mut env.rng(50));
        let count = match env.full {
            true => algorithms.len(),
            false => env.rng(51).random_range(0..=1),
        };
        for algorithm in &algorithms[..count] {
            files.extend(compressed(env, &mut fs, algorithm)?);
        }
    }
    files.extend(kinds::all(env, &fs)?);
    fs.umount()?;
    if degraded {
        let _ = fs::run("btrfs", ["device", "scan", "--forget"]);
        fs.devices.pop();
        fs.spec.options = "degraded".into();
    }
    fs.mount()?;
    let mut rng = env.rng(100);
    let mut waited = 0;
    for model in &files {
        let subject = Subject::open(env, model)?;
        let size = model.size();
        let whole = size.next_multiple_of(BLOCK as u64) as usize;
        subject.read(&Request::pread(0, whole))?;
        subject.read(&Request::pread(0, whole + 2 * BLOCK).via(Via::Read))?;
        for _ in 0..env.scaled(if size < BLOCK as u64 { 1 } else { 3 }) {
            subject.read(&Request::random(&mut rng, size))?;
        }
        for via in WAYS {
            let only = UNITS[rng.random_range(0..UNITS.len())];
            for unit in UNITS.into_iter().filter(|u| env.full || *u == only) {
                waited += u32::from(!ask(&subject, via, unit, &mut rng)?);
            }
        }
        unaligned(&subject, &mut rng)?;
        model.cross_check()?;
    }
    // Whole files have just been read: little is not at hand.
    let asked = (files.len() * if env.full { UNITS.len() } else { 1 }) as u32;
    ensure!(
        waited * 2 <= asked || !env.module,
        "{waited} of {asked} reads that may not wait had to"
    );
    below_a_loop(env, &files, &mut rng)
}

/// Files of compressed extents, in a directory of their own.
fn compressed(env: &Env, fs: &mut Fs, algorithm: &str) -> Result<Vec<Model>> {
    fs.spec.options = format!("compress-force={algorithm}");
    fs.remount()?;
    let mut files = packed::all(env, fs)?;
    files.extend(packed::inline(fs, &mut env.rng(60))?);
    let dir = fs.path(algorithm);
    std::fs::create_dir(&dir)?;
    for file in &mut files {
        let to = dir.join(file.name());
        std::fs::rename(&file.path, &to)?;
        file.path = to;
    }
    fs.spec.options.clear();
    fs.remount()?;
    Ok(files)
}

/// One read. Whether it was not put off.
fn ask(subject: &Subject<'_>, via: Via, unit: usize, rng: &mut SmallRng) -> Result<bool> {
    let mut request = Request::random(rng, subject.model.size());
    if unit < BLOCK {
        request = request.jitter(rng, unit);
    }
    request.via = match via {
        Via::Pread if request.lens.len() > 1 => Via::Preadv,
        via => via,
    };
    if via == NOWAIT {
        return nowait::attempt(subject, request);
    }
    subject.read(&request)?;
    Ok(true)
}

/// Reads of no multiple of a sector: mainline's, whoever asks. They fill the page
/// cache, which is emptied again.
fn unaligned(subject: &Subject<'_>, rng: &mut SmallRng) -> Result<()> {
    let size = subject.model.size();
    for via in [Via::Pread, Via::Async(Engine::Libaio)] {
        let at = rng.random_range(0..size.div_ceil(2)) * 2 + 1;
        let len = rng.random_range(1..=3 * BLOCK);
        let expect = match via {
            // Nothing is asked of the module where the file has ended.
            Via::Pread if at < size => Expect::Declined("unaligned"),
            _ => Expect::Anyone,
        };
        subject.expect(&Request::pread(at, len).via(via), expect)?;
    }
    Ok(sys::drop_pages(&subject.direct)?)
}

/// The largest file as the disk of a loop device.
fn below_a_loop(env: &Env, files: &[Model], rng: &mut SmallRng) -> Result<()> {
    let Some(file) = files.iter().max_by_key(|file| file.data.len()) else {
        return Ok(());
    };
    let device = Loop::new(&file.path)?;
    let direct = model::open_direct(&device.0)?;
    for _ in 0..env.scaled(4) {
        // Not up to the end: a disk need not end as the file does.
        let request = Request::random(rng, file.size() / 3).any_via(rng);
        let want = &file.data[request.offset as usize..][..request.total()];
        let verdict = request.perform(&direct)?.verify(&request, want, false);
        ensure!(
            verdict.is_ok(),
            "loop over {}: {request}: {verdict:?}",
            file.name()
        );
    }
    Ok(())
}
