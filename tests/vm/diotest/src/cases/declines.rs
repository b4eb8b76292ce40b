// SPDX-License-Identifier: GPL-2.0

//! What the module does not serve: the data is right all the same, because
//! mainline serves it, and the counters say why, once and for no other reason.

use super::Case;
use crate::aio;
use crate::buffer::{BLOCK, Region, first_difference};
use crate::env::{Env, skip};
use crate::fiemap::Kind;
use crate::fs::{Csum, Fs, Spec};
use crate::model::{self, Model};
use crate::read::{Request, Via};
use crate::stats::Stats;
use crate::subject::{self, Expect, Subject};
use crate::sys;
use anyhow::{Result, ensure};
use rand::RngExt;
use std::fs::File;

const B: u64 = BLOCK as u64;

pub fn cases(_: &Env) -> Vec<Case> {
    let mut cases = vec![
        Case::new("libaio", |env| asynchronous(env, aio::libaio, &[])),
        Case::new("io_uring", |env| asynchronous(env, aio::uring, &["nowait"])),
        Case::new("nowait", nowait),
        Case::new("unaligned", unaligned),
        Case::new("verity", verity),
    ];
    for algorithm in ["zlib", "lzo", "zstd"] {
        let name = format!("compressed-{algorithm}");
        cases.push(Case::new(name, move |env| compressed(env, algorithm)));
        let name = format!("compressed_inline-{algorithm}");
        cases.push(Case::new(name, move |env| {
            compressed_inline(env, algorithm)
        }));
    }
    for profile in ["raid5", "raid6"] {
        cases.push(Case::new(profile, move |env| parity(env, profile)));
    }
    cases
}

fn plain(env: &Env, spec: &Spec, size: usize) -> Result<(Fs, Model)> {
    let mut fs = Fs::make(env, spec)?;
    let mut file = Model::create(fs.path("file"))?;
    file.write_random(&mut env.rng(0), 0, size)?;
    file.sync()?;
    fs.remount()?;
    Ok((fs, file))
}

type Reader = fn(&File, &Region, u64) -> Result<usize>;

/// Requests that complete behind the caller's back. `also` may be counted, too:
/// one request of io_uring can become two attempts.
fn asynchronous(env: &Env, reader: Reader, also: &[&str]) -> Result<()> {
    let (_fs, file) = plain(env, &Spec::new("raid1", Csum::Crc32c), 300_000)?;
    let direct = model::open_direct(&file.path)?;
    for (offset, len) in [
        (0, BLOCK),
        (8192, 1 << 16),
        (290_816, 1 << 16),
        (1 << 20, BLOCK),
    ] {
        let region = Region::new(len)?;
        let before = counters(env)?;
        let count = reader(&direct, &region, offset)?;
        let from = file.data.len().min(offset as usize);
        let want = &file.data[from..file.data.len().min(from + len)];
        let at = format!("offset={offset} length={len}");
        ensure!(count == want.len(), "{at}: {count}, wanted {}", want.len());
        let differs = first_difference(&region.bytes()[..count], want);
        ensure!(differs.is_none(), "{at}: differs at {differs:?}");
        if let (Some(before), Some(now)) = (before, counters(env)?) {
            let moved = now.since(&before);
            let allowed = |r: &&str| *r == "async" || also.contains(r);
            let good = moved.get("reads") == 0
                && (moved.get("declined_async") > 0 || count == 0)
                && (moved.get("declined") == 1 || !also.is_empty() || count == 0)
                && moved.reasons().iter().all(allowed);
            ensure!(good, "{at}: wanted declined_async; counters: {moved}");
        }
    }
    Ok(())
}

fn counters(env: &Env) -> Result<Option<Stats>> {
    env.module.then(Stats::read).transpose()
}

/// preadv2(RWF_NOWAIT) delivers the right bytes, or says EAGAIN.
fn nowait(env: &Env) -> Result<()> {
    let (_fs, file) = plain(env, &Spec::new("single", Csum::Crc32c), 300_000)?;
    let subject = Subject::open(env, &file)?;
    for (offset, len) in [(0, BLOCK), (0, BLOCK), (8192, 16 * BLOCK)] {
        let request = Request::pread(offset, len).via(Via::Preadv2(libc::RWF_NOWAIT));
        let (outcome, moved) = subject.observe(&request)?;
        match &outcome.result {
            Err(e) if e.raw_os_error() == Some(libc::EAGAIN) => {}
            Ok(count) => {
                let short = &subject.wanted(&request)[..*count];
                subject.judge(&request, outcome.verify(&request, short, false))?;
            }
            Err(e) => anyhow::bail!("{}: {e}", subject.at(&request)),
        }
        if let Some(moved) = moved {
            subject.judge(&request, subject::declined(&moved, "nowait"))?;
        }
    }
    Ok(())
}

/// Offset, length or buffer a multiple of 512 only, or of nothing at all.
fn unaligned(env: &Env) -> Result<()> {
    let (_fs, file) = plain(env, &Spec::new("raid1", Csum::Crc32c), 300_001)?;
    let subject = Subject::open(env, &file)?;
    let expect = Expect::Declined("unaligned");
    let mut rng = env.rng(1);
    for unit in [512, 1] {
        for what in 0..7 {
            let mut some = |on: bool| {
                if on {
                    rng.random_range(1..BLOCK / unit) * unit
                } else {
                    0
                }
            };
            // Any of the three, and every two or three of them.
            let which = what + 1;
            let (offset, len, shift) = (
                some(which & 1 != 0) as u64,
                some(which & 2 != 0) + 3 * BLOCK,
                some(which & 4 != 0),
            );
            for base in [0, 17 * B, 72 * B] {
                let request = Request::pread(base + offset, len).shift(shift);
                for via in [Via::Pread, Via::Read] {
                    subject.expect(&request.clone().via(via), expect)?;
                }
            }
        }
    }
    // One short vector among good ones.
    subject.expect(&Request::preadv(0, vec![BLOCK, 512, BLOCK]), expect)?;
    file.cross_check()
}

