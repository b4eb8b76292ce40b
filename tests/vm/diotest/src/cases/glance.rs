// SPDX-License-Identifier: GPL-2.0

//! Small reads of what is known: no lock on the extents, no search for
//! checksums. What is known must be forgotten in time: were it not, then what is
//! read would not match, or not be current, and be read again, which is counted.

use super::Case;
use crate::aio::Engine;
use crate::buffer::{BLOCK, Region};
use crate::chunks::Chunks;
use crate::device::Mapped;
use crate::env::{Env, skip};
use crate::fiemap;
use crate::fs::{CSUMS, Csum, Fs, Spec};
use crate::model::{self, Model};
use crate::race;
use crate::read::{Request, Via};
use crate::stats::Stats;
use crate::sys;
use anyhow::{Context, Result, anyhow, ensure};
use std::collections::BTreeSet;
use std::fs::File;
use std::time::Duration;

/// Size of the files.
const SIZE: usize = 4 << 20;
/// Room that is left on the file system of which space is used again.
const ROOM: u64 = 24 << 20;

pub fn cases(_: &Env) -> Vec<Case> {
    let mut cases: Vec<Case> = CSUMS
        .into_iter()
        .map(|csum| {
            Case::new(format!("known-{}", csum.name()), move |env| {
                known(env, csum)
            })
        })
        .collect();
    cases.push(Case::new("used_again", used_again));
    cases.push(Case::new("made_again", made_again));
    for csum in [Csum::Xxhash, Csum::NoDataSum, Csum::NoCow] {
        let name = format!("overwritten-{}", csum.name());
        cases.push(Case::new(name, move |env| overwritten(env, csum)));
    }
    for csum in [Csum::NoDataSum, Csum::NoCow] {
        let name = format!("half_written-{}", csum.name());
        cases.push(Case::new(name, move |env| half_written(env, csum)));
    }
    cases
}

/// Reads the file in pieces, waiting for every other one, and checks it.
fn read_all(model: &Model, len: usize) -> Result<()> {
    let file = model::open_direct(&model.path)?;
    for (i, want) in model.data.chunks(len).enumerate() {
        let via = match i % 2 {
            0 => Via::Preadv,
            _ => Via::Async(Engine::Uring),
        };
        let request = Request::pread((i * len) as u64, want.len()).via(via);
        read(&file, &request, want).with_context(|| model.name())?;
    }
    Ok(())
}

fn read(file: &File, request: &Request, want: &[u8]) -> Result<()> {
    let verdict = request.perform(file)?.verify(request, want, true);
    verdict.map_err(|why| anyhow!("{request}: {why}"))
}

/// What moved, and that nothing of it says that something did not match.
fn matched(before: Option<&Stats>) -> Result<Stats> {
    let moved = Stats::all_served(before)?;
    for name in ["csum_mismatches", "buffer_changed", "reread", "io_errors"] {
        ensure!(moved.get(name) == 0, "{name} moved: {moved}");
    }
    Ok(moved)
}

/// What was read once is read without a lock the second time.
fn known(env: &Env, csum: Csum) -> Result<()> {
    let mut fs = Fs::make(env, &Spec::new("raid1", csum))?;
    let mut model = Model::create(fs.path("file"))?;
    model.write_random(&mut env.rng(1), 0, SIZE)?;
    fs.remount()?;
    for len in [BLOCK, 4 * BLOCK, 7 * BLOCK] {
        read_all(&model, len)?;
        let before = Stats::look(env)?;
        read_all(&model, len)?;
        let moved = matched(before.as_ref())?;
        let reads = SIZE.div_ceil(len) as u64;
        ensure!(
            !env.module || moved.get("unlocked") == reads && moved.get("csum_cache_misses") == 0,
            "{reads} reads of {len} bytes, read before: {moved}"
        );
    }
    Ok(())
}

/// Space is given back and used again, so the same addresses have other data.
fn used_again(env: &Env) -> Result<()> {
    let fs = Fs::make(env, &Spec::new("single", Csum::Crc32c))?;
    let filler = File::create_new(fs.path("filler"))?;
    let free = sys::free_bytes(&fs.mnt)?;
    sys::fallocate(&filler, 0, 0, free.saturating_sub(ROOM))?;
    fs.sync()?;
    let before = Stats::look(env)?;
    let (mut seen, mut again) = (BTreeSet::new(), 0u32);
    for round in 0..env.scaled(24) {
        let mut model = Model::create(fs.path(format!("file{round}")))?;
        model.write_random(&mut env.rng(10 + u64::from(round)), 0, SIZE)?;
        fs.sync()?;
        for extent in fiemap::extents(&model.file()?)? {
            for at in (0..extent.len).step_by(BLOCK) {
                again += u32::from(!seen.insert(extent.logical + at));
            }
        }
        // The first time they become known.
        for len in [BLOCK, BLOCK, 4 * BLOCK] {
            read_all(&model, len)?;
        }
        std::fs::remove_file(&model.path)?;
        fs.sync()?;
    }
    let moved = matched(before.as_ref())?;
    eprintln!("# {}: {again} blocks used again, {moved}", env.case);
    ensure!(again > 0, "no space was used again");
    ensure!(
        !env.module || moved.get("unlocked") > 0,
        "always locked: {moved}"
    );
    Ok(())
}

