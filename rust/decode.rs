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
mod extent;
mod lzo;
mod output;
mod pool;
mod stream;
mod zlib;
mod zstd;

pub(crate) use self::{
    extent::{
        Compression,
        MAX_EXTENT, //
    },
    output::Output,
};

use self::{
    extent::{
        Decoder,
        Extent,
        MAX_BLOCK, //
    },
    lzo::Lzo,
    pool::Pool,
    zlib::Zlib,
    zstd::Zstd, //
};
use kernel::{
    cpu::nr_cpu_ids,
    prelude::*, //
};

/// Returns how many decoders there are, of all algorithms, in use or not.
pub(crate) fn decoders() -> usize {
    pool::made()
}

/// All decoders: of each algorithm as many as there are CPUs, or 2 if there is one, if so many are
/// needed.
///
/// One of each is allocated when this is made, so no read depends on memory. A task that finds no
/// decoder free, and cannot have another one, waits. A task with a decoder waits for nothing, so that
/// comes to an end.
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
        let count = (nr_cpu_ids() as usize).max(2);
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
    /// Task context, may sleep. Does not wait for memory.
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
    /// `out` holds then is undefined. Task context, may sleep. Does not wait for memory.
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
