// SPDX-License-Identifier: GPL-2.0

//! Inline extents: data that lies in the metadata, and has been verified with it.

use crate::{
    error::{
        Reason,
        Stop, //
    },
    safe::{
        btrfs::{
            extent_lock::ExtentLock,
            inline_item::InlineData, //
        },
        user_pages::{
            Cursor,
            UserPages, //
        },
    },
};

/// Copies the inline extent of the locked file out of its leaf; `block` bytes at most.
pub(crate) fn load(lock: &ExtentLock<'_>, block: usize) -> Result<InlineData, Stop> {
    InlineData::read(lock, block)
        .map_err(Stop::from_mapping)?
        // The map said that there is one, and the lock keeps it there.
        .ok_or_else(|| Reason::Mapping.into())
}

/// Writes `len` bytes of the block to `cursor`: the data, then zeros.
///
/// Rule: `read_inline_extent()`, fs/btrfs/inode.c.
pub(crate) fn fill(pages: &UserPages<'_>, cursor: &mut Cursor, len: usize, data: &[u8]) {
    let there = data.get(..len).unwrap_or(data);
    pages.copy_from(cursor, there);
    pages.zero(cursor, len.saturating_sub(there.len()));
}
