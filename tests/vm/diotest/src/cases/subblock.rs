// SPDX-License-Identifier: GPL-2.0

//! Reads of multiples of 512 bytes, although blocks are larger: the bytes asked
//! for, no others, and of what was written last; and statx(2), which says nothing
//! of that.

use super::Case;
use crate::buffer::{BLOCK, Region};
use crate::env::Env;
use crate::fs::{self, Csum, Fs, Spec};
use crate::kinds;
use crate::model::{self, Model};
use crate::packed;
use crate::read::{Request, Via};
use crate::subject::Subject;
use crate::sys;
use anyhow::{Result, ensure};
use rand::{RngExt, rngs::SmallRng};

const B: u64 = BLOCK as u64;
const UNIT: usize = 512;

pub fn cases(_: &Env) -> Vec<Case> {
    let mut cases = Vec::new();
    for (profile, csum) in [
        ("raid1", Csum::Crc32c),
        ("raid10", Csum::Blake2),
        ("single", Csum::NoDataSum),
        ("raid0", Csum::NoCow),
    ] {
        let name = format!("kinds-{profile}-{}", csum.name());
        cases.push(Case::new(name, move |env| {
            every_kind(env, &Spec::new(profile, csum))
        }));
    }
    cases.push(Case::new("compressed", compressed));
    cases.push(Case::new("sizes", sizes));
    cases.push(Case::new("combinations", combinations));
    cases.push(Case::new("bounced", bounced));
    cases.push(Case::new("long", long));
    cases.push(Case::new("vectors", vectors));
    cases.push(Case::new("coherent", |env| {
        coherent(env, &Spec::new("raid1", Csum::Crc32c))
    }));
    cases.push(Case::new("coherent-nodatasum", |env| {
        coherent(env, &Spec::new("single", Csum::NoDataSum))
    }));
    cases.push(Case::new("coherent-compressed", |env| {
        coherent(env, &packed::spec("single", Csum::Crc32c, "zstd"))
    }));
    cases.push(Case::new("statx", statx));
    cases
}

/// Random reads of a file, of parts of blocks.
fn some(subject: &Subject<'_>, rng: &mut SmallRng, rounds: u32) -> Result<()> {
    for round in 0..rounds {
        let size = subject.model.size();
        let request = match round % 3 {
            // Within a block, or not far.
            0 => {
                let at = rng.random_range(0..=size / 512) * 512;
                let len = rng.random_range(1..=12) * UNIT;
                let shift = rng.random_range(0..8) * UNIT;
                Request::pread(at, len).shift(shift)
            }
            _ => Request::random(rng, size).jitter(rng, UNIT),
        };
        subject.read(&request.any_via(rng))?;
    }
    Ok(())
}

fn every_kind(env: &Env, spec: &Spec) -> Result<()> {
    let mut fs = Fs::make(env, spec)?;
    let files = kinds::all(env, &fs)?;
    fs.remount()?;
    let mut rng = env.rng(100);
    for model in &files {
        let subject = Subject::open(env, model)?;
        let rounds = if model.size() < B { 4 } else { env.scaled(12) };
        some(&subject, &mut rng, rounds)?;
        model.cross_check()?;
    }
    Ok(())
}

fn compressed(env: &Env) -> Result<()> {
    let mut fs = Fs::make(env, &packed::spec("raid1", Csum::Crc32c, "lzo"))?;
    let files = packed::all(env, &fs)?;
    fs.remount()?;
    let mut rng = env.rng(100);
    for model in &files {
        let subject = Subject::open(env, model)?;
        some(&subject, &mut rng, env.scaled(9))?;
    }
    Ok(())
}