/// Compressed extents, also as one among others.
fn compressed(env: &Env, algorithm: &str) -> Result<()> {
    let options = format!("compress-force={algorithm}");
    let spec = Spec::new("single", Csum::Crc32c).options(&options);
    let mut fs = Fs::make(env, &spec)?;
    let mut rng = env.rng(0);
    let mut file = Model::create(fs.path("file"))?;
    file.write(0, &model::compressible(&mut rng, 500_000))?;
    file.sync()?;
    // Uncompressed as written past the page cache.
    file.write_direct(&mut rng, 1 << 20, 64 * BLOCK)?;
    fs.remount()?;
    let subject = Subject::open(env, &file)?;
    let whole = Request::pread(0, file.data.len());
    let kinds = subject.kinds(&whole).unwrap_or_default();
    ensure!(
        kinds == [Kind::Regular, Kind::Hole, Kind::Compressed],
        "{kinds:?}"
    );
    let mut requests = vec![whole];
    for _ in 0..env.scaled(20) {
        requests.push(Request::random(&mut rng, file.size()));
    }
    for request in &requests {
        sys::drop_pages(&subject.direct)?;
        let has = subject.kinds(request).unwrap_or_default();
        let expect = if has.contains(&Kind::Compressed) {
            Expect::Declined("compressed")
        } else {
            Expect::Served
        };
        subject.expect(request, expect)?;
    }
    file.cross_check()
}

/// Compressed data small enough to live in the metadata.
fn compressed_inline(env: &Env, algorithm: &str) -> Result<()> {
    let options = format!("compress-force={algorithm}");
    let spec = Spec::new("single", Csum::Crc32c).options(&options);
    let mut fs = Fs::make(env, &spec)?;
    let mut rng = env.rng(0);
    let mut files = Vec::new();
    for size in [600, 2000, 4000] {
        let mut file = Model::create(fs.path(format!("file{size}")))?;
        file.write(0, &model::compressible(&mut rng, size))?;
        file.sync()?;
        files.push(file);
    }
    fs.remount()?;
    let mut seen = 0;
    for file in &files {
        let subject = Subject::open(env, file)?;
        let extents = subject.extents.as_deref().unwrap_or_default();
        // FIEMAP says "encoded" of inline extents, too, if they are compressed.
        if extents.iter().any(|e| e.kind == Kind::Compressed) {
            seen += 1;
            for len in [BLOCK, 4 * BLOCK] {
                let request = Request::pread(0, len);
                subject.expect(&request, Expect::Declined("compressed"))?;
            }
        }
    }
    ensure!(seen > 0, "no compressed inline extent came about");
    Ok(())
}

/// Parity profiles.
fn parity(env: &Env, profile: &str) -> Result<()> {
    let (_fs, file) = plain(env, &Spec::new(profile, Csum::Crc32c), 1_000_000)?;
    let subject = Subject::open(env, &file)?;
    let mut rng = env.rng(1);
    for _ in 0..env.scaled(10) {
        let mut request = Request::random(&mut rng, file.size());
        request.offset = request.offset.min(file.size() / 2 / B * B);
        subject.expect(&request, Expect::Declined("raid56"))?;
    }
    file.cross_check()
}

/// `struct fsverity_enable_arg`.
#[repr(C)]
#[derive(Default)]
struct EnableVerity {
    version: u32,
    hash_algorithm: u32,
    block_size: u32,
    salt_size: u32,
    salt_ptr: u64,
    sig_size: u32,
    reserved1: u32,
    sig_ptr: u64,
    reserved2: [u64; 11],
}

/// `FS_IOC_ENABLE_VERITY`, `_IOW('f', 133, struct fsverity_enable_arg)`.
const FS_IOC_ENABLE_VERITY: u64 = 0x4080_6685;

/// Files under fs-verity.
fn verity(env: &Env) -> Result<()> {
    let (mut fs, file) = plain(env, &Spec::new("single", Csum::Crc32c), 300_000)?;
    let mut arg = EnableVerity {
        version: 1,
        hash_algorithm: 1,
        block_size: 4096,
        ..EnableVerity::default()
    };
    let readable = File::open(&file.path)?;
    // SAFETY: That is the structure this request takes.
    match unsafe { sys::ioctl(&readable, FS_IOC_ENABLE_VERITY, &mut arg) } {
        Err(e) if e.raw_os_error() == Some(libc::EOPNOTSUPP) => {
            return Err(skip("a kernel without fs-verity"));
        }
        other => drop(other?),
    }
    drop(readable);
    fs.remount()?;
    let subject = Subject::open(env, &file)?;
    for (offset, len) in [(0, BLOCK), (40_960, 1 << 17), (290_816, 1 << 16)] {
        subject.expect(&Request::pread(offset, len), Expect::Declined("verity"))?;
    }
    file.cross_check()
}
