// SPDX-License-Identifier: GPL-2.0

//! Compressed extents of every shape, algorithm and engine: decoded by the
//! module, not by way of the page cache, and right whatever became of the
//! extent since somebody last looked into it.

use super::Case;
use crate::buffer::BLOCK;
use crate::chunks::Chunks;
use crate::device;
use crate::env::Env;
use crate::fiemap::Kind;
use crate::fs::{Csum, Fs, Spec};
use crate::mirrors::as_reader_of;
use crate::model::{self, Model};
use crate::module::{self, Policy};
use crate::packed;
use crate::pagecache;
use crate::read::Request;
use crate::stats::Stats;
use crate::subject::{Expect, Subject};
use crate::sys;
use anyhow::{Context, Result, ensure};
use rand::{RngExt, rngs::SmallRng};
use std::fs::File;
use std::os::unix::fs::FileExt;

const B: u64 = BLOCK as u64;

pub fn cases(_: &Env) -> Vec<Case> {
    let mut cases = Vec::new();
    let rooms = [
        ("zlib", "raid1", Csum::Crc32c),
        ("lzo", "single", Csum::Sha256),
        ("zstd", "raid10", Csum::Xxhash),
    ];
    for (algorithm, profile, csum) in rooms {
        let name = format!("shapes-{algorithm}");
        cases.push(Case::new(name, move |env| {
            shapes(env, &packed::spec(profile, csum, algorithm))
        }));
        let name = format!("inline-{algorithm}");
        cases.push(Case::new(name, move |env| inline(env, algorithm)));
    }
    cases.push(Case::new("together", together));
    cases.push(Case::new("warm", warm));
    cases.push(Case::new("decoded_once", decoded_once));
    cases.push(Case::new("room", room));
    cases.push(Case::new("reused", reused));
    cases.push(Case::new("rewritten", rewritten));
    cases.push(Case::new("moved", moved));
    cases.push(Case::new("corrupt", corrupt));
    cases.push(Case::new("unwritten", unwritten));
    cases
}

/// Reads at random, of blocks and of parts of them, by any engine.
fn some(env: &Env, subject: &Subject<'_>, rng: &mut SmallRng, rounds: u32) -> Result<()> {
    for round in 0..env.scaled(rounds) {
        let request = Request::random(rng, subject.model.size());
        let request = match round % 3 {
            0 => request.jitter(rng, 512),
            _ => request,
        };
        subject.read(&request.any_via(rng))?;
    }
    Ok(())
}

/// Every shape: whole, at random, and small parts again and again.
fn shapes(env: &Env, spec: &Spec) -> Result<()> {
    let mut fs = Fs::make(env, spec)?;
    let files = packed::all(env, &fs)?;
    fs.remount()?;
    let mut rng = env.rng(100);
    for model in &files {
        let subject = Subject::open(env, model)?;
        let whole = model.size().next_multiple_of(B) as usize;
        subject.read(&Request::pread(0, whole))?;
        subject.read(&Request::pread(0, whole + 8192).any_via(&mut rng))?;
        some(env, &subject, &mut rng, 10)?;
        // Parts of one extent, as whoever reads a database would ask.
        let around = rng.random_range(0..=model.size() / B) * B;
        for _ in 0..env.scaled(4) {
            let at = around + rng.random_range(0..16) * 512;
            subject.read(&Request::pread(at, 512 * rng.random_range(1..=8)))?;
        }
        model.cross_check()?;
    }
    Ok(())
}

/// Compressed data in the metadata.
fn inline(env: &Env, algorithm: &str) -> Result<()> {
    let mut fs = Fs::make(env, &packed::spec("single", Csum::Crc32c, algorithm))?;
    let mut rng = env.rng(0);
    let files = packed::inline(&fs, &mut rng)?;
    fs.remount()?;
    for model in &files {
        let subject = Subject::open(env, model)?;
        for lens in [vec![BLOCK], vec![4 * BLOCK], vec![512, BLOCK]] {
            subject.read(&Request::preadv(0, lens).any_via(&mut rng))?;
        }
        let at = rng.random_range(0..8) * 512;
        subject.read(&Request::pread(at, 512).any_via(&mut rng))?;
        subject.read(&Request::pread(B, BLOCK).any_via(&mut rng))?;
        model.cross_check()?;
    }
    Ok(())
}

