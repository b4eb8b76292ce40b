// SPDX-License-Identifier: GPL-2.0

//! Direct readers against everything that changes a file, shares it or moves
//! it: no reader ever sees bytes that were not there while it read.

use super::Case;
use crate::blocks::WORDS;
use crate::buffer::{BLOCK, Region};
use crate::env::Env;
use crate::fs::{self, Csum, Fs, Spec};
use crate::model::{clone_range, dedupe_range};
use crate::race::{self, Arena, open_direct_rw, write_at};
use crate::sys;
use anyhow::Result;
use rand::{RngExt, rngs::SmallRng};
use std::fs::File;

/// Blocks of the file that is raced for.
const BLOCKS: usize = 192;
const B: u64 = BLOCK as u64;
/// Seconds of each race.
const SECONDS: u32 = 5;

pub fn cases(_: &Env) -> Vec<Case> {
    vec![
        Case::new("truncate", |env| truncate(env, Csum::Crc32c)),
        Case::new("truncate_unaligned", truncate_unaligned),
        Case::new("punch", |env| punch(env, Csum::Crc32c)),
        Case::new("overwrite", |env| overwrite(env, Fsync::Never)),
        Case::new("overwrite_fsync", |env| overwrite(env, Fsync::Always)),
        Case::new("overwrite_direct", |env| {
            overwrite_direct(env, Csum::Crc32c)
        }),
        Case::new("prealloc", prealloc),
        Case::new("mmap", mmap),
        Case::new("clone", |env| clone(env, Csum::Crc32c)),
        Case::new("dedupe", dedupe),
        Case::new("defrag", defrag),
        Case::new("snapshot", snapshot),
        Case::new("sync", sync),
        Case::new("drop_caches", drop_caches),
        Case::new("balance", |env| balance(env, Csum::Crc32c)),
        Case::new("replace", replace),
        Case::new("add_and_remove", add_and_remove),
        Case::new("scrub", scrub),
        // Without checksums only the extent map tells that space was given away.
        Case::new("nodatasum_truncate", |env| truncate(env, Csum::NoDataSum)),
        Case::new("nodatasum_punch", |env| punch(env, Csum::NoDataSum)),
        Case::new("nodatasum_overwrite_direct", |env| {
            overwrite_direct(env, Csum::NoDataSum)
        }),
        Case::new("nodatasum_clone", |env| clone(env, Csum::NoDataSum)),
        Case::new("nodatasum_balance", |env| balance(env, Csum::NoDataSum)),
        // Written in place: only the lock that direct writers take tells.
        Case::new("nocow_overwrite_direct", |env| {
            overwrite_direct(env, Csum::NoCow)
        }),
        Case::new("nocow_balance", |env| balance(env, Csum::NoCow)),
    ]
}

fn make(env: &Env, csum: Csum) -> Result<(Fs, Arena)> {
    let fs = Fs::make(env, &Spec::new("raid1", csum))?;
    let arena = Arena::create(fs.path("raced"), BLOCKS)?;
    Ok((fs, arena))
}

/// Writes the next version of some blocks through the page cache.
fn write_some(arena: &Arena, file: &File, rng: &mut SmallRng) -> Result<()> {
    let (first, count) = arena.range(rng, 24);
    arena.write(first, count, |bytes| {
        write_at(file, bytes, first as u64 * B)
    })
}

/// Cut down to whole blocks and grown again; then written again.
fn truncate(env: &Env, csum: Csum) -> Result<()> {
    resize(env, csum, false)
}

/// Cut in the middle of a block.
fn truncate_unaligned(env: &Env) -> Result<()> {
    resize(env, Csum::Crc32c, true)
}

