// SPDX-License-Identifier: GPL-2.0

//! Bad copies are written anew.
//!
//! Under the lock of the range, with no write under way in it, and only if the extents are still
//! the very ones that were read: then the space is the file's, and nobody else writes to it. What
//! has no checksums is read once more under that lock, since it may have been written in place. What
//! is written comes from private memory, and goes through btrfs, which counts, tells, and knows about
//! replacement, parity and zones.
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
            repair::{
                GoodBlock,
                Writable, //
            },
        },
        patience::Patience,
    },
    stats::{
        self,
        Counter, //
    },
    window::LOCK_TRIES,
};

/// How many blocks to write under one lock: others wait for it.
const BATCH: usize = 16;

/// Writes the blocks that are good to those of their copies that are bad.
///
/// Task context, sleeps; no extent bit and no hold on devices held.
pub(crate) fn repair(reader: &Reader<'_>, blocks: &mut [Block], scratch: &mut [u8]) {
    for batch in blocks.chunks_mut(BATCH) {
        let bad = |batch: &[Block]| -> u64 {
            let counts = batch.iter().map(|block| block.bad_copies().count());
            // CAST: Widening.
            counts.sum::<usize>() as u64
        };
        let count = bad(batch);
        if count == 0 || !batch.iter().any(Block::is_good) {
            stats::add(Counter::Unrepaired, count);
            continue;
        }
        let written = repair_batch(reader, batch, scratch).unwrap_or(0);
        stats::add(Counter::Repaired, written);
        stats::add(Counter::Unrepaired, count.saturating_sub(written));
    }
}

/// Writes some blocks, and returns how many copies of them were written. `None` if nothing may be
/// written.
fn repair_batch(reader: &Reader<'_>, batch: &mut [Block], scratch: &mut [u8]) -> Option<u64> {
    let range = &reader.plan.range;
    // CAST: Widening.
    let lock = ExtentLock::new(
        reader.inode,
        range.start,
        range.len as u64,
        Writers::Allowed,
        LOCK_TRIES,
        Patience::Wait,
    )
    .ok()??;
    if !reader.plan.is_current() {
        return None;
    }
    if reader.plan.fetches.expected.is_none() {
        reader.read(batch, Next::Same, scratch).ok()?;
    }
    let writable = Writable::take(reader.inode.inode().fs())?;
    let mut written = 0u64;
    for block in batch.iter().filter(|block| block.is_good()) {
        let Memory::Private { buffer, at } = block.memory else {
            continue;
        };
        let good = GoodBlock {
            offset: block.file,
            logical: block.logical,
            len: range.block,
            buffer: reader.plan.fetches.private(buffer)?,
            at,
        };
        for copy in block.bad_copies() {
            if good.write(&lock, &writable, copy).is_ok() {
                written = written.saturating_add(1);
            }
        }
    }
    Some(written)
}
