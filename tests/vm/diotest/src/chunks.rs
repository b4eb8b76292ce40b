// SPDX-License-Identifier: GPL-2.0

//! Where on which device every copy of a byte is: the chunk tree, read with
//! `BTRFS_IOC_TREE_SEARCH_V2` and worked out here, independently of the kernel.

use crate::tree::{self, le16, le64};
use anyhow::{Context, Result, ensure};
use std::fs::File;
use std::path::Path;

/// A place on a device of a file system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// The device, counted from one in the order mkfs was given them.
    pub device: u64,
    pub offset: u64,
}

/// A chunk of the file system's address space.
#[derive(Debug)]
struct Chunk {
    start: u64,
    len: u64,
    flags: u64,
    sub_stripes: usize,
    stripes: Vec<Place>,
}

/// All chunks of a file system.
#[derive(Debug)]
pub struct Chunks(Vec<Chunk>);

const CHUNK_TREE: u64 = 3;
const CHUNKS_OWNER: u64 = 256;
const CHUNK_ITEM: u32 = 228;
const STRIPE_LEN: u64 = 64 << 10;
const RAID0: u64 = 1 << 3;
const RAID10: u64 = 1 << 6;
const PARITY: u64 = 3 << 7;
const RAID6: u64 = 1 << 8;
/// RAID1, DUP, RAID1C3 and RAID1C4.
const COPIES: u64 = 1 << 4 | 1 << 5 | 3 << 9;

impl Chunk {
    fn parse(start: u64, item: &[u8]) -> Result<Self> {
        let stripe = |i: usize| {
            let at = 48 + i * 32;
            Ok(Place {
                device: le64(item, at)?,
                offset: le64(item, at + 8)?,
            })
        };
        Ok(Self {
            start,
            len: le64(item, 0)?,
            flags: le64(item, 24)?,
            sub_stripes: le16(item, 46)?,
            stripes: (0..le16(item, 44)?).map(stripe).collect::<Result<_>>()?,
        })
    }

    /// Every copy of the byte at `within` this chunk, in the order of mirrors.
    fn copies(&self, within: u64) -> Result<Vec<Place>> {
        let stripes = self.stripes.as_slice();
        if self.flags & PARITY != 0 {
            return Ok(self.row(within)[..1].to_vec());
        }
        let (stripe, rest) = (within / STRIPE_LEN, within % STRIPE_LEN);
        let (sources, offset) = if self.flags & RAID10 != 0 {
            let pairs = (stripes.len() / self.sub_stripes) as u64;
            let first = (stripe % pairs) as usize * self.sub_stripes;
            let row = stripe / pairs * STRIPE_LEN;
            (&stripes[first..first + self.sub_stripes], row + rest)
        } else if self.flags & RAID0 != 0 {
            let devices = stripes.len() as u64;
            let device = (stripe % devices) as usize;
            let row = stripe / devices * STRIPE_LEN;
            (&stripes[device..=device], row + rest)
        } else if self.flags & COPIES != 0 {
            (stripes, within)
        } else {
            (&stripes[..1], within)
        };
        let place = |s: &Place| Place {
            device: s.device,
            offset: s.offset + offset,
        };
        Ok(sources.iter().map(place).collect())
    }
}

impl Chunk {
    /// What of each device goes with the byte at `within` this chunk of parity:
    /// the byte itself, then the others of its row of data, then the parities.
    fn row(&self, within: u64) -> Vec<Place> {
        let (stripe, rest) = (within / STRIPE_LEN, within % STRIPE_LEN);
        let all = self.stripes.len() as u64;
        let parities = if self.flags & RAID6 != 0 { 2 } else { 1 };
        let data = all - parities;
        let (row, own) = (stripe / data, stripe % data);
        let others = (0..all).filter(|n| *n != own);
        let places = std::iter::once(own).chain(others).map(|n| {
            let s = &self.stripes[((n + row) % all) as usize];
            Place {
                device: s.device,
                offset: s.offset + row * STRIPE_LEN + rest,
            }
        });
        places.collect()
    }
}

impl Chunks {
    /// Reads the chunk tree of the file system mounted at `mnt`.
    pub fn read(mnt: &Path) -> Result<Self> {
        let items = tree::items(&File::open(mnt)?, CHUNK_TREE, CHUNKS_OWNER, CHUNK_ITEM)?;
        let chunks = items
            .iter()
            .map(|item| Chunk::parse(item.offset, &item.bytes));
        let chunks = chunks.collect::<Result<_>>()?;
        Ok(Self(chunks))
    }

    /// The byte at `logical`, and what there is on the other devices to rebuild it
    /// of: data first, then parity.
    pub fn row(&self, logical: u64) -> Result<Vec<Place>> {
        let chunk = self.at(logical)?;
        ensure!(chunk.flags & PARITY != 0, "no parity at {logical}");
        Ok(chunk.row(logical - chunk.start))
    }

    fn at(&self, logical: u64) -> Result<&Chunk> {
        let within = |c: &&Chunk| (c.start..c.start + c.len).contains(&logical);
        let chunk = self.0.iter().find(within);
        chunk.with_context(|| format!("no chunk at {logical}"))
    }

    /// Every copy of the byte at `logical`, in the order of mirrors.
    pub fn copies(&self, logical: u64) -> Result<Vec<Place>> {
        let chunk = self.at(logical)?;
        chunk.copies(logical - chunk.start)
    }
}
