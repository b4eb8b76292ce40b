// SPDX-License-Identifier: GPL-2.0

//! Makes files of compressed extents of every shape, by a file system that is
//! mounted to compress, and makes sure that they are.

use crate::buffer::BLOCK;
use crate::env::Env;
use crate::fiemap::{self, Kind};
use crate::fs::{Csum, Fs, Spec};
use crate::model::{self, Model};
use crate::sys;
use anyhow::{Context, Result, ensure};
use rand::{RngExt, rngs::SmallRng, seq::SliceRandom};
use std::fs::File;

/// What btrfs compresses with.
pub const ALGORITHMS: [&str; 3] = ["zlib", "lzo", "zstd"];

const B: u64 = BLOCK as u64;
/// Most bytes that one extent holds, if compressed.
const EXTENT: usize = 128 << 10;

/// A file system that compresses all it can.
pub fn spec(profile: &str, csum: Csum, algorithm: &str) -> Spec {
    Spec::new(profile, csum).options(&format!("compress-force={algorithm}"))
}

#[repr(C)]
struct EncodedArgs {
    iov: *const libc::iovec,
    iovcnt: u64,
    offset: i64,
    flags: u64,
    len: u64,
    unencoded_len: u64,
    unencoded_offset: u64,
    compression: u32,
    encryption: u32,
    reserved: [u8; 64],
}

/// `BTRFS_IOC_ENCODED_WRITE`, `_IOW(0x94, 64, struct btrfs_ioctl_encoded_io_args)`.
const ENCODED_WRITE: u64 = 0x4080_9440;

/// Writes an extent of `len` bytes to the beginning of a file as the `stored`
/// bytes that it is compressed to, or that are said to be that.
pub fn write_encoded(file: &File, algorithm: &str, stored: &[u8], len: usize) -> Result<()> {
    let iov = libc::iovec {
        iov_base: stored.as_ptr().cast_mut().cast(),
        iov_len: stored.len(),
    };
    let mut args = EncodedArgs {
        iov: &iov,
        iovcnt: 1,
        offset: 0,
        flags: 0,
        len: len as u64,
        unencoded_len: len as u64,
        unencoded_offset: 0,
        compression: match algorithm {
            "zlib" => 1,
            "zstd" => 2,
            // Of pages of 4 KiB.
            _ => 3,
        },
        encryption: 0,
        reserved: [0; 64],
    };
    // SAFETY: The structure this request takes, with one vector, which it reads.
    let written = unsafe { sys::ioctl(file, ENCODED_WRITE, &mut args) };
    let written = written.context("BTRFS_IOC_ENCODED_WRITE")?;
    ensure!(
        written == stored.len(),
        "wrote {written} of {}",
        stored.len()
    );
    Ok(())
}

type Maker = fn(&Fs, &mut SmallRng) -> Result<Vec<Model>>;

/// Makers of files, and the kinds of extents these must have at least.
const SHAPES: [(&str, Maker, &[Kind]); 9] = [
    ("whole", whole, &[Kind::Compressed]),
    ("small", small, &[Kind::Compressed]),
    ("uneven", uneven, &[Kind::Compressed]),
    ("noise", noise, &[]),
    ("tails", tails, &[Kind::Compressed]),
    ("bookends", bookends, &[Kind::Compressed]),
    ("reflink", reflink, &[Kind::Compressed]),
    ("references", references, &[Kind::Compressed]),
    (
        "mix",
        mix,
        &[Kind::Compressed, Kind::Regular, Kind::Hole, Kind::Prealloc],
    ),
];

/// Makes files of all shapes, written out.
pub fn all(env: &Env, fs: &Fs) -> Result<Vec<Model>> {
    let mut files = Vec::new();
    for (salt, (name, make, kinds)) in SHAPES.iter().enumerate() {
        let made = make(fs, &mut env.rng(1000 + salt as u64))?;
        fs.sync()?;
        let mut found = Vec::new();
        for model in &made {
            let extents = fiemap::extents(&File::open(&model.path)?)?;
            let end = model.size().next_multiple_of(B);
            found.extend(fiemap::kinds(&extents, 0, end));
        }
        let all = kinds.iter().all(|k| found.contains(k));
        ensure!(all, "{name}: has only {found:?}");
        files.extend(made);
    }
    Ok(files)
}

