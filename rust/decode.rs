// SPDX-License-Identifier: GPL-2.0

//! Decompression of extents.
//!
//! What a stream gives, and which streams are refused, is what btrfs itself makes of it:
//! `zlib_decompress_bio()`, `lzo_decompress_bio()`, `zstd_decompress_bio()` and
//! `btrfs_decompress_bio()` in [`fs/btrfs`](srctree/fs/btrfs/compression.c), for inline extents
//! `uncompress_inline()` in [`fs/btrfs/inode.c`](srctree/fs/btrfs/inode.c).
//!
//! Input is private memory. Output may be memory of a user, who may write to it meanwhile: the
//! decoders take lengths and offsets from the input alone and read output only as the bytes to
//! repeat, so a user who does that spoils nothing but the own data. No Rust reference is ever made
//! to it.
//!
//! C headers: [`include/linux/zlib.h`](srctree/include/linux/zlib.h),
//! [`include/linux/lzo.h`](srctree/include/linux/lzo.h),
//! [`include/linux/zstd.h`](srctree/include/linux/zstd.h)

#[cfg(CONFIG_KUNIT = "y")]
pub(crate) mod encode;
mod lzo;
mod output;
mod pool;
mod stream;
mod zlib;
mod zstd;

pub(crate) use self::output::Output;

use self::{
    lzo::Lzo,
    pool::Pool,
    zlib::Zlib,
    zstd::Zstd, //
};
use crate::bindings;
use kernel::{
    cpu::nr_cpu_ids,
    prelude::*, //
};

/// The most bytes that an extent can have, compressed (`BTRFS_MAX_COMPRESSED`) or not
/// (`BTRFS_MAX_UNCOMPRESSED`).
pub(crate) const MAX_EXTENT: usize = 128 << 10;

/// The largest block that btrfs knows, in bytes.
const MAX_BLOCK: usize = 64 << 10;

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
struct Extent<'a> {
    /// What is on disk.
    input: &'a [u8],
    /// Size of a block of the filesystem in bytes.
    block: usize,
    /// Size in bytes that the metadata says it has when decompressed.
    ram_bytes: usize,
    /// Bytes of it that are not wanted, from the start.
    skip: usize,
}

impl<'a> Extent<'a> {
    /// Checks the limits: `EINVAL` if no filesystem has such blocks, `EUCLEAN` if none has such an
    /// extent.
    fn new(input: &'a [u8], block: usize, ram_bytes: usize, skip: usize) -> Result<Self> {
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
trait Decoder: Sized + Send {
    /// Makes one. May sleep; fails with `ENOMEM`.
    fn new() -> Result<Self>;

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

/// All decoders: for each algorithm as many as there are CPUs, 2 at the least and 8 at the most.
///
/// All memory is allocated when this is made. Who finds no decoder free waits for one; nobody who
/// has one waits for anything, so that comes to an end.
#[pin_data]
pub(crate) struct Decoders {
    #[pin]
    zlib: Pool<Zlib>,
    #[pin]
    lzo: Pool<Lzo>,
    #[pin]
    zstd: Pool<Zstd>,
}

impl Decoders {
    /// Makes them. May sleep; fails with `ENOMEM`.
    pub(crate) fn new() -> impl PinInit<Self, Error> {
        // CAST: Widening.
        let count = (nr_cpu_ids() as usize).clamp(2, 8);
        try_pin_init!(Self {
            zlib <- Pool::new(count),
            lzo <- Pool::new(count),
            zstd <- Pool::new(count),
        })
    }

    /// Fills `output` with the bytes of a decompressed extent from `skip` on; with zeros what is
    /// behind the end of the stream.
    ///
    /// `input` is the extent as it is on disk, with the padding to a whole block. `block` is the
    /// size of a block of the filesystem, `ram_bytes` that of the extent when decompressed.
    ///
    /// Nothing behind the last byte that is wanted is looked at, except headers of LZO segments.
    ///
    /// Fails with `EIO` or `EUCLEAN` if the stream, or a length, is malformed; with `EINVAL` if
    /// `output` has less memory than it was said to have. What `output` holds then is undefined.
    ///
    /// Task context, may sleep. Does not allocate.
    pub(crate) fn extent(
        &self,
        how: Compression,
        input: &[u8],
        block: usize,
        ram_bytes: usize,
        skip: usize,
        output: &mut Output<'_>,
    ) -> Result {
        let extent = Extent::new(input, block, ram_bytes, skip)?;
        if output.left().saturating_add(skip) > MAX_EXTENT {
            return Err(EUCLEAN);
        }
        if output.left() > 0 {
            match how {
                Compression::Zlib => self.zlib.with(|d| d.extent(&extent, output)),
                Compression::Lzo => self.lzo.with(|d| d.extent(&extent, output)),
                Compression::Zstd => self.zstd.with(|d| d.extent(&extent, output)),
            }?;
        }
        output.zero_rest()
    }

    /// Fills `out` with the first bytes of an inline extent; with zeros what is behind `ram_bytes`.
    ///
    /// `input` is the data of the item. An inline extent has no more than a block, so `out` may not
    /// be longer than that (`EINVAL`), and of `ram_bytes` no more is looked at.
    ///
    /// Fails with `EIO` or `EUCLEAN` if the stream is malformed or has less than `ram_bytes`. What
    /// `out` holds then is undefined. Task context, may sleep. Does not allocate.
    pub(crate) fn inline(
        &self,
        how: Compression,
        input: &[u8],
        block: usize,
        ram_bytes: usize,
        out: &mut [u8],
    ) -> Result {
        let extent = Extent::new(input, block, ram_bytes.min(block), 0)?;
        if out.len() > block {
            return Err(EINVAL);
        }
        let there = out.len().min(extent.ram_bytes);
        let (data, rest) = out.split_at_mut_checked(there).ok_or(EINVAL)?;
        match how {
            Compression::Zlib => self.zlib.with(|d| d.inline(&extent, data)),
            Compression::Lzo => self.lzo.with(|d| d.inline(&extent, data)),
            Compression::Zstd => self.zstd.with(|d| d.inline(&extent, data)),
        }?;
        rest.fill(0);
        Ok(())
    }
}
