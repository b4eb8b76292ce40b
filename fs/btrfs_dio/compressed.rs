// SPDX-License-Identifier: GPL-2.0

//! Compressed extents: read whole into private memory, verified there, and decompressed into the
//! caller's memory as far as they are wanted.

use crate::{
    cache::Key,
    error::{
        Reason,
        Stop, //
    },
    range::Part,
    resources::Resources,
    safe::{
        btrfs::{
            extent_map::Encoded,
            fs::FsId, //
        },
        decode::Output,
        memalloc::Scope,
        vecs::{
            Cursor,
            Vecs, //
        },
    },
};
use kernel::prelude::*;

/// What it takes to keep an extent once it has been decompressed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Keep {
    pub(crate) key: Key,
    /// Where its digests are among those of the window.
    pub(crate) digests: core::ops::Range<usize>,
}

/// Returns what tells an extent apart from which `part` is wanted, if it may be worth keeping: if
/// that is half of it at most.
pub(crate) fn key(fs: FsId, encoded: &Encoded, generation: u64, part: &Part) -> Option<Key> {
    let ram_bytes = u32::try_from(encoded.ram_bytes).ok()?;
    // CAST: Widening.
    if part.len > ram_bytes as usize / 2 {
        return None;
    }
    Some(Key {
        fs: fs.0,
        logical: encoded.logical,
        disk_len: u32::try_from(encoded.disk_len).ok()?,
        ram_bytes,
        generation,
        how: encoded.how,
    })
}

/// Writes `part` of a segment to the caller's memory, from an extent that has been decompressed.
pub(crate) fn fill_from(
    encoded_offset: usize,
    data: &[u8],
    part: &Part,
    memory: Vecs<'_>,
) -> Result<(), Stop> {
    let start = encoded_offset.saturating_add(part.skip);
    let end = start.saturating_add(part.len);
    let data = data.get(start..end).ok_or(Reason::Mapping)?;
    let mut cursor = Cursor::default();
    memory.seek(&mut cursor, part.to);
    memory.copy_from(&mut cursor, data);
    Ok(())
}

/// Decompresses all of `data`, an extent that has been verified.
///
/// As [`fill`]. `None` if there is no memory for it, or if not all of it can be decompressed: what
/// is wanted of it may be in front of what cannot.
pub(crate) fn whole(
    resources: &Resources,
    encoded: &Encoded,
    data: &[u8],
    block: usize,
) -> Result<Option<KVVec<u8>>, Stop> {
    let ram_bytes = usize::try_from(encoded.ram_bytes).map_err(|_| Reason::Mapping)?;
    let _scope = Scope::nofs();
    let Ok(mut out) = KVVec::from_elem(0u8, ram_bytes, GFP_KERNEL | __GFP_NOWARN) else {
        return Ok(None);
    };
    let decoded = resources.decoders.extent(
        encoded.how,
        data,
        block,
        ram_bytes,
        0,
        &mut Output::slice(&mut out),
    );
    Ok(decoded.is_ok().then_some(out))
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
