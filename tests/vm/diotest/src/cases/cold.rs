// SPDX-License-Identifier: GPL-2.0

//! Reads whose checksums have to be read first, which is done while their data is
//! on its way already.

use super::Case;
use crate::aio::{self, Engine};
use crate::buffer::{BLOCK, Region};
use crate::device::Mapped;
use crate::env::Env;
use crate::fs::{self, CSUMS, Csum, Fs, Spec};
use crate::model::{self, Model};
use crate::race::{self, Arena, write_at};
use crate::read::{Request, Via};
use crate::stats::Stats;
use crate::sys;
use anyhow::{Context, Result, anyhow, ensure};
use std::fs::File;

/// Large enough for the shortest checksums to need more than the node of their
/// tree that is always in memory.
const SIZE: usize = 24 << 20;

pub fn cases(_: &Env) -> Vec<Case> {
    let checked = CSUMS
        .into_iter()
        .filter(|csum| !matches!(csum, Csum::NoDataSum | Csum::NoCow));
    let mut cases: Vec<Case> = checked
        .map(|csum| Case::new(csum.name(), move |env| known(env, csum)))
        .collect();
    cases.push(Case::new("pieces", pieces));
    cases.push(Case::new("overwritten", overwritten));
    cases.push(Case::new("unreadable", unreadable));
    cases.push(Case::new("absent", absent));
    cases
}

/// Reads what nothing is known of, and checks it.
fn read_cold(file: &File, request: &Request, want: &[u8]) -> Result<()> {
    sys::drop_caches()?;
    let verdict = request.perform(file)?.verify(request, want, true);
    verdict.map_err(|why| anyhow!("{request}: {why}"))
}

/// What moved: all was served, with checksums that came after the data was asked
/// for, and with the first look.
fn came_late(env: &Env, before: Option<&Stats>) -> Result<()> {
    let moved = Stats::all_served(before)?;
    eprintln!("# {}: {moved}", env.case);
    for name in ["csum_mismatches", "buffer_changed", "reread", "io_errors"] {
        ensure!(moved.get(name) == 0, "{name} moved: {moved}");
    }
    ensure!(
        !env.module || moved.get("csum_late") > 0,
        "always looked up before: {moved}"
    );
    Ok(())
}

/// In every way to read, of each length, with each checksum.
fn known(env: &Env, csum: Csum) -> Result<()> {
    let mut fs = Fs::make(env, &Spec::new("raid1", csum))?;
    let mut model = Model::create(fs.path("file"))?;
    model.write_random(&mut env.rng(1), 0, SIZE)?;
    fs.remount()?;
    let file = model::open_direct(&model.path)?;
    let before = Stats::look(env)?;
    let mut at = 0;
    for len in [BLOCK, 16 * BLOCK, 17 * BLOCK, 256 * BLOCK] {
        let engines = Engine::ALL.into_iter().map(Via::Async);
        for via in [Via::Preadv].into_iter().chain(engines) {
            at = (at + 1237 * BLOCK) % (SIZE - len);
            let request = Request::pread(at as u64, len).via(via);
            read_cold(&file, &request, &model.data[at..at + len])?;
        }
    }
    came_late(env, before.as_ref())
}

/// Windows of many extents: some of them compressed, some of them not, and holes.
fn pieces(env: &Env) -> Result<()> {
    let spec = Spec::new("raid0", Csum::Sha256).options("compress=lzo");
    let mut fs = Fs::make(env, &spec)?;
    let mut model = Model::create(fs.path("file"))?;
    let mut rng = env.rng(2);
    let len = 32 * BLOCK;
    for nr in 0..48 {
        let bytes = match nr % 3 {
            0 => model::random(&mut rng, len),
            1 => model::compressible(&mut rng, len),
            _ => continue,
        };
        model.write((nr * len) as u64, &bytes)?;
        model.sync()?;
    }
    fs.remount()?;
    let file = model::open_direct(&model.path)?;
    let before = Stats::look(env)?;
    for (first, count) in [(0, 48), (5, 7), (16, 3), (29, 16)] {
        let range = first * len + BLOCK..(first + count) * len - BLOCK;
        let end = range.end.min(model.data.len());
        let request = Request::pread(range.start as u64, end - range.start);
        read_cold(&file, &request, &model.data[range.start..end]).with_context(|| model.name())?;
    }
    came_late(env, before.as_ref())
}

