// SPDX-License-Identifier: GPL-2.0

//! What is cut out of an extent for a window.

use crate::{
    error::Reason,
    range::Range,
    safe::{
        btrfs::extent_map::{
            Encoded,
            Extent,
            Kind, //
        },
        decode::MAX_EXTENT,
    },
};

/// Where the bytes of a segment come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    /// Nowhere.
    Hole,
    /// Nowhere: the space has not been written.
    Prealloc,
    /// The metadata.
    Inline,
    /// The devices.
    Disk {
        /// Logical address of the first byte.
        logical: u64,
    },
    /// The devices, compressed; `offset` is that of the segment's first byte.
    Compressed(Encoded),
}

/// A stretch of a window, of one extent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Segment {
    /// Offset in the window, in bytes, a multiple of the block size.
    pub(crate) at: usize,
    /// Length in bytes, a multiple of the block size, not 0.
    pub(crate) len: usize,
    /// Where it comes from.
    pub(crate) source: Source,
}

impl Segment {
    /// Cuts out of `extent` what lies in the window from offset `at` of it on.
    ///
    /// `Mapping` if the extent is not at that place, or not made of blocks.
    pub(crate) fn cut(extent: &Extent, range: &Range, at: usize) -> Result<Self, Reason> {
        // CAST: Widening.
        let start = range.start.checked_add(at as u64).ok_or(Reason::Mapping)?;
        let skipped = start.checked_sub(extent.start).ok_or(Reason::Mapping)?;
        let there = extent
            .len
            .checked_sub(skipped)
            .filter(|there| *there > 0)
            .ok_or(Reason::Mapping)?;
        let left = range.len.checked_sub(at).ok_or(Reason::Mapping)?;
        let len = usize::try_from(there).unwrap_or(usize::MAX).min(left);
        if len == 0 || len.checked_rem(range.block) != Some(0) {
            return Err(Reason::Mapping);
        }
        let source = match extent.kind {
            Kind::Hole => Source::Hole,
            Kind::Prealloc => Source::Prealloc,
            Kind::Inline if extent.start == 0 && start == 0 && len == range.block => Source::Inline,
            Kind::Inline => return Err(Reason::Mapping),
            Kind::Unknown => return Err(Reason::Features),
            Kind::Compressed(encoded) => {
                Source::Compressed(part(&encoded, skipped, len, range.block)?)
            }
            Kind::Regular { logical } => Source::Disk {
                // CAST: Widening.
                logical: logical
                    .checked_add(skipped)
                    .filter(|logical| logical.checked_rem(range.block as u64) == Some(0))
                    .ok_or(Reason::Mapping)?,
            },
        };
        Ok(Self { at, len, source })
    }
}

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