fn resize(env: &Env, csum: Csum, unaligned: bool) -> Result<()> {
    let (mut fs, mut arena) = make(env, csum)?;
    arena.zeros = true;
    arena.cut = unaligned;
    let file = arena.file()?;
    race::run(env, &arena, SECONDS, |_, rng| {
        let keep = rng.random_range(0..BLOCKS);
        let words = if unaligned {
            rng.random_range(1..WORDS as u64)
        } else {
            0
        };
        arena.zero(keep, BLOCKS - keep, || {
            arena.resize(&file, keep as u64 * B + words * 8)?;
            arena.resize(&file, BLOCKS as u64 * B)
        })?;
        let count = rng.random_range(1..=BLOCKS - keep);
        arena.write(keep, count, |bytes| write_at(&file, bytes, keep as u64 * B))
    })?;
    drop(file);
    race::settle(&mut fs, &arena)
}

fn punch(env: &Env, csum: Csum) -> Result<()> {
    let (mut fs, mut arena) = make(env, csum)?;
    arena.zeros = true;
    let file = arena.file()?;
    let mode = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
    race::run(env, &arena, SECONDS, |call, rng| {
        // Holes of a page or two, too: those a reader's large folio spans.
        let most = if call % 2 == 0 { 2 } else { 24 };
        let (first, count) = arena.range(rng, most);
        arena.zero(first, count, || {
            sys::fallocate(&file, mode, first as u64 * B, count as u64 * B)?;
            Ok(())
        })?;
        write_some(&arena, &file, rng)
    })?;
    drop(file);
    race::settle(&mut fs, &arena)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Fsync {
    Never,
    Always,
}

fn overwrite(env: &Env, fsync: Fsync) -> Result<()> {
    let (mut fs, arena) = make(env, Csum::Crc32c)?;
    let file = arena.file()?;
    race::run(env, &arena, SECONDS, |_, rng| {
        write_some(&arena, &file, rng)?;
        if fsync == Fsync::Always {
            file.sync_all()?;
        }
        Ok(())
    })?;
    drop(file);
    race::settle(&mut fs, &arena)
}

/// Writes the next version of some blocks past the page cache.
fn write_directly(arena: &Arena, file: &File, rng: &mut SmallRng) -> Result<()> {
    let (first, count) = arena.range(rng, 24);
    let mut region = Region::new(count * BLOCK)?;
    arena.write(first, count, |bytes| {
        region.bytes_mut().copy_from_slice(bytes);
        write_at(file, region.bytes(), first as u64 * B)
    })
}

fn overwrite_direct(env: &Env, csum: Csum) -> Result<()> {
    let (mut fs, mut arena) = make(env, csum)?;
    // What the page cache writes in place, no lock keeps from readers, and a
    // device may split their requests in the midst of a block.
    arena.cached = csum != Csum::NoCow;
    let file = open_direct_rw(&arena.path)?;
    race::run(env, &arena, SECONDS, |_, rng| {
        write_directly(&arena, &file, rng)
    })?;
    drop(file);
    race::settle(&mut fs, &arena)
}

/// Holes that are preallocated, and preallocated space that is written.
fn prealloc(env: &Env) -> Result<()> {
    let (mut fs, mut arena) = make(env, Csum::Crc32c)?;
    arena.zeros = true;
    let (file, direct) = (arena.file()?, open_direct_rw(&arena.path)?);
    let hole = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
    race::run(env, &arena, SECONDS, |_, rng| {
        let (first, count) = arena.range(rng, 48);
        let (offset, len) = (first as u64 * B, count as u64 * B);
        arena.zero(first, count, || {
            sys::fallocate(&file, hole, offset, len)?;
            sys::fallocate(&file, 0, offset, len)?;
            Ok(())
        })?;
        write_directly(&arena, &direct, rng)?;
        write_some(&arena, &file, rng)
    })?;
    drop((file, direct));
    race::settle(&mut fs, &arena)
}

/// Stores to mapped pages, sometimes followed by msync(2).
fn mmap(env: &Env) -> Result<()> {
    let (mut fs, mut arena) = make(env, Csum::Crc32c)?;
    arena.mixed = true;
    let file = arena.file()?;
    let mut region = Region::of_file(&file, BLOCKS * BLOCK)?;
    race::run(env, &arena, SECONDS, |call, rng| {
        let (first, count) = arena.range(rng, 8);
        arena.write(first, count, |bytes| {
            region.bytes_mut()[first * BLOCK..][..bytes.len()].copy_from_slice(bytes);
            Ok(())
        })?;
        if call % 2 == 0 {
            // For a shared mapping the same as msync(2) of it.
            file.sync_data()?;
        }
        Ok(())
    })?;
    drop((region, file));
    race::settle(&mut fs, &arena)
}

/// Extents replaced by those of another file.
fn clone(env: &Env, csum: Csum) -> Result<()> {
    let (mut fs, arena) = make(env, csum)?;
    let file = arena.file()?;
    let path = fs.path("source");
    File::create_new(&path)?.set_len(BLOCKS as u64 * B)?;
    let source = File::options().read(true).write(true).open(&path)?;
    race::run(env, &arena, SECONDS, |_, rng| {
        let (first, count) = arena.range(rng, 48);
        let (offset, len) = (first as u64 * B, count as u64 * B);
        arena.write(first, count, |bytes| {
            write_at(&source, bytes, offset)?;
            clone_range(&source, offset, len, &file, offset)
        })
    })?;
    drop((file, source));
    race::settle(&mut fs, &arena)
}

/// Extents replaced by equal ones.
fn dedupe(env: &Env) -> Result<()> {
    let (mut fs, arena) = make(env, Csum::Crc32c)?;
    let file = arena.file()?;
    let path = fs.path("equal");
    std::fs::copy(&arena.path, &path)?;
    let equal = File::options().read(true).write(true).open(&path)?;
    let mut deduped = 0;
    race::run(env, &arena, SECONDS, |_, rng| {
        let (first, count) = arena.range(rng, 48);
        let (offset, len) = (first as u64 * B, count as u64 * B);
        // New extents of the same bytes for the other file.
        let bytes: Vec<u8> = {
            let mut bytes = vec![0; count * BLOCK];
            for (i, block) in bytes.chunks_exact_mut(BLOCK).enumerate() {
                arena.version(first + i, 1).fill(block);
            }
            bytes
        };
        write_at(&equal, &bytes, offset)?;
        equal.sync_all()?;
        deduped += dedupe_range(&equal, &file, offset, len)?;
        Ok(())
    })?;
    anyhow::ensure!(deduped > 0, "nothing was deduplicated");
    drop((file, equal));
    race::settle(&mut fs, &arena)
}

fn defrag(env: &Env) -> Result<()> {
    let (mut fs, arena) = make(env, Csum::Crc32c)?;
    let direct = open_direct_rw(&arena.path)?;
    race::run(env, &arena, SECONDS, |_, rng| {
        for _ in 0..8 {
            write_directly(&arena, &direct, rng)?;
        }
        let path = fs::path(&arena.path);
        fs::run(
            "btrfs",
            ["filesystem", "defragment", "-f", "-t", "32M", path],
        )
        .map(drop)
    })?;
    drop(direct);
    race::settle(&mut fs, &arena)
}

/// Snapshots taken and deleted while the file is written.
fn snapshot(env: &Env) -> Result<()> {
    let fs = Fs::make(env, &Spec::new("raid1", Csum::Crc32c))?;
    let (sub, snap) = (fs.path("sub"), fs.path("snap"));
    fs::run("btrfs", ["subvolume", "create", fs::path(&sub)])?;
    let arena = Arena::create(sub.join("raced"), BLOCKS)?;
    let file = arena.file()?;
    race::run(env, &arena, SECONDS, |_, rng| {
        write_some(&arena, &file, rng)?;
        fs::run(
            "btrfs",
            ["subvolume", "snapshot", fs::path(&sub), fs::path(&snap)],
        )?;
        write_some(&arena, &file, rng)?;
        fs::run("btrfs", ["subvolume", "delete", fs::path(&snap)]).map(drop)
    })?;
    drop(file);
    let mut fs = fs;
    race::settle(&mut fs, &arena)
}

/// Commits, one after the other.
fn sync(env: &Env) -> Result<()> {
    let (mut fs, arena) = make(env, Csum::Crc32c)?;
    let file = arena.file()?;
    race::run(env, &arena, SECONDS, |_, rng| {
        write_some(&arena, &file, rng)?;
        fs.sync()
    })?;
    drop(file);
    race::settle(&mut fs, &arena)
}

/// Extent maps and tree blocks that are gone all the time.
fn drop_caches(env: &Env) -> Result<()> {
    let (mut fs, arena) = make(env, Csum::Crc32c)?;
    let file = arena.file()?;
    race::run(env, &arena, SECONDS, |call, rng| {
        if call % 4 == 0 {
            write_some(&arena, &file, rng)?;
        }
        Ok(sys::drop_caches()?)
    })?;
    drop(file);
    race::settle(&mut fs, &arena)
}

/// Converted from profile to profile.
fn balance(env: &Env, csum: Csum) -> Result<()> {
    let devices = env.take(4)?.to_vec();
    let mut fs = Fs::make_on(env, &Spec::new("raid1", csum), devices)?;
    let arena = Arena::create(fs.path("raced"), BLOCKS)?;
    let profiles = ["raid0", "raid10", "single", "raid1c3", "raid1"];
    race::run(env, &arena, 2 * SECONDS, |call, _| {
        let convert = format!("-dconvert={}", profiles[call as usize % profiles.len()]);
        fs.btrfs(["balance", "start", "-f", &convert]).map(drop)
    })?;
    race::settle(&mut fs, &arena)
}

/// One device replaced by another, and back.
fn replace(env: &Env) -> Result<()> {
    let disks = env.take(3)?.to_vec();
    let mut fs = Fs::make(env, &Spec::new("raid1", Csum::Crc32c))?;
    let arena = Arena::create(fs.path("raced"), BLOCKS)?;
    let mut spare = 2;
    let mut current = 1;
    let file = arena.file()?;
    race::run(env, &arena, 2 * SECONDS, |_, rng| {
        write_some(&arena, &file, rng)?;
        let (from, to) = (fs::path(&disks[current]), fs::path(&disks[spare]));
        fs.btrfs(["replace", "start", "-B", "-f", from, to])?;
        std::mem::swap(&mut spare, &mut current);
        Ok(())
    })?;
    drop(file);
    fs.devices = vec![disks[0].clone(), disks[current].clone()];
    race::settle(&mut fs, &arena)
}

/// One device added, another one removed, and what is on it moved away.
fn add_and_remove(env: &Env) -> Result<()> {
    let disks = env.take(3)?.to_vec();
    let mut fs = Fs::make(env, &Spec::new("raid1", Csum::Crc32c))?;
    let arena = Arena::create(fs.path("raced"), BLOCKS)?;
    let (mut spare, mut leaves) = (2, 1);
    let file = arena.file()?;
    race::run(env, &arena, 2 * SECONDS, |_, rng| {
        write_some(&arena, &file, rng)?;
        fs.btrfs(["device", "add", "-f", fs::path(&disks[spare])])?;
        write_some(&arena, &file, rng)?;
        fs.btrfs(["device", "remove", fs::path(&disks[leaves])])?;
        std::mem::swap(&mut spare, &mut leaves);
        Ok(())
    })?;
    drop(file);
    fs.devices = vec![disks[0].clone(), disks[leaves].clone()];
    race::settle(&mut fs, &arena)
}

fn scrub(env: &Env) -> Result<()> {
    let (mut fs, arena) = make(env, Csum::Crc32c)?;
    let file = arena.file()?;
    race::run(env, &arena, SECONDS, |_, rng| {
        write_some(&arena, &file, rng)?;
        fs.btrfs(["scrub", "start", "-B"]).map(drop)
    })?;
    drop(file);
    race::settle(&mut fs, &arena)
}