/// Around the end of files of every size.
fn sizes(env: &Env) -> Result<()> {
    let mut fs = Fs::make(env, &Spec::new("single", Csum::Crc32c))?;
    let mut rng = env.rng(0);
    let mut files = Vec::new();
    for size in [
        1, 511, 512, 513, 1024, 2047, 2049, 3585, 4095, 4096, 4097, 4608, 4609, 65_535, 66_000,
    ] {
        let mut file = Model::create(fs.path(format!("size{size}")))?;
        file.write_random(&mut rng, 0, size)?;
        file.sync()?;
        files.push(file);
    }
    fs.remount()?;
    for file in &files {
        let subject = Subject::open(env, file)?;
        let sector = file.size() / 512 * 512;
        for at in [
            0,
            512,
            sector.saturating_sub(512),
            sector,
            sector + 512,
            sector + 4096,
        ] {
            for len in [UNIT, BLOCK - UNIT, BLOCK, BLOCK + UNIT, 3 * BLOCK] {
                let via = [Via::Pread, Via::Read, Via::Preadv2(0)][len / UNIT % 3];
                subject.read(&Request::pread(at, len).via(via))?;
            }
        }
        file.cross_check()?;
    }
    Ok(())
}

/// Offset, length and memory, each of them a multiple of 512 only, or not, in
/// every combination.
fn combinations(env: &Env) -> Result<()> {
    for csum in [Csum::Crc32c, Csum::NoDataSum] {
        let mut fs = Fs::make(env, &Spec::new("raid1", csum))?;
        let mut rng = env.rng(0);
        let mut file = Model::create(fs.path("file"))?;
        file.write_random(&mut rng, 0, 300_001)?;
        file.sync()?;
        fs.remount()?;
        let subject = Subject::open(env, &file)?;
        for which in 0..8 {
            for base in [0, 17 * B, 40 * B, 72 * B] {
                let mut some = |bit: u32| match which & bit {
                    0 => 0,
                    _ => rng.random_range(1..BLOCK / UNIT) * UNIT,
                };
                let (offset, len, shift) = (some(1) as u64, some(2), some(4));
                for blocks in [1, 3, 30] {
                    let request = Request::pread(base + offset, len + blocks * BLOCK).shift(shift);
                    for via in [Via::Pread, Via::Read] {
                        subject.read(&request.clone().via(via))?;
                    }
                }
            }
        }
        file.cross_check()?;
    }
    Ok(())
}

/// With checksums, the first and the last block of a read go through private
/// memory if only a part of them is wanted; none of those between does.
fn bounced(env: &Env) -> Result<()> {
    let mut fs = Fs::make(env, &Spec::new("raid1", Csum::Crc32c))?;
    let mut file = Model::create(fs.path("file"))?;
    file.write_random(&mut env.rng(0), 0, 300_001)?;
    file.sync()?;
    fs.remount()?;
    let subject = Subject::open(env, &file)?;
    // Past the last block, which ends after 993 bytes.
    let last = 73 * B;
    for (offset, len, blocks) in [
        (0, BLOCK, 0),
        (512, 512, 1),
        (0, 512, 1),
        (3584, 512, 1),
        (512, 4 * BLOCK, 2),
        (512, 5 * BLOCK - 512, 1),
        (0, 4 * BLOCK + 512, 1),
        (3584, 1024, 2),
        (last, BLOCK, 0),
        (last, 512, 1),
        (last - B, BLOCK + 1024, 1),
    ] {
        let request = Request::pread(offset, len);
        subject.read(&request)?;
        let (_, moved) = subject.observe(&request)?;
        if let Some(moved) = moved {
            let at = subject.at(&request);
            ensure!(
                moved.get("bounced") == blocks,
                "{at}: wanted bounced +{blocks}: {moved}"
            );
        }
    }
    Ok(())
}

/// Long reads that begin within a block: in no part of them is a block in one
/// page, and each is read once.
fn long(env: &Env) -> Result<()> {
    let mut fs = Fs::make(env, &Spec::new("single", Csum::Crc32c))?;
    let mut file = Model::create(fs.path("file"))?;
    file.write_random(&mut env.rng(0), 0, 10 << 20)?;
    file.sync()?;
    fs.remount()?;
    let subject = Subject::open(env, &file)?;
    for (offset, len) in [(512, 9 << 20), (3584, 5 << 20), (B + 1024, 4 << 20)] {
        let request = Request::pread(offset, len);
        subject.read(&request)?;
        let (_, moved) = subject.observe(&request)?;
        if let Some(moved) = moved {
            let again = moved.get("buffer_changed") + moved.get("reread");
            ensure!(again == 0, "{}: read again: {moved}", subject.at(&request));
        }
    }
    Ok(())
}

