// SPDX-License-Identifier: GPL-2.0

//! Which extents a file has, and of which kind: `FS_IOC_FIEMAP`.

use crate::sys;
use anyhow::{Context, Result, ensure};
use std::fs::File;

/// What an extent is, in the words of the module's counters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    Regular,
    Inline,
    Hole,
    Prealloc,
    Compressed,
}

impl Kind {
    /// Every kind.
    pub const ALL: [Self; 5] = [
        Self::Regular,
        Self::Inline,
        Self::Hole,
        Self::Prealloc,
        Self::Compressed,
    ];

    /// Its counter.
    pub fn name(self) -> &'static str {
        match self {
            Self::Regular => "regular",
            Self::Inline => "inline",
            Self::Hole => "hole",
            Self::Prealloc => "prealloc",
            Self::Compressed => "compressed",
        }
    }
}

/// One extent of a file. Holes have none.
#[derive(Clone, Copy, Debug)]
pub struct Extent {
    pub offset: u64,
    pub len: u64,
    /// Where it is in the file system's address space.
    pub logical: u64,
    pub kind: Kind,
    /// Inline ones can be compressed, too.
    pub encoded: bool,
}

/// `FS_IOC_FIEMAP`, `_IOWR('f', 11, struct fiemap)`.
const FS_IOC_FIEMAP: u64 = 0xc020_660b;
const FLAG_SYNC: u32 = 1;
const LAST: u32 = 0x1;
const ENCODED: u32 = 0x8;
const DATA_INLINE: u32 = 0x200;
const UNWRITTEN: u32 = 0x800;
/// Extents fetched by one call.
const BATCH: usize = 64;

#[repr(C)]
#[derive(Clone, Copy, Default)]
struct RawExtent {
    logical: u64,
    physical: u64,
    length: u64,
    reserved64: [u64; 2],
    flags: u32,
    reserved: [u32; 3],
}

#[repr(C)]
struct RawFiemap {
    start: u64,
    length: u64,
    flags: u32,
    mapped_extents: u32,
    extent_count: u32,
    reserved: u32,
    extents: [RawExtent; BATCH],
}

/// All extents of a file, in order.
pub fn extents(file: &File) -> Result<Vec<Extent>> {
    let mut all = Vec::new();
    let mut start = 0;
    loop {
        let mut map = RawFiemap {
            start,
            length: u64::MAX - start,
            flags: FLAG_SYNC,
            mapped_extents: 0,
            extent_count: BATCH as u32,
            reserved: 0,
            extents: [RawExtent::default(); BATCH],
        };
        // SAFETY: A `struct fiemap` with room for as many extents as it says.
        unsafe { sys::ioctl(file, FS_IOC_FIEMAP, &mut map) }.context("FIEMAP")?;
        for raw in &map.extents[..map.mapped_extents as usize] {
            ensure!(raw.length > 0, "FIEMAP: extent of no length");
            start = raw.logical + raw.length;
            all.push(Extent {
                offset: raw.logical,
                len: raw.length,
                logical: raw.physical,
                kind: kind(raw.flags),
                encoded: raw.flags & ENCODED != 0,
            });
            if raw.flags & LAST != 0 {
                return Ok(all);
            }
        }
        if map.mapped_extents == 0 {
            return Ok(all);
        }
    }
}

fn kind(flags: u32) -> Kind {
    if flags & DATA_INLINE != 0 {
        Kind::Inline
    } else if flags & ENCODED != 0 {
        Kind::Compressed
    } else if flags & UNWRITTEN != 0 {
        Kind::Prealloc
    } else {
        Kind::Regular
    }
}

/// The kinds found in `[start, end)` of a file with these extents.
pub fn kinds(extents: &[Extent], start: u64, end: u64) -> Vec<Kind> {
    let mut found = Vec::new();
    let mut at = start;
    for extent in extents {
        // An inline extent stands for its whole block.
        let extent_end = (extent.offset + extent.len).next_multiple_of(4096);
        if extent_end <= at || extent.offset >= end {
            continue;
        }
        if extent.offset > at {
            found.push(Kind::Hole);
        }
        found.push(extent.kind);
        at = extent_end;
    }
    if at < end {
        found.push(Kind::Hole);
    }
    found.sort();
    found.dedup();
    found
}

/// Where in the file system's address space the byte at `offset` is.
pub fn logical(extents: &[Extent], offset: u64) -> Option<u64> {
    let extent = extents
        .iter()
        .find(|e| e.kind == Kind::Regular && (e.offset..e.offset + e.len).contains(&offset))?;
    Some(extent.logical + (offset - extent.offset))
}
