// SPDX-License-Identifier: GPL-2.0

//! What is decoded, and what decoders have in common.

use super::output::Output;
use crate::bindings;
use kernel::{
    alloc::Flags,
    prelude::*, //
};

/// The most bytes that an extent can have, compressed (`BTRFS_MAX_COMPRESSED`) or not
/// (`BTRFS_MAX_UNCOMPRESSED`).
pub(crate) const MAX_EXTENT: usize = 128 << 10;

/// The largest block that btrfs knows, in bytes.
pub(super) const MAX_BLOCK: usize = 64 << 10;

/// The smallest block that is taken, in bytes; what LZO needs at the least is room for two headers.
const MIN_BLOCK: usize = 512;

/// A compression algorithm of btrfs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Compression {
    /// One zlib stream.
    Zlib,
    /// A series of LZO1X streams, one for each block.
    Lzo,
    /// One Zstandard frame.
    Zstd,
}

impl Compression {
    /// Returns the algorithm that the `compression` of a file extent stands for; `None` for no
    /// compression as well as for one that is not known here.
    pub(crate) fn from_type(compression: u8) -> Option<Self> {
        match u32::from(compression) {
            bindings::btrfs_compression_type_BTRFS_COMPRESS_ZLIB => Some(Self::Zlib),
            bindings::btrfs_compression_type_BTRFS_COMPRESS_LZO => Some(Self::Lzo),
            bindings::btrfs_compression_type_BTRFS_COMPRESS_ZSTD => Some(Self::Zstd),
            _ => None,
        }
    }
}

/// A compressed extent, as far as decoding is concerned.
///
/// # Invariants
///
/// `block` is a power of two from [`MIN_BLOCK`] to [`MAX_BLOCK`]; `input` has 1 to [`MAX_EXTENT`]
/// bytes, and `ram_bytes` and `skip` are [`MAX_EXTENT`] at most.
pub(super) struct Extent<'a> {
    /// What is on disk.
    pub(super) input: &'a [u8],
    /// Size of a block of the filesystem in bytes.
    pub(super) block: usize,
    /// Size in bytes that the metadata says it has when decompressed.
    pub(super) ram_bytes: usize,
    /// Bytes of it that are not wanted, from the start.
    pub(super) skip: usize,
}

impl<'a> Extent<'a> {
    /// Checks the limits: `EINVAL` if no filesystem has such blocks, `EUCLEAN` if none has such an
    /// extent.
    pub(super) fn new(
        input: &'a [u8],
        block: usize,
        ram_bytes: usize,
        skip: usize,
    ) -> Result<Self> {
        if !block.is_power_of_two() || !(MIN_BLOCK..=MAX_BLOCK).contains(&block) {
            return Err(EINVAL);
        }
        if input.is_empty() || input.len().max(ram_bytes).max(skip) > MAX_EXTENT {
            return Err(EUCLEAN);
        }
        // INVARIANT: Just checked.
        Ok(Self {
            input,
            block,
            ram_bytes,
            skip,
        })
    }
}

/// A decoder of one algorithm, with all the memory that it needs.
pub(super) trait Decoder: Sized + Send {
    /// Makes one. Sleeps if `gfp` allows it; fails with `ENOMEM`.
    fn new(gfp: Flags) -> Result<Self>;

    /// Writes the bytes of the decompressed extent from `extent.skip` on to `output`, until that is
    /// full or the stream ends.
    ///
    /// Fails with `EIO` or `EUCLEAN` if the stream is malformed, or, for zlib, if it is cut off.
    /// Output may have been written to by then. Task context, does not allocate.
    fn extent(&mut self, extent: &Extent<'_>, output: &mut Output<'_>) -> Result;

    /// Writes the first bytes of the decompressed inline extent to `out`, which has
    /// `extent.ram_bytes` at most; these are no more than a block.
    ///
    /// Fails as [`Self::extent`], and with `EIO` if the stream has less than `extent.ram_bytes`.
    fn inline(&mut self, extent: &Extent<'_>, out: &mut [u8]) -> Result;
}