fn file(fs: &Fs, name: impl Into<String>, bytes: &[u8]) -> Result<Model> {
    let mut file = Model::create(fs.path(name.into()))?;
    file.write(0, bytes)?;
    file.sync()?;
    Ok(file)
}

/// Full extents, and a tail.
fn whole(fs: &Fs, rng: &mut SmallRng) -> Result<Vec<Model>> {
    let len = 6 * EXTENT + rng.random_range(1..EXTENT);
    Ok(vec![file(fs, "whole", &model::compressible(rng, len))?])
}

/// Extents of every number of blocks up to some, in no order.
fn small(fs: &Fs, rng: &mut SmallRng) -> Result<Vec<Model>> {
    let mut file = Model::create(fs.path("small"))?;
    let mut blocks: Vec<usize> = (2..=32).collect();
    blocks.shuffle(rng);
    let mut at = 0;
    for blocks in blocks {
        let bytes = model::compressible(rng, blocks * BLOCK);
        file.write(at, &bytes)?;
        // A hole keeps it from being one extent with the next.
        at += (blocks as u64 + 1) * B;
    }
    file.sync()?;
    Ok(vec![file])
}

/// Of data that compresses here and not there, and of nothing but zeros.
fn uneven(fs: &Fs, rng: &mut SmallRng) -> Result<Vec<Model>> {
    let len = 1_000_000 + rng.random_range(0..10_000);
    let uneven = file(fs, "uneven", &model::uneven(rng, len))?;
    Ok(vec![uneven, file(fs, "zeros", &[0; 300_000])?])
}

/// That does not compress, although it was tried.
fn noise(fs: &Fs, rng: &mut SmallRng) -> Result<Vec<Model>> {
    Ok(vec![file(fs, "noise", &model::random(rng, 300_000))?])
}

/// Extents that go on past the end of the file, which was cut.
fn tails(fs: &Fs, rng: &mut SmallRng) -> Result<Vec<Model>> {
    let mut files = Vec::new();
    for (i, keep) in [5000, EXTENT, EXTENT + 1, 200_000, 2 * EXTENT + B as usize]
        .into_iter()
        .enumerate()
    {
        let bytes = model::compressible(rng, 4 * EXTENT);
        let mut file = file(fs, format!("tail{i}"), &bytes)?;
        file.truncate(keep as u64)?;
        if i % 2 == 0 {
            file.truncate(keep as u64 + 3 * B + 77)?;
        }
        file.sync()?;
        files.push(file);
    }
    Ok(files)
}

/// Extents of which overwrites, compressed or not, left parts.
fn bookends(fs: &Fs, rng: &mut SmallRng) -> Result<Vec<Model>> {
    let bytes = model::uneven(rng, 6 * EXTENT + 77);
    let mut file = file(fs, "bookends", &bytes)?;
    for i in 0..12 {
        let at = (i * 16 + rng.random_range(1..8)) * B;
        let blocks = rng.random_range(1..20);
        match i % 3 {
            0 => file.write_direct(rng, at, blocks * BLOCK)?,
            1 => file.punch(at, blocks as u64 * B)?,
            _ => {
                let bytes = model::compressible(rng, blocks * BLOCK + 100);
                file.write(at, &bytes)?;
            }
        }
        file.sync()?;
    }
    Ok(vec![file])
}

/// Parts of extents of another file, at other offsets.
fn reflink(fs: &Fs, rng: &mut SmallRng) -> Result<Vec<Model>> {
    let bytes = model::uneven(rng, 8 * EXTENT);
    let source = file(fs, "reflink-source", &bytes)?;
    let bytes = model::compressible(rng, 4 * EXTENT);
    let mut file = file(fs, "reflink", &bytes)?;
    for _ in 0..20 {
        let blocks = rng.random_range(1..48);
        let from = rng.random_range(0..256 - blocks) * B;
        let to = rng.random_range(0..200) * B;
        file.clone_from(&source, from, blocks * B, to)?;
    }
    file.sync()?;
    Ok(vec![source, file])
}