/// All algorithms in one file.
fn together(env: &Env) -> Result<()> {
    let mut fs = Fs::make(env, &packed::spec("single", Csum::Crc32c, "zlib"))?;
    let mut rng = env.rng(0);
    let mut file = Model::create(fs.path("file"))?;
    for round in 0..9 {
        let algorithm = packed::ALGORITHMS[round % 3];
        fs.spec.options = format!("compress-force={algorithm}");
        fs.remount()?;
        let at = rng.random_range(0..100) * B;
        let len = rng.random_range(20_000..400_000);
        let bytes = model::uneven(&mut rng, len);
        file.write(at, &bytes)?;
        file.sync()?;
    }
    fs.remount()?;
    let subject = Subject::open(env, &file)?;
    some(env, &subject, &mut rng, 30)?;
    file.cross_check()
}

/// A compressed file of 1 MiB, not in any cache.
fn plain(env: &Env, algorithm: &str) -> Result<(Fs, Model)> {
    let mut fs = Fs::make(env, &packed::spec("raid1", Csum::Crc32c, algorithm))?;
    let mut file = Model::create(fs.path("file"))?;
    file.write(0, &model::compressible(&mut env.rng(0), 1 << 20))?;
    file.sync()?;
    fs.remount()?;
    Ok((fs, file))
}

/// With its pages in the page cache: they stay there, and no others come.
fn warm(env: &Env) -> Result<()> {
    for algorithm in packed::ALGORITHMS {
        let (_fs, file) = plain(env, algorithm)?;
        let mut subject = Subject::open(env, &file)?;
        let half = file.data.len() / 2;
        let buffered = File::open(&file.path)?;
        // Nor after the first look at what is cached.
        sys::no_readahead(&buffered)?;
        let mut bytes = vec![0; half];
        buffered.read_exact_at(&mut bytes, 0)?;
        let same = bytes == file.data[..half];
        ensure!(same, "read through the page cache");
        ensure!(pagecache::pages(&subject.direct)? > 0, "nothing cached");
        // For the judge: there may be pages.
        subject.extents = None;
        let mut rng = env.rng(1);
        some(env, &subject, &mut rng, 10)?;
        file.cross_check()?;
    }
    Ok(())
}

/// An extent that is read part by part is not decoded for each of them.
fn decoded_once(env: &Env) -> Result<()> {
    for algorithm in packed::ALGORITHMS {
        let (_fs, file) = plain(env, algorithm)?;
        let subject = Subject::open(env, &file)?;
        let before = Stats::look(env)?;
        for at in 0..64 {
            subject.read(&Request::pread(at * B, BLOCK))?;
        }
        let moved = Stats::all_at_once(before.as_ref())?;
        if env.module {
            let (hits, misses) = (moved.get("cache_hits"), moved.get("cache_misses"));
            ensure!(misses > 0 && hits >= 32, "64 blocks of 2 extents: {moved}");
        }
    }
    Ok(())
}

