// SPDX-License-Identifier: GPL-2.0

//! Bad copies are written anew.
//!
//! One by one, each under the lock of its place in the file, with no write under way there, and only
//! if the extents are still the very ones that were read: then the space is the file's, and nobody
//! else writes to it. What has no checksums is read once more under that lock, since it may have been
//! written in place. What is written comes from private memory, and goes through btrfs, which counts,
//! tells, and knows about replacement, parity and zones; and it is written by a worker, so that
//! nobody's lack of bandwidth keeps others out.
//!
//! Nothing is written if the filesystem is read-only, frozen, broken or shut down, or if the range is
//! not to be had: then the next who reads the block may have more luck.

use crate::{
    fetch::Memory,
    recovery::{
        Block,
        Next,
        Reader, //
    },
    safe::{
        btrfs::{
            extent_lock::{
                ExtentLock,
                Writers, //
            },
            repair::GoodBlock,
        },
        patience::Patience,
    },
    stats::{
        self,
        Counter, //
    },
    window::LOCK_TRIES,
};

/// Writes the blocks that are good to those of their copies that are bad.
///
/// Task context, sleeps; no extent bit and no hold on devices held.
pub(crate) fn repair(reader: &Reader<'_>, blocks: &mut [Block], scratch: &mut [u8]) {
    // Copies that could not be written: they are not tried again for each block.
    let mut dead = 0u32;
    for block in blocks {
        // CAST: Widening.
        let bad = block.bad_copies().count() as u64;
        let written = match bad > 0 && block.is_good() {
            true => repair_block(reader, block, &mut dead, scratch).unwrap_or(0),
            false => 0,
        };
        stats::add(Counter::Repaired, written);
        stats::add(Counter::Unrepaired, bad.saturating_sub(written));
    }
}

/// Writes a block, and returns how many copies of it were written. `None` if nothing may be written.
fn repair_block(
    reader: &Reader<'_>,
    block: &mut Block,
    dead: &mut u32,
    scratch: &mut [u8],
) -> Option<u64> {
    let size = reader.plan.range.block;
    // CAST: Widening.
    let lock = ExtentLock::new(
        reader.inode,
        block.kept_at,
        size as u64,
        Writers::Allowed,
        LOCK_TRIES,
        Patience::Wait,
    )
    .ok()??;
    if !reader.plan.is_current() {
        return None;
    }
    if reader.plan.fetches.expected.is_none() {
        let block = core::slice::from_mut(block);
        reader.read(block, Next::Same, scratch).ok()?;
    }
    let Memory::Private { buffer, at } = block.memory else {
        return None;
    };
    if !block.is_good() {
        return None;
    }
    let good = GoodBlock {
        offset: block.file,
        logical: block.logical,
        len: size,
        buffer: reader.plan.fetches.private(buffer)?,
        at,
    };
    let mut written = 0u64;
    for copy in block.bad_copies() {
        let bit = 1u32.checked_shl(copy).unwrap_or(0);
        if *dead & bit != 0 {
            continue;
        }
        match good.write(&lock, &reader.resources.helpers, copy) {
            Ok(()) => written = written.saturating_add(1),
            Err(_) => *dead |= bit,
        }
    }
    Some(written)
}
