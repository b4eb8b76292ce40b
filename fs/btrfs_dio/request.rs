// SPDX-License-Identifier: GPL-2.0

//! One read as a whole.
//!
//! A read is served in windows, one after the other. It belongs to the task that issued it from
//! beginning to end: what is in flight for it is in a batch that the task waits for, so nothing of
//! it outlives the call.

use crate::{
    error::{
        Reason,
        Stop, //
    },
    safe::{
        block::pool::BioPool,
        read::DirectRead,
        user_pages::UserPages, //
    },
    window::{
        self,
        Range, //
    },
};
use kernel::{
    prelude::*,
    sizes::SZ_4M, //
};

/// How much of a read is worked on at a time, in bytes: what bounds the memory that is pinned, and
/// the memory of our own.
pub(crate) const WINDOW: usize = SZ_4M;

/// Serves an admitted read, and returns the number of bytes that were read.
///
/// Task context, sleeps; no lock of the filesystem held.
pub(crate) fn serve(pool: &BioPool, read: &mut DirectRead<'_>) -> Result<usize, Stop> {
    let inode = read.inode();
    let pos = u64::try_from(read.pos()).map_err(|_| Reason::Unaligned)?;
    // CAST: Widening.
    let block = inode.fs().block_size() as usize;
    let count = read.count();

    let likely = bytes_to_read(pos, count, inode.size());
    if likely == 0 {
        return Ok(0);
    }
    // Before any lock: this may fault, and what it faults in may be this file.
    let mut ahead = Some(pin(read, window_len(likely, block)?, block)?);

    let shared = inode.lock_shared();
    // From here on the size does not change.
    let total = bytes_to_read(pos, count, inode.size());
    if total == 0 {
        return Ok(0);
    }
    // CAST: Widening. Whole blocks: what shares a block with the end of the read counts, too.
    let blocks = total
        .checked_next_multiple_of(block)
        .ok_or(Reason::Unaligned)? as u64;
    shared.write_back(pos, blocks).map_err(Stop::Fail)?;

    let mut done = 0usize;
    while done < total {
        let left = total.saturating_sub(done);
        let pages = match ahead.take() {
            Some(pages) => pages,
            None => pin(read, window_len(left, block)?, block)?,
        };
        // Fewer pages than are left if the file has grown since, more if it has shrunk.
        let valid = left.min(pages.len());
        let range = Range {
            // CAST: Widening.
            start: pos.checked_add(done as u64).ok_or(Reason::Mapping)?,
            len: valid
                .checked_next_multiple_of(block)
                .ok_or(Reason::Mapping)?,
            valid,
            block,
        };
        window::read(pool, &shared, &range, &pages, read.ioprio())?;
        done = done.saturating_add(valid);
    }
    Ok(done)
}

/// Returns how many of `count` bytes from `pos` on are there to be read in a file of `size` bytes.
pub(crate) fn bytes_to_read(pos: u64, count: usize, size: u64) -> usize {
    let there = size.saturating_sub(pos);
    usize::try_from(there).unwrap_or(usize::MAX).min(count)
}

/// Returns the length of the first window of `bytes`: whole blocks, and at most [`WINDOW`].
pub(crate) fn window_len(bytes: usize, block: usize) -> Result<usize, Reason> {
    bytes
        .min(WINDOW)
        .checked_next_multiple_of(block)
        .ok_or(Reason::Unaligned)
}

/// Pins the next `len` bytes of the buffer.
fn pin<'r>(read: &mut DirectRead<'r>, len: usize, block: usize) -> Result<UserPages<'r>, Stop> {
    UserPages::pin(read, len, block).map_err(|error| {
        if error == ENOMEM {
            Stop::Decline(Reason::Memory)
        } else {
            Stop::Decline(Reason::Fault)
        }
    })
}