/// Another file system on the same devices, with the same addresses and
/// transactions, is another one.
fn made_again(env: &Env) -> Result<()> {
    if !env.module {
        return Err(skip("nothing is known"));
    }
    let before = Stats::read()?;
    let mut places = BTreeSet::new();
    let rounds = 4;
    for round in 0..rounds {
        let mut fs = Fs::make(env, &Spec::new("single", Csum::Crc32c))?;
        let mut model = Model::create(fs.path("file"))?;
        model.write_random(&mut env.rng(20 + round), 0, SIZE)?;
        fs.remount()?;
        read_all(&model, BLOCK)?;
        read_all(&model, BLOCK)?;
        places.extend(fiemap::extents(&model.file()?)?.iter().map(|e| e.logical));
        fs.umount()?;
    }
    matched(Some(&before))?;
    ensure!(places.len() < rounds as usize, "other addresses each time");
    Ok(())
}

/// What is written is read, however it is written, and whether or not what was
/// there before was known.
fn overwritten(env: &Env, csum: Csum) -> Result<()> {
    let fs = Fs::make(env, &Spec::new("raid0", csum))?;
    let mut model = Model::create(fs.path("file"))?;
    let mut rng = env.rng(30);
    model.write_random(&mut rng, 0, 64 * BLOCK)?;
    model.sync()?;
    let file = model::open_direct(&model.path)?;
    let before = Stats::look(env)?;
    for round in 0..env.scaled(600) as usize {
        let at = (round * 7 % 60) * BLOCK;
        let (offset, len) = (at as u64, (1 + round % 4) * BLOCK);
        match round % 3 {
            0 => model.write_random(&mut rng, offset, len)?,
            1 => model.write_direct(&mut rng, offset, len)?,
            _ => {}
        }
        match round % 16 {
            5 => fs.sync()?,
            11 => model.sync()?,
            _ => {}
        }
        let engine = Engine::ALL[round % Engine::ALL.len()];
        for via in [Via::Preadv, Via::Async(engine)] {
            let request = Request::pread(offset, len).via(via);
            read(&file, &request, &model.data[at..at + len])?;
        }
    }
    let moved = matched(before.as_ref())?;
    eprintln!("# {}: {moved}", env.case);
    ensure!(
        !env.module || moved.get("unlocked") > 0,
        "always locked: {moved}"
    );
    Ok(())
}

/// What a direct writer is about to write is seen as a whole or not at all, even
/// if half of it has arrived on the device already when the read begins.
fn half_written(env: &Env, csum: Csum) -> Result<()> {
    const SLOW: Duration = Duration::from_secs(1);
    const LEN: usize = 4 * BLOCK;

    let mapped = Mapped::new("diotest", &env.take(1)?[0])?;
    let mut fs = Fs::make_on(env, &Spec::new("single", csum), vec![mapped.path()])?;
    let mut model = Model::create(fs.path("file"))?;
    model.write(0, &[0; LEN])?;
    fs.sync()?;
    let file = model::open_direct(&model.path)?;
    let writer = race::open_direct_rw(&model.path)?;
    read(&file, &Request::pread(0, LEN), &model.data)?;
    let before = Stats::look(env)?;
    let (mut torn, mut halves) = (0, 0);
    for round in 1..=40u8 {
        if halves == 4 {
            break;
        }
        // Unless it is overwritten in place it is somewhere else each time.
        let extents = fiemap::extents(&model.file()?)?;
        let middle = extents.first().context("an extent")?.logical + LEN as u64 / 2;
        let place = Chunks::read(&fs.mnt)?.copies(middle)?[0];
        mapped.delay_writes_behind(place.offset, SLOW.as_millis() as u32)?;
        let engine = Engine::ALL[usize::from(round) % Engine::ALL.len()];
        let via = [Via::Preadv, Via::Async(engine)][halves % 2];
        let seen = std::thread::scope(|scope| -> Result<_> {
            let written = scope.spawn(|| -> Result<_> {
                let mut region = Region::new(LEN)?;
                region.bytes_mut().fill(round);
                race::write_at(&writer, region.bytes(), 0)
            });
            while !written.is_finished() && mapped.delayed_writes()? == 0 {}
            std::thread::sleep(SLOW / 20);
            halves += usize::from(!written.is_finished());
            let seen = Request::pread(0, LEN).via(via).perform(&file)?;
            written.join().expect("the writer ends")?;
            ensure!(matches!(seen.result, Ok(LEN)), "{:?}", seen.result);
            Ok(seen.bytes())
        })?;
        torn += u32::from(seen.iter().any(|byte| *byte != seen[0]));
        ensure!(
            seen.iter().all(|byte| [round - 1, round].contains(byte)),
            "round {round}: what was not written"
        );
        mapped.heal()?;
        fs.sync()?;
    }
    let moved = matched(before.as_ref())?;
    eprintln!("# {}: {moved}", env.case);
    ensure!(torn == 0, "{torn} reads saw half of what was written");
    ensure!(
        halves == 4,
        "only {halves} reads began where half was written"
    );
    drop((file, writer));
    fs.umount()
}