/// While all is written anew, and its checksums with it, and nothing is kept in
/// memory.
fn overwritten(env: &Env) -> Result<()> {
    let mut fs = Fs::make(env, &Spec::new("raid1", Csum::Sha256))?;
    let mut filler = Model::create(fs.path("filler"))?;
    filler.write_random(&mut env.rng(3), 0, SIZE / 4)?;
    let arena = Arena::create(fs.path("raced"), 192)?;
    fs.sync()?;
    let file = arena.file()?;
    let before = Stats::look(env)?;
    race::run(env, &arena, 5, |call, rng| {
        let (first, count) = arena.range(rng, 24);
        arena.write(first, count, |bytes| {
            write_at(&file, bytes, (first * BLOCK) as u64)
        })?;
        if call % 2 == 0 {
            fs.sync()?;
        }
        sys::drop_caches()?;
        Ok(())
    })?;
    if let Some(before) = before {
        let moved = Stats::read()?.since(&before);
        ensure!(moved.get("csum_late") > 0, "always before: {moved}");
    }
    drop(file);
    race::settle(&mut fs, &arena)
}

/// If the checksums cannot be read, then neither can the data; once they can be,
/// all is as before.
fn unreadable(env: &Env) -> Result<()> {
    let mapped = [Mapped::new("diotest", &env.take(1)?[0])?];
    let spec = Spec::new("single", Csum::Sha256);
    let mut fs = Fs::make_on(env, &spec, vec![mapped[0].path()])?;
    let mut model = Model::create(fs.path("file"))?;
    model.write_random(&mut env.rng(4), 0, SIZE / 4)?;
    fs.remount()?;
    let file = model::open_direct(&model.path)?;
    let request = |at| Request::pread(at, 4 * BLOCK);
    // So that where it is has been known.
    read_cold(&file, &request(0), &model.data[..4 * BLOCK])?;
    for round in 1..5 {
        let at = round * SIZE / 32;
        sys::drop_caches()?;
        Mapped::cut(&mapped)?;
        let seen = request(at as u64).perform(&file);
        mapped[0].heal()?;
        let result = seen?.result;
        ensure!(
            matches!(result, Err(ref error) if error.raw_os_error() == Some(libc::EIO)),
            "read without any device: {result:?}"
        );
        let before = Stats::look(env)?;
        read_cold(&file, &request(at as u64), &model.data[at..at + 4 * BLOCK])?;
        came_late(env, before.as_ref())?;
    }
    drop(file);
    fs.umount()
}

/// One of the devices is not there: what could not be read from it is not taken for
/// read, even if the memory has it already.
fn absent(env: &Env) -> Result<()> {
    let mut fs = Fs::make(env, &Spec::new("raid5", Csum::Sha256))?;
    let mut model = Model::create(fs.path("file"))?;
    model.write_random(&mut env.rng(5), 0, SIZE)?;
    fs.umount()?;
    let _ = fs::run("btrfs", ["device", "scan", "--forget"]);
    fs.devices.pop();
    fs.spec.options = "degraded".into();
    fs.mount()?;
    let file = model::open_direct(&model.path)?;
    // A stripe, several times as many as there are devices.
    const LEN: usize = 16 * BLOCK;
    const STRIPES: usize = 12;
    let mut memory = Region::new(LEN)?;
    for (nr, engine) in Engine::ALL.into_iter().enumerate() {
        let before = Stats::look(env)?;
        for stripe in nr * STRIPES..(nr + 1) * STRIPES {
            let at = stripe * LEN;
            let want = &model.data[at..at + LEN];
            sys::drop_caches()?;
            memory.part_mut(0..LEN).copy_from_slice(want);
            let got = aio::read(engine, &file, &[memory.iovec(0..LEN)], at as u64);
            let got = got.with_context(|| format!("{} at {at}", engine.name()))?;
            ensure!(got == LEN && memory.part(0..LEN) == want, "{got} at {at}");
        }
        let moved = Stats::all_served(before.as_ref())?;
        let rebuilt = moved.get("rebuilt") as usize;
        ensure!(
            !env.module || rebuilt >= LEN / BLOCK && moved.get("csum_mismatches") == 0,
            "{}: {moved}",
            engine.name()
        );
    }
    drop(file);
    fs.umount()
}
