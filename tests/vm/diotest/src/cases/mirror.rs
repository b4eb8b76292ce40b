// SPDX-License-Identifier: GPL-2.0

//! Which copy is read under the policy `fs`: btrfs's own rule, the reader's pid
//! modulo the number of copies. Shown without checksums, where the copies of one
//! file may differ and every reader must see exactly its own; and with them,
//! where only readers of the bad copy may notice.

use super::Case;
use crate::buffer::{BLOCK, first_difference};
use crate::env::Env;
use crate::fs::{Csum, Fs, PROFILES, Profile, Spec};
use crate::mirrors::{Placed, as_reader_of};
use crate::model::{self, Model};
use crate::module::Policy;
use crate::read::Request;
use crate::stats::Stats;
use crate::subject::Subject;
use crate::sys;
use anyhow::{Context, Result, ensure};
use std::os::fd::AsRawFd;

/// Blocks of the file: more than a stripe on each device.
const BLOCKS: usize = 96;
/// Those of which a copy goes bad where checksums tell.
const BAD: std::ops::Range<usize> = 30..50;

pub fn cases(_: &Env) -> Vec<Case> {
    let mut cases = Vec::new();
    for profile in PROFILES.into_iter().filter(|p| p.copies > 1) {
        for csum in [Csum::NoDataSum, Csum::Crc32c] {
            let name = format!("{}-{}", profile.name, csum.name());
            cases.push(Case::new(name, move |env| one(env, profile, csum)));
        }
    }
    cases
}

/// The copy that a reader of that residue reads: of DUP, always the first.
fn copy_of(profile: Profile, residue: u32) -> u32 {
    if profile.name == "dup" { 0 } else { residue }
}

fn one(env: &Env, profile: Profile, csum: Csum) -> Result<()> {
    let _policy = Policy::fs(env)?;
    let mut fs = Fs::make(env, &Spec::new(profile.name, csum))?;
    let mut file = Model::create(fs.path("file"))?;
    file.write_random(&mut env.rng(0), 0, BLOCKS * BLOCK)?;
    file.sync()?;
    let placed = Placed::find(&fs, &file)?;
    let copies = placed.blocks[0].len() as u32;
    ensure!(copies == profile.copies, "{copies} copies");
    if csum == Csum::NoDataSum {
        // Every copy is different: bytes tell which one was read.
        let junk: Vec<_> = (0..copies).map(|c| Some(0x10 + c as u8)).collect();
        let spoilt = 3..BLOCKS - 3;
        placed.lay(&mut fs, &file, spoilt.clone(), &junk)?;
        return every_reader_its_own(env, profile, &file, spoilt);
    }
    for bad in 0..copies {
        for residue in 0..copies {
            placed.spoil(&mut fs, &file, BAD, bad as usize)?;
            let hit = copy_of(profile, residue) == bad;
            only_if(env, &file, copies, residue, hit)?;
        }
    }
    Ok(())
}

fn every_reader_its_own(
    env: &Env,
    profile: Profile,
    file: &Model,
    spoilt: std::ops::Range<usize>,
) -> Result<()> {
    let probe = Request::pread((spoilt.start * BLOCK) as u64, BLOCK);
    let direct = model::open_direct(&file.path)?;
    let mut seen = Vec::new();
    for residue in 0..profile.copies {
        let read = || {
            let first = probe.perform(&direct)?.bytes().first().copied();
            Ok((sys::gettid(), first.map(|b| b.wrapping_sub(0x10))))
        };
        seen.push(as_reader_of(profile.copies, residue, read)?);
    }
    for residue in 0..profile.copies {
        let mut want = Model {
            path: file.path.clone(),
            data: file.data.clone(),
        };
        let copy = copy_of(profile, residue) as u8;
        want.data[spoilt.start * BLOCK..spoilt.end * BLOCK].fill(0x10 + copy);
        let subject = Subject::open(env, &want)?;
        as_reader_of(profile.copies, residue, || {
            subject.read(&Request::pread(0, BLOCKS * BLOCK))?;
            subject.read(&Request::preadv(8192, vec![BLOCK * 7; 12]))
        })
        .with_context(|| format!("reader of copy {copy}; (tid, copy) seen: {seen:?}"))?;
    }
    Ok(())
}

/// A reader notices the bad copy if and only if it is its own; data is right
/// either way.
fn only_if(env: &Env, file: &Model, copies: u32, residue: u32, hit: bool) -> Result<()> {
    let direct = model::open_direct(&file.path)?;
    let region = crate::buffer::Region::new(BLOCKS * BLOCK)?;
    let before = env.module.then(Stats::read).transpose()?;
    let iov = (
        region.iovec(0..BLOCKS * BLOCK).iov_base as usize,
        BLOCKS * BLOCK,
    );
    let fd = direct.as_raw_fd();
    let count = as_reader_of(copies, residue, move || {
        let iov = libc::iovec {
            iov_base: iov.0 as *mut _,
            iov_len: iov.1,
        };
        Ok(sys::pread(fd, &iov, 0)?)
    })?;
    ensure!(count == BLOCKS * BLOCK, "{count}");
    let at = format!("reader {residue} of {copies}, copy bad for it: {hit}");
    let differs = first_difference(region.bytes(), &file.data);
    ensure!(differs.is_none(), "{at}: differs at {differs:?}");
    if let Some(before) = before {
        let moved = Stats::read()?.since(&before);
        let seen = moved.get("csum_mismatches") > 0;
        ensure!(seen == hit, "{at}: {moved}");
    }
    Ok(())
}