/// One extent over and over: whole, and each time another part of it.
fn references(fs: &Fs, rng: &mut SmallRng) -> Result<Vec<Model>> {
    let bytes = model::compressible(rng, EXTENT);
    let source = file(fs, "references-source", &bytes)?;
    let mut file = Model::create(fs.path("references"))?;
    let mut at = 0;
    for i in 0..24 {
        let (from, blocks) = match i % 4 {
            0 => (0, 32),
            _ => (rng.random_range(0..31), rng.random_range(1..=8)),
        };
        let blocks = blocks.min(32 - from);
        file.clone_from(&source, from * B, blocks * B, at)?;
        at += blocks * B;
    }
    file.sync()?;
    Ok(vec![source, file])
}

/// Everything in one file.
fn mix(fs: &Fs, rng: &mut SmallRng) -> Result<Vec<Model>> {
    let bytes = model::uneven(rng, 4 * EXTENT);
    let source = file(fs, "mix-source", &bytes)?;
    let mut file = Model::create(fs.path("mix"))?;
    let mut kinds: Vec<usize> = (0..36).map(|i| i % 6).collect();
    kinds.shuffle(rng);
    // Of a file in which something has been preallocated nothing more is compressed.
    let len = 16 * BLOCK;
    file.write(0, &model::compressible(rng, len))?;
    file.sync()?;
    let mut at = len as u64;
    for kind in kinds {
        let blocks = rng.random_range(2..24);
        let len = blocks as usize * BLOCK;
        match kind {
            0 => file.write(at, &model::compressible(rng, len))?,
            1 => file.write(at, &model::uneven(rng, len))?,
            2 => file.write_direct(rng, at, len)?,
            3 => file.preallocate(at, len as u64)?,
            4 => file.clone_from(&source, rng.random_range(0..80) * B, len as u64, at)?,
            _ => {}
        }
        at += len as u64;
    }
    file.truncate(at + 321)?;
    file.sync()?;
    Ok(vec![source, file])
}

/// Files small enough to live in the metadata, compressed there if that helps;
/// some were cut or grown since.
pub fn inline(fs: &Fs, rng: &mut SmallRng) -> Result<Vec<Model>> {
    let mut files = Vec::new();
    let mut sizes = vec![
        1, 40, 511, 512, 513, 1000, 2047, 2048, 2049, 3000, 4000, 4095, 4096,
    ];
    sizes.extend((0..6).map(|_| rng.random_range(2..4096)));
    for (i, size) in sizes.into_iter().enumerate() {
        let bytes = match i % 3 {
            0 | 1 => model::compressible(rng, size),
            _ => model::uneven(rng, size),
        };
        files.push(file(fs, format!("inline{i}-{size}"), &bytes)?);
    }
    for (i, size) in [10, 700, 1500, 4096, 9000].into_iter().enumerate() {
        let mut file = file(fs, format!("resized{i}"), &model::compressible(rng, 1400))?;
        file.truncate(size)?;
        file.sync()?;
        files.push(file);
    }
    fs.sync()?;
    let mut encoded = 0;
    for file in &files {
        let extents = fiemap::extents(&File::open(&file.path)?)?;
        let inline = |e: &&fiemap::Extent| e.kind == Kind::Inline && e.encoded;
        encoded += extents.iter().filter(inline).count();
    }
    ensure!(encoded > 5, "only {encoded} compressed inline extents");
    Ok(files)
}

/// Where in the file system's address space the first compressed extent is.
pub fn first(file: &Model) -> Result<fiemap::Extent> {
    let extents = fiemap::extents(&File::open(&file.path)?)?;
    let found = extents.into_iter().find(|e| e.kind == Kind::Compressed);
    found.with_context(|| format!("{}: no compressed extent", file.name()))
}
