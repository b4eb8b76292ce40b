// SPDX-License-Identifier: GPL-2.0

//! Compressed extents: read whole into private memory, verified there, and decompressed into the
//! caller's memory as far as they are wanted.

use crate::{
    error::{
        Reason,
        Stop, //
    },
    range::Part,
    resources::Resources,
    safe::{
        btrfs::extent_map::Encoded,
        decode::{
            Output,
            MAX_EXTENT, //
        },
        vecs::{
            Cursor,
            Vecs, //
        },
    },
};
use kernel::prelude::*;

/// Cuts the `len` bytes out that come `skipped` bytes behind the beginning of the part of an extent
/// that a file refers to. `Mapping` if there is no such part, or the extent is none.
pub(crate) fn part(
    encoded: &Encoded,
    skipped: u64,
    len: usize,
    block: usize,
) -> Result<Encoded, Reason> {
    // CAST: Widening.
    let (block, most) = (block as u64, MAX_EXTENT as u64);
    let offset = encoded.offset.checked_add(skipped).ok_or(Reason::Mapping)?;
    let end = offset.checked_add(len as u64).ok_or(Reason::Mapping)?;
    let good = encoded.disk_len > 0
        && encoded.disk_len <= most
        && encoded.disk_len.checked_rem(block) == Some(0)
        && encoded.logical.checked_rem(block) == Some(0)
        && encoded.ram_bytes <= most
        && end <= encoded.ram_bytes;
    if !good {
        return Err(Reason::Mapping);
    }
    Ok(Encoded { offset, ..*encoded })
}

/// Decompresses `data`, an extent that has been verified, as far as `part` of a segment wants it,
/// to the caller's memory.
///
/// Fails the read with `EIO` or `EUCLEAN` if it is malformed: it is what was written. Task context,
/// may wait for a workspace.
pub(crate) fn fill(
    resources: &Resources,
    encoded: &Encoded,
    data: &[u8],
    part: &Part,
    block: usize,
    memory: Vecs<'_>,
) -> Result<(), Stop> {
    let mut cursor = Cursor::default();
    memory.seek(&mut cursor, part.to);
    let size = |bytes: u64| usize::try_from(bytes).map_err(|_| Reason::Mapping);
    let skip = size(encoded.offset)?.saturating_add(part.skip);
    let ram_bytes = size(encoded.ram_bytes)?;
    let mut output = Output::pages(memory, cursor, part.len);
    resources
        .decoders
        .extent(encoded.how, data, block, ram_bytes, skip, &mut output)
        .map_err(Stop::Fail)
}
