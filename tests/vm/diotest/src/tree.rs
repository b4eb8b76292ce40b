// SPDX-License-Identifier: GPL-2.0

//! Items of btrfs's trees: `BTRFS_IOC_TREE_SEARCH_V2`.

use crate::sys;
use anyhow::{Context, Result};
use std::fs::File;
use std::os::unix::fs::MetadataExt;

/// `BTRFS_IOC_TREE_SEARCH_V2`, `_IOWR(0x94, 17, struct btrfs_ioctl_search_args_v2)`.
const TREE_SEARCH_V2: u64 = 0xc070_9411;
/// Of each item: its key and its length.
const HEADER: usize = 32;

#[repr(C)]
struct Search {
    tree: u64,
    objectid: [u64; 2],
    offset: [u64; 2],
    transid: [u64; 2],
    types: [u32; 2],
    items: u32,
    unused: u32,
    unused64: [u64; 4],
    buf_size: u64,
    buf: [u8; 1 << 16],
}

/// An item of one object and of one type.
pub struct Item {
    pub offset: u64,
    pub bytes: Vec<u8>,
}

pub fn le64(bytes: &[u8], at: usize) -> Result<u64> {
    let field = bytes.get(at..at + 8).context("item too short")?;
    Ok(u64::from_le_bytes(field.try_into()?))
}

pub fn le16(bytes: &[u8], at: usize) -> Result<usize> {
    let field = bytes.get(at..at + 2).context("item too short")?;
    Ok(u16::from_le_bytes(field.try_into()?).into())
}

/// All items of `object` and of type `kind` in a tree of the file system that
/// `file` is on; tree 0 is that of its subvolume.
pub fn items(file: &File, tree: u64, object: u64, kind: u32) -> Result<Vec<Item>> {
    let mut all: Vec<Item> = Vec::new();
    loop {
        let first = all.last().map_or(0, |item| item.offset + 1);
        let mut search = Box::new(Search {
            tree,
            objectid: [object, object],
            offset: [first, u64::MAX],
            transid: [0, u64::MAX],
            types: [kind, kind],
            items: 4096,
            unused: 0,
            unused64: [0; 4],
            buf_size: 1 << 16,
            buf: [0; 1 << 16],
        });
        // SAFETY: A search header and a buffer of the size it says.
        unsafe { sys::ioctl(file, TREE_SEARCH_V2, &mut *search) }.context("TREE_SEARCH_V2")?;
        let mut at = 0;
        for _ in 0..search.items {
            let offset = le64(&search.buf, at + 16)?;
            let len = (le64(&search.buf, at + 24)? >> 32) as usize;
            let bytes = search.buf.get(at + HEADER..at + HEADER + len);
            let bytes = bytes.context("truncated")?.to_vec();
            all.push(Item { offset, bytes });
            at += HEADER + len;
        }
        if search.items == 0 {
            return Ok(all);
        }
    }
}

const EXTENT_DATA: u32 = 108;
const INLINE: u8 = 0;

/// A compressed extent, as its file refers to it.
#[derive(Clone, Copy, Debug)]
pub struct Packed {
    /// What it is of the file.
    pub offset: u64,
    pub len: u64,
    /// Where it is in the file system's address space, and how long there.
    pub logical: u64,
    pub stored: u64,
}

/// All compressed extents of a file that are not inline.
pub fn packed(file: &File) -> Result<Vec<Packed>> {
    let mut all = Vec::new();
    for item in items(file, 0, file.metadata()?.ino(), EXTENT_DATA)? {
        let byte = |at: usize| item.bytes.get(at).copied().context("item too short");
        if byte(16)? == 0 || byte(20)? == INLINE {
            continue;
        }
        all.push(Packed {
            offset: item.offset,
            len: le64(&item.bytes, 45)?,
            logical: le64(&item.bytes, 21)?,
            stored: le64(&item.bytes, 29)?,
        });
    }
    Ok(all)
}
