// SPDX-License-Identifier: GPL-2.0

//! Makes files of every kind of extent, and makes sure that they are of it.

use crate::buffer::BLOCK;
use crate::env::Env;
use crate::fiemap::{self, Kind};
use crate::fs::{self, Csum, Fs};
use crate::model::Model;
use anyhow::{Result, ensure};
use rand::{RngExt, rngs::SmallRng, seq::SliceRandom};

/// What makes files of one kind.
pub type Maker = fn(&Fs, &mut SmallRng) -> Result<Vec<Model>>;

/// Every kind of file that is served directly.
pub const KINDS: [(&str, Maker, &[Kind]); 10] = [
    ("plain", plain, &[Kind::Regular]),
    ("hole", hole, &[Kind::Regular, Kind::Hole]),
    ("prealloc", prealloc, &[Kind::Prealloc]),
    (
        "halfwritten",
        half_written,
        &[Kind::Regular, Kind::Prealloc],
    ),
    ("inline", inline, &[Kind::Inline]),
    ("fragments", fragments, &[Kind::Regular]),
    ("reflink", reflink, &[Kind::Regular]),
    ("snapshot", snapshot, &[Kind::Regular]),
    ("bookends", bookends, &[Kind::Regular]),
    ("mix", mix, &[Kind::Regular, Kind::Hole, Kind::Prealloc]),
];

const B: u64 = BLOCK as u64;

/// Makes files of all kinds, written out.
pub fn all(env: &Env, fs: &Fs) -> Result<Vec<Model>> {
    let mut files = Vec::new();
    for (salt, (name, make, kinds)) in KINDS.iter().enumerate() {
        let made = make(fs, &mut env.rng(salt as u64))?;
        fs.sync()?;
        for model in &made {
            let extents = fiemap::extents(&std::fs::File::open(&model.path)?)?;
            let end = model.size().next_multiple_of(B);
            let found = fiemap::kinds(&extents, 0, end);
            // Files without copy on write are never stored inline.
            let all = kinds
                .iter()
                .all(|k| found.contains(k) || *k == Kind::Inline && fs.spec.csum == Csum::NoCow);
            ensure!(all, "{name}: {} has only {found:?}", model.name());
        }
        files.extend(made);
    }
    Ok(files)
}

/// One or a few large extents and an unaligned end.
fn plain(fs: &Fs, rng: &mut SmallRng) -> Result<Vec<Model>> {
    let mut file = Model::create(fs.path("plain"))?;
    let len = rng.random_range(1 << 20..3 << 20);
    file.write_random(rng, 0, len)?;
    file.sync()?;
    Ok(vec![file])
}

/// Islands of data, the last hole reaching past the last of them.
fn hole(fs: &Fs, rng: &mut SmallRng) -> Result<Vec<Model>> {
    let mut file = Model::create(fs.path("hole"))?;
    let mut at = rng.random_range(0..8) * B;
    for _ in 0..6 {
        let len = rng.random_range(1..20) * BLOCK;
        file.write_random(rng, at, len)?;
        at += len as u64 + rng.random_range(1..60) * B;
    }
    file.truncate(at + rng.random_range(1..4096))?;
    file.sync()?;
    Ok(vec![file])
}

/// Preallocated extents over space that other files used before.
fn prealloc(fs: &Fs, rng: &mut SmallRng) -> Result<Vec<Model>> {
    dirty_space(fs, rng)?;
    let mut file = Model::create(fs.path("prealloc"))?;
    file.preallocate(0, 1 << 20)?;
    file.preallocate(1 << 20, rng.random_range(1..1 << 19))?;
    file.preallocate_beyond(2 << 20, 1 << 16)?;
    file.sync()?;
    Ok(vec![file])
}

/// Preallocated, then written here and there, also in parts of blocks.
fn half_written(fs: &Fs, rng: &mut SmallRng) -> Result<Vec<Model>> {
    dirty_space(fs, rng)?;
    let mut file = Model::create(fs.path("halfwritten"))?;
    file.preallocate(0, 1 << 20)?;
    for _ in 0..8 {
        let at = rng.random_range(0..200) * B;
        let len = rng.random_range(1..16) * BLOCK;
        file.write_random(rng, at, len)?;
    }
    file.write_random(rng, 240 * B + 100, 5000)?;
    file.sync()?;
    Ok(vec![file])
}

/// Junk that is deleted again, so that what comes next gets used space.
fn dirty_space(fs: &Fs, rng: &mut SmallRng) -> Result<()> {
    let mut junk = Model::create(fs.path("junk"))?;
    junk.write_random(rng, 0, 4 << 20)?;
    junk.sync()?;
    std::fs::remove_file(&junk.path)?;
    fs.sync()
}

