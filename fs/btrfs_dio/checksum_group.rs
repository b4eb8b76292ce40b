// SPDX-License-Identifier: GPL-2.0

//! Which checksums lie together in an entry of the cache.

use crate::checksum_cache;
use kernel::prelude::*;

/// Returns how many bytes the digests of `len` bytes take. `None` if these are not whole blocks.
pub(crate) fn digests_len(len: usize, block: usize, digest_size: usize) -> Option<usize> {
    if len.checked_rem(block)? != 0 {
        return None;
    }
    (len / block).checked_mul(digest_size)
}

/// What an entry of the cache has room for.
#[derive(Clone, Copy)]
pub(crate) struct Group {
    /// Bytes of a block.
    block: usize,
    /// Bytes of a checksum.
    pub(crate) size: usize,
    /// Blocks of data.
    blocks: usize,
    /// Bytes of data.
    pub(crate) len: u64,
}

impl Group {
    /// Makes one of blocks of `block` bytes with checksums of `size` bytes. `None` if there is no room
    /// for any.
    pub(crate) fn new(block: usize, size: usize) -> Option<Self> {
        let blocks = checksum_cache::ENTRY.checked_div(size)?;
        // CAST: Widening.
        let len = blocks.checked_mul(block)? as u64;
        Some(Self {
            block,
            size,
            blocks,
            len,
        })
        .filter(|group| group.len > 0)
    }

    /// Returns the address of the group that a block is in, and how many blocks are before it there.
    pub(crate) fn split(&self, logical: u64) -> (u64, usize) {
        let rest = logical.checked_rem(self.len).unwrap_or(0);
        (logical.saturating_sub(rest), self.count(rest))
    }

    /// Returns how many blocks `len` bytes are, if these are no more than a group has.
    pub(crate) fn count(&self, len: u64) -> usize {
        // CAST: Widening; and no more than `blocks`.
        len.checked_div(self.block as u64).unwrap_or(0) as usize
    }

    /// Calls `f` for each group that blocks from `logical` on are in, until it returns `false`: with
    /// their address, that of the group, how many blocks are before them there, and the room for
    /// their checksums.
    pub(crate) fn each(
        &self,
        logical: u64,
        out: &mut [u8],
        mut f: impl FnMut(u64, u64, usize, &mut [u8]) -> Result<bool>,
    ) -> Result<bool> {
        let (mut at, mut left) = (logical, out);
        while !left.is_empty() {
            let (start, first) = self.split(at);
            let room = self.blocks.saturating_sub(first).saturating_mul(self.size);
            let (now, later) = left.split_at_mut(left.len().min(room));
            if !f(at, start, first, now)? {
                return Ok(false);
            }
            at = start.saturating_add(self.len);
            left = later;
        }
        Ok(true)
    }
}