/// What is kept decompressed is no more than there is room for: all extents of the
/// file, two of them, or none. It goes when the machine needs memory.
fn room(env: &Env) -> Result<()> {
    module::able(env)?;
    let (_fs, file) = plain(env, "zstd")?;
    let hits = || -> Result<u64> {
        let subject = Subject::open(env, &file)?;
        let before = Stats::look(env)?;
        // Three blocks of each extent, two times.
        for _ in 0..2 {
            for at in (0..256).filter(|at| at % 32 < 3) {
                subject.read(&Request::pread(at * B, BLOCK))?;
            }
        }
        Ok(Stats::all_at_once(before.as_ref())?.get("cache_hits"))
    };
    let none = module::with(env, "decoded_cache_kib=0", hits)?;
    let few = module::with(env, "decoded_cache_kib=300", hits)?;
    let (many, after) = module::with(env, "", || {
        let many = hits()?;
        // They are there now, and gone then.
        let subject = Subject::open(env, &file)?;
        let before = Stats::look(env)?;
        sys::drop_caches()?;
        subject.read(&Request::pread(0, BLOCK))?;
        let after = Stats::all_at_once(before.as_ref())?.get("cache_hits");
        Ok((many, after))
    })?;
    // The second block that is read of an extent lets all of it be kept. Of what is not kept any more
    // it may be known, or not, that it has been read before.
    let good = none == 0 && (16..=24).contains(&few) && many == 8 + 24 && after == 0;
    ensure!(good, "{none}, {few} and {many} hits, then {after}");
    Ok(())
}

/// Space of deleted files that others are given: nobody reads what was there.
fn reused(env: &Env) -> Result<()> {
    let mut places = Vec::new();
    for algorithm in packed::ALGORITHMS {
        let fs = Fs::make(env, &packed::spec("single", Csum::Crc32c, algorithm))?;
        let mut rng = env.rng(0);
        for round in 0..env.scaled(5) {
            let mut file = Model::create(fs.path(format!("round{round}")))?;
            file.write(0, &model::compressible(&mut rng, 1 << 20))?;
            file.sync()?;
            fs.sync()?;
            places.push(packed::first(&file)?.logical);
            let subject = Subject::open(env, &file)?;
            sys::drop_pages(&subject.direct)?;
            // Twice, for somebody to remember it.
            for _ in 0..2 {
                subject.read(&Request::pread(0, 1 << 20))?;
                subject.read(&Request::pread(5 * B, BLOCK))?;
            }
            drop(subject);
            std::fs::remove_file(&file.path)?;
            // Once to let go of it, and once to be allowed to use it again.
            fs.sync()?;
            fs.sync()?;
        }
    }
    let all = places.len();
    places.sort_unstable();
    places.dedup();
    eprintln!("# {}: {all} files in {} places", env.case, places.len());
    ensure!(places.len() < all, "no space was used twice");
    Ok(())
}

/// Overwritten, cut and punched, and read at once.
fn rewritten(env: &Env) -> Result<()> {
    let (fs, mut file) = plain(env, "zstd")?;
    let mut rng = env.rng(2);
    for round in 0..env.scaled(24) {
        let at = rng.random_range(0..file.size().max(1));
        let len: usize = rng.random_range(1..60_000);
        match round % 4 {
            0 => file.punch(at, len as u64)?,
            1 => file.truncate(at)?,
            2 => file.write_direct(&mut rng, at / B * B, len.next_multiple_of(BLOCK))?,
            _ => {
                let bytes = model::compressible(&mut rng, len);
                file.write(at, &bytes)?;
            }
        }
        if round % 3 == 0 {
            fs.sync()?;
        }
        let subject = Subject::unwritten(env, &file)?;
        let request = Request::pread(at / B * B, len.next_multiple_of(BLOCK));
        subject.read(&request.any_via(&mut rng))?;
        some(env, &subject, &mut rng, 2)?;
    }
    file.sync()?;
    file.cross_check()
}

/// Written a moment ago, perhaps being compressed right now.
fn unwritten(env: &Env) -> Result<()> {
    let fs = Fs::make(env, &packed::spec("single", Csum::Crc32c, "zlib"))?;
    let mut rng = env.rng(0);
    let mut file = Model::create(fs.path("file"))?;
    for round in 0..env.scaled(12) {
        let at = rng.random_range(0..500_000);
        let len = rng.random_range(1..300_000);
        let bytes = model::compressible(&mut rng, len);
        file.write(at, &bytes)?;
        if round % 2 == 0 {
            // Only begins to.
            start_writing(&file.file()?)?;
        }
        let subject = Subject::unwritten(env, &file)?;
        some(env, &subject, &mut rng, 3)?;
    }
    file.sync()?;
    file.cross_check()
}