/// Small files that live in the metadata.
fn inline(fs: &Fs, rng: &mut SmallRng) -> Result<Vec<Model>> {
    let mut files = Vec::new();
    let mut sizes = vec![1, 511, 512, 513, 1024, 2047, 2048];
    sizes.extend((0..3).map(|_| rng.random_range(2..2048)));
    for (i, size) in sizes.into_iter().enumerate() {
        let mut file = Model::create(fs.path(format!("inline{i}-{size}")))?;
        file.write_random(rng, 0, size)?;
        file.sync()?;
        files.push(file);
    }
    Ok(files)
}

/// Many small extents, in no order on disk.
fn fragments(fs: &Fs, rng: &mut SmallRng) -> Result<Vec<Model>> {
    let mut file = Model::create(fs.path("fragments"))?;
    let mut order: Vec<u64> = (0..96).collect();
    order.shuffle(rng);
    for slot in order {
        let blocks = rng.random_range(1..=4);
        // Slots overlap: what is left of an extent may be any part of it.
        file.write_direct(rng, slot * 3 * B, blocks * BLOCK)?;
    }
    file.sync()?;
    Ok(vec![file])
}

/// Parts of another file, shared at other offsets, some of them twice.
fn reflink(fs: &Fs, rng: &mut SmallRng) -> Result<Vec<Model>> {
    let mut source = Model::create(fs.path("reflink-source"))?;
    source.write_random(rng, 0, 1 << 20)?;
    source.sync()?;
    let mut file = Model::create(fs.path("reflink"))?;
    file.write_random(rng, 0, 1 << 19)?;
    file.sync()?;
    for _ in 0..10 {
        let blocks = rng.random_range(1..32);
        let from = rng.random_range(0..256 - blocks) * B;
        let to = rng.random_range(0..300) * B;
        file.clone_from(&source, from, blocks * B, to)?;
    }
    file.sync()?;
    Ok(vec![source, file])
}

/// A file shared with a snapshot and then changed.
fn snapshot(fs: &Fs, rng: &mut SmallRng) -> Result<Vec<Model>> {
    let (sub, snap) = (fs.path("sub"), fs.path("snap"));
    fs::run("btrfs", ["subvolume", "create", fs::path(&sub)])?;
    if fs.spec.csum == Csum::NoCow {
        fs::run("chattr", ["+C", fs::path(&sub)])?;
    }
    let mut file = Model::create(sub.join("origin"))?;
    file.write_random(rng, 0, (1 << 20) - 1234)?;
    file.sync()?;
    fs::run(
        "btrfs",
        [
            "subvolume",
            "snapshot",
            "-r",
            fs::path(&sub),
            fs::path(&snap),
        ],
    )?;
    let old = file.twin(snap.join("origin"));
    for _ in 0..10 {
        let at = rng.random_range(0..900_000);
        let len = rng.random_range(1..40_000);
        file.write_random(rng, at, len)?;
        file.sync()?;
    }
    Ok(vec![old, file])
}

/// Large extents of which overwrites left only the ends.
fn bookends(fs: &Fs, rng: &mut SmallRng) -> Result<Vec<Model>> {
    let mut file = Model::create(fs.path("bookends"))?;
    file.write_random(rng, 0, (1 << 20) + 77)?;
    file.sync()?;
    for i in 0..8 {
        let at = (i * 32 + rng.random_range(1..8)) * B;
        let len = rng.random_range(1..20) * BLOCK;
        file.write_random(rng, at, len)?;
        file.sync()?;
    }
    Ok(vec![file])
}

/// All of it in one file.
fn mix(fs: &Fs, rng: &mut SmallRng) -> Result<Vec<Model>> {
    dirty_space(fs, rng)?;
    let mut source = Model::create(fs.path("mix-source"))?;
    source.write_random(rng, 0, 1 << 18)?;
    source.sync()?;
    let mut file = Model::create(fs.path("mix"))?;
    let mut at = 0;
    let mut kinds: Vec<usize> = (0..30).map(|i| i % 6).collect();
    kinds.shuffle(rng);
    for kind in kinds {
        let blocks = rng.random_range(1..24);
        let len = blocks as usize * BLOCK;
        match kind {
            0 => file.write_random(rng, at, len)?,
            1 => file.write_direct(rng, at, len)?,
            2 => file.preallocate(at, len as u64)?,
            3 => {
                file.preallocate(at, len as u64)?;
                file.write_random(rng, at + blocks / 2 * B, BLOCK)?;
            }
            4 => file.clone_from(&source, rng.random_range(0..40) * B, len as u64, at)?,
            _ => {}
        }
        at += len as u64;
    }
    file.truncate(at + 321)?;
    file.punch(at / 2 / B * B, 3 * B)?;
    file.sync()?;
    Ok(vec![file])
}
