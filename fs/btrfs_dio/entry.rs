// SPDX-License-Identifier: GPL-2.0

//! What each read begins with: its memory is pinned, the file kept from getting shorter, and what
//! has not been written yet is.

use crate::{
    error::{
        Reason,
        Stop, //
    },
    range::whole_blocks,
    safe::{
        btrfs::inode::{
            Inode,
            SharedInode, //
        },
        patience::Patience, //
    },
};
use kernel::prelude::*;

/// A read that has begun.
pub(crate) struct Entry<'a> {
    /// From here on the file does not get shorter.
    pub(crate) inode: SharedInode<'a>,
    /// How many bytes there are to be read, not 0.
    pub(crate) total: usize,
}

impl<'a> Entry<'a> {
    /// Begins a read of `count` bytes from `pos` on, part of whose buffer has been pinned; `None` if
    /// there is nothing to read.
    ///
    /// Task context; sleeps, unless the read must not; no lock of the filesystem held.
    pub(crate) fn new(
        inode: Inode<'a>,
        pos: i64,
        count: usize,
        patience: Patience,
    ) -> Result<Option<Self>, Stop> {
        let pos = u64::try_from(pos).map_err(|_| Reason::Unaligned)?;
        let shared = inode.lock_shared(patience).map_err(Stop::from_mapping)?;
        let total = bytes_to_read(pos, count, inode.size());
        if total == 0 {
            return Ok(None);
        }
        // Whole blocks: what shares a block with the ends of the read counts, too.
        // CAST: Widening.
        let (start, len) =
            whole_blocks(pos, total, inode.fs().block_size() as usize).ok_or(Reason::Unaligned)?;
        shared
            // CAST: Widening.
            .write_back(start, len as u64, patience)
            .map_err(Stop::from_write_back)?;
        Ok(Some(Self {
            inode: shared,
            total,
        }))
    }
}

/// Returns how many of `count` bytes from `pos` on are there to be read in a file of `size` bytes.
pub(crate) fn bytes_to_read(pos: u64, count: usize, size: u64) -> usize {
    let there = size.saturating_sub(pos);
    usize::try_from(there).unwrap_or(usize::MAX).min(count)
}

/// Returns how much memory to take for reading `bytes` from `pos` on: at most `most`, up to the end
/// of a block, as far as the caller has `room`.
pub(crate) fn memory_for(
    pos: u64,
    bytes: usize,
    room: usize,
    most: usize,
    block: usize,
) -> Result<usize, Reason> {
    // CAST: Widening, and back: less than `block`.
    let head = (pos & (block as u64).saturating_sub(1)) as usize;
    let end = bytes
        .checked_add(head)
        .and_then(|end| end.checked_next_multiple_of(block))
        .ok_or(Reason::Unaligned)?;
    Ok(end.min(most).saturating_sub(head).min(room))
}

/// Returns why a read stops whose buffer could not be pinned.
pub(crate) fn not_pinned(error: Error, patience: Patience) -> Stop {
    if error != ENOMEM {
        Stop::Decline(Reason::Fault)
    } else if patience == Patience::Nowait {
        Stop::WouldWait
    } else {
        Stop::Decline(Reason::Memory)
    }
}
