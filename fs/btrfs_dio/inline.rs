// SPDX-License-Identifier: GPL-2.0

//! Inline extents: data that lies in the metadata, and has been verified with it.

use crate::{
    error::{
        Reason,
        Stop, //
    },
    range::Part,
    resources::Resources,
    safe::{
        btrfs::{
            extent_lock::ExtentLock,
            inline_item::InlineData, //
        },
        patience::Patience,
        vecs::{
            Cursor,
            Vecs, //
        },
    },
};
use kernel::{
    alloc::Flags,
    prelude::*, //
};

/// Copies the inline extent of the locked file out of its leaf; `block` bytes at most.
pub(crate) fn load(
    lock: &ExtentLock<'_>,
    block: usize,
    patience: Patience,
) -> Result<InlineData, Stop> {
    InlineData::read(lock, block, patience)
        .map_err(Stop::from_mapping)?
        // The map said that there is one, and the lock keeps it there.
        .ok_or_else(|| Reason::Mapping.into())
}

/// Allocates what it takes to decompress it, if it is compressed.
pub(crate) fn room(data: &InlineData, gfp: Flags) -> Result<KVec<u8>, Stop> {
    let len = data.encoding().map_or(0, |(_, ram_bytes)| ram_bytes);
    Ok(KVec::from_elem(0u8, len, gfp)?)
}

/// Returns the bytes of the block, as far as they are not zeros; those of a compressed extent are
/// decompressed to `decoded`, which [`room`] has made.
///
/// Fails the read with `EIO` or `EUCLEAN` if it is malformed. Task context, may wait for a
/// workspace.
pub(crate) fn bytes<'d>(
    resources: &Resources,
    data: &'d InlineData,
    decoded: &'d mut [u8],
    block: usize,
) -> Result<&'d [u8], Stop> {
    let Some((how, ram_bytes)) = data.encoding() else {
        return Ok(data.as_slice());
    };
    resources
        .decoders
        .inline(how, data.as_slice(), block, ram_bytes, decoded)
        .map_err(Stop::Fail)?;
    Ok(decoded)
}

/// Writes part of the block to `cursor`: the data, then zeros.
///
/// Rule: `read_inline_extent()`, fs/btrfs/inode.c.
pub(crate) fn fill(memory: Vecs<'_>, cursor: &mut Cursor, part: &Part, data: &[u8]) {
    let data = data.get(part.skip..).unwrap_or(&[]);
    let there = data.get(..part.len).unwrap_or(data);
    memory.copy_from(cursor, there);
    memory.zero(cursor, part.len.saturating_sub(there.len()));
}