fn start_writing(file: &File) -> Result<()> {
    use std::os::fd::AsRawFd;
    // SAFETY: No pointers.
    let ret = unsafe { libc::sync_file_range(file.as_raw_fd(), 0, 0, libc::SYNC_FILE_RANGE_WRITE) };
    sys::check(ret as isize).context("sync_file_range")?;
    Ok(())
}

/// Extents that were moved elsewhere, and others put in their place.
fn moved(env: &Env) -> Result<()> {
    let fs = Fs::make(env, &packed::spec("raid1", Csum::Crc32c, "lzo"))?;
    let mut rng = env.rng(0);
    let mut files = Vec::new();
    for i in 0..3 {
        let mut file = Model::create(fs.path(format!("file{i}")))?;
        file.write(0, &model::uneven(&mut rng, 700_000))?;
        file.sync()?;
        sys::drop_pages(&file.file()?)?;
        files.push(file);
    }
    for _ in 0..env.scaled(2) {
        for file in &files {
            let subject = Subject::open(env, file)?;
            subject.read(&Request::pread(0, 704_512))?;
            some(env, &subject, &mut rng, 4)?;
        }
        fs.btrfs(["balance", "start", "--full-balance"])?;
        for file in &files {
            // Relocation reads through the page cache, but not through this file's.
            let subject = Subject::open(env, file)?;
            subject.expect(&Request::pread(0, 704_512), Expect::Served)?;
        }
    }
    Ok(())
}

/// One copy is bad: whoever reads it gets the other. Both: EIO.
fn corrupt(env: &Env) -> Result<()> {
    let _policy = Policy::fs(env)?;
    for algorithm in packed::ALGORITHMS {
        let (mut fs, file) = plain(env, algorithm)?;
        let extent = packed::first(&file)?;
        let copies = Chunks::read(&fs.mnt)?.copies(extent.logical)?;
        ensure!(copies.len() == 2, "{} copies", copies.len());
        let good = device::read_block(&fs, &copies[0])?;
        let request = Request::pread(0, 300 * BLOCK);
        let mut rng = env.rng(1);
        for bad in 0..2 {
            fs.umount()?;
            device::write_block(&fs, &copies[1 - bad], &good)?;
            device::write_block(&fs, &copies[bad], &[0xbb; BLOCK])?;
            fs.mount()?;
            let subject = Subject::open(env, &file)?;
            let kinds = subject.kinds(&request).unwrap_or_default();
            ensure!(kinds == [Kind::Compressed], "{kinds:?}");
            for reader in 0..2 {
                let request = request.clone().any_via(&mut rng);
                as_reader_of(2, reader, || subject.expect(&request, Expect::Anyone))
                    .with_context(|| format!("{algorithm}: copy {bad} bad, reader of {reader}"))?;
            }
        }
        fs.umount()?;
        for copy in &copies {
            device::write_block(&fs, copy, &[0xbb; BLOCK])?;
        }
        fs.mount()?;
        let subject = Subject::open(env, &file)?;
        for _ in 0..3 {
            let request = request.clone().any_via(&mut rng);
            let (outcome, _) = subject.observe(&request)?;
            let errno = outcome.result.err().and_then(|e| e.raw_os_error());
            let at = subject.at(&request);
            ensure!(
                errno == Some(libc::EIO),
                "{algorithm} {at}: {errno:?}, wanted EIO"
            );
        }
        // The next extent is whole. Those who read this one may have cached it.
        sys::drop_pages(&subject.direct)?;
        let next = Request::pread(extent.offset + extent.len, 16 * BLOCK);
        subject.read(&next)?;
    }
    Ok(())
}
