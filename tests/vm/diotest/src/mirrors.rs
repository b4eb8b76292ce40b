// SPDX-License-Identifier: GPL-2.0

//! Which task reads which copy, and files with a copy that went bad.

use crate::buffer::BLOCK;
use crate::chunks::{Chunks, Place};
use crate::device;
use crate::fiemap;
use crate::fs::{self, Fs};
use crate::model::Model;
use crate::sys;
use anyhow::{Context, Result, ensure};
use std::fs::File;
use std::ops::Range;
use std::sync::Mutex;

/// Runs `f` in a thread whose id, divided by `copies`, leaves `copy`: btrfs reads
/// that copy for it, and so does the module under the policy `fs`.
pub fn as_reader_of<T: Send>(
    copies: u32,
    copy: u32,
    f: impl FnOnce() -> Result<T> + Send,
) -> Result<T> {
    let f = Mutex::new(Some(f));
    for _ in 0..1000 {
        let done = std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                if sys::gettid() % copies != copy {
                    return None;
                }
                let f = f.lock().ok()?.take()?;
                Some(f())
            });
            thread.join().expect("a reader that does not panic")
        });
        if let Some(result) = done {
            return result;
        }
    }
    anyhow::bail!("no thread got an id of residue {copy} modulo {copies}")
}

/// A file, with the places of every copy of every block of it.
pub struct Placed {
    /// Copies of each block, in the order of mirrors.
    pub blocks: Vec<Vec<Place>>,
}

impl Placed {
    /// Looks up a file of plain extents and makes sure, on the devices, that
    /// its copies are there.
    pub fn find(fs: &Fs, model: &Model) -> Result<Self> {
        fs.sync()?;
        let extents = fiemap::extents(&File::open(&model.path)?)?;
        let chunks = Chunks::read(&fs.mnt)?;
        let mut blocks = Vec::new();
        for (i, bytes) in model.data.chunks(BLOCK).enumerate() {
            let offset = (i * BLOCK) as u64;
            let logical = fiemap::logical(&extents, offset).context("a plain extent")?;
            let copies = chunks.copies(logical)?;
            if i == 0 || i + 1 == model.data.len() / BLOCK {
                for place in &copies {
                    let found = device::read_block(fs, place)?;
                    ensure!(found.starts_with(bytes), "block {i} is not at {place:?}");
                }
            }
            blocks.push(copies);
        }
        Ok(Self { blocks })
    }

    /// Makes each copy of some blocks what it should be, or `Some(junk)`.
    /// Unmounts for that.
    pub fn lay(
        &self,
        fs: &mut Fs,
        model: &Model,
        blocks: Range<usize>,
        copies: &[Option<u8>],
    ) -> Result<()> {
        fs.umount()?;
        for i in blocks {
            for (place, junk) in self.blocks[i].iter().zip(copies) {
                match junk {
                    Some(junk) => device::write_block(fs, place, &[*junk; BLOCK])?,
                    None => device::write_block(fs, place, &model.data[i * BLOCK..][..BLOCK])?,
                }
            }
        }
        fs.mount()
    }

    /// Makes one copy of some blocks junk, and all others what they should be.
    pub fn spoil(
        &self,
        fs: &mut Fs,
        model: &Model,
        blocks: Range<usize>,
        bad: usize,
    ) -> Result<()> {
        let copies = self.blocks[0].len();
        let lain: Vec<_> = (0..copies).map(|c| (c == bad).then_some(0xbb)).collect();
        self.lay(fs, model, blocks, &lain)
    }

    /// Whether that copy of these blocks is what the file holds.
    pub fn sound(&self, fs: &Fs, model: &Model, blocks: Range<usize>, copy: usize) -> Result<bool> {
        for i in blocks {
            let want = &model.data[i * BLOCK..(i + 1) * BLOCK];
            if device::read_block(fs, &self.blocks[i][copy])? != want {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

/// What `btrfs device stats` says that is not zero, per device and kind.
pub fn device_stats(fs: &Fs) -> Result<Vec<String>> {
    let text = fs::run("btrfs", ["device", "stats", fs::path(&fs.mnt)])?;
    let lines = text
        .lines()
        .map(|l| l.split_whitespace().collect::<Vec<_>>().join(" "));
    Ok(lines.filter(|l| !l.ends_with(" 0")).collect())
}