/// Many small vectors.
fn vectors(env: &Env) -> Result<()> {
    for csum in [Csum::Crc32c, Csum::NoDataSum] {
        let mut fs = Fs::make(env, &Spec::new("raid1", csum))?;
        let mut rng = env.rng(0);
        let mut file = Model::create(fs.path("file"))?;
        file.write_random(&mut rng, 0, 2 << 20)?;
        file.punch(30 * B, 3 * B)?;
        file.sync()?;
        fs.remount()?;
        let subject = Subject::open(env, &file)?;
        let mut requests = vec![
            Request::preadv(0, vec![UNIT; 1024]),
            Request::preadv(512, vec![UNIT; 1024]),
            Request::preadv(1024, vec![UNIT, 0, BLOCK, 0, UNIT]),
        ];
        for _ in 0..env.scaled(12) {
            let count = rng.random_range(2..=64);
            let lens = (0..count)
                .map(|_| rng.random_range(1..=20) * UNIT)
                .collect();
            let at = rng.random_range(0..1024) * 512;
            requests.push(Request::preadv(at, lens).shift(rng.random_range(0..8) * UNIT));
        }
        for request in requests {
            subject.read(&request.any_via(&mut rng))?;
        }
        file.cross_check()?;
    }
    Ok(())
}

/// What was written or stored a moment ago is what is read, with no sync
/// between, and next to it what was there before.
fn coherent(env: &Env, spec: &Spec) -> Result<()> {
    let fs = Fs::make(env, spec)?;
    let mut rng = env.rng(0);
    let mut file = Model::create(fs.path("file"))?;
    let bytes = model::uneven(&mut rng, 300_000);
    file.write(0, &bytes)?;
    file.sync()?;
    let handle = file.file()?;
    let mut mapped = Region::of_file(&handle, 299_008)?;
    for round in 0..env.scaled(60) {
        let at = rng.random_range(0..290_000);
        let len = rng.random_range(1..3000);
        let bytes = model::random(&mut rng, len);
        if round % 2 == 0 {
            file.write(at as u64, &bytes)?;
        } else {
            mapped.part_mut(at..at + len).copy_from_slice(&bytes);
            file.data[at..at + len].copy_from_slice(&bytes);
        }
        let subject = Subject::unwritten(env, &file)?;
        let first = at / UNIT * UNIT;
        for (offset, len) in [
            (first, UNIT),
            (first.saturating_sub(UNIT), 2 * UNIT),
            (first, (at + len - first).next_multiple_of(UNIT)),
        ] {
            let request = Request::pread(offset as u64, len);
            subject.read(&request.any_via(&mut rng))?;
        }
    }
    drop((mapped, handle));
    file.sync()?;
    file.cross_check()
}

/// `struct statx` as far as it is looked at.
#[repr(C)]
struct Statx {
    mask: u32,
    after: [u32; 63],
}

const STATX_DIOALIGN: u32 = 0x2000;
const STATX_DIO_READ_ALIGN: u32 = 0x2_0000;

/// btrfs reports no alignment of direct I/O. With the module it does not either: loop
/// devices take `dio_offset_align` for the size of their sectors, and programs take
/// `dio_mem_align` for what direct writes need as well.
fn statx(env: &Env) -> Result<()> {
    const { assert!(size_of::<Statx>() == 256) };
    let fs = Fs::make(env, &Spec::new("single", Csum::Crc32c))?;
    let mut file = Model::create(fs.path("file"))?;
    file.write_random(&mut env.rng(0), 0, 100_000)?;
    file.sync()?;
    let path = std::ffi::CString::new(fs::path(&file.path))?;
    // SAFETY: All zeros is such a structure.
    let mut found: Statx = unsafe { std::mem::zeroed() };
    let both = STATX_DIOALIGN | STATX_DIO_READ_ALIGN;
    // SAFETY: A NUL-terminated string, and a structure of the size statx(2) has.
    let ret = unsafe {
        libc::statx(
            libc::AT_FDCWD,
            path.as_ptr(),
            0,
            both,
            (&raw mut found).cast(),
        )
    };
    sys::check(ret as isize)?;
    ensure!(found.mask & both == 0, "mask {:#x}", found.mask);
    Ok(())
}
