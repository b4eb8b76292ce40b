// SPDX-License-Identifier: GPL-2.0

//! LZO, as `lzo_decompress_bio()` and `lzo_decompress()` of
//! [`fs/btrfs/lzo.c`](srctree/fs/btrfs/lzo.c) read it; the format is described there.
//!
//! C header: [`include/linux/lzo.h`](srctree/include/linux/lzo.h)

use super::{
    Decoder,
    Extent,
    Output,
    MAX_BLOCK,
    MAX_EXTENT, //
};
use crate::bindings;
use core::ffi::c_int;
use kernel::{
    alloc::Flags,
    prelude::*, //
};

/// Size of a header in bytes: a length, little endian.
const HEADER: usize = 4;

// CAST: 0.
const OK: c_int = bindings::LZO_E_OK as c_int;

/// An LZO decoder.
pub(super) struct Lzo {
    /// For segments that are not wanted as a whole, or not in one piece.
    scratch: KVVec<u8>,
}

impl Decoder for Lzo {
    fn new(gfp: Flags) -> Result<Self> {
        Ok(Self {
            scratch: KVVec::zeroed(worst_compress(MAX_BLOCK), gfp)?,
        })
    }

    fn extent(&mut self, extent: &Extent<'_>, output: &mut Output<'_>) -> Result {
        let segments = Segments::new(extent)?;
        if let Some(wanted) = segments.wanted(extent) {
            let start = output.mark();
            if self.decode(wanted, extent, output).is_ok() {
                return Ok(());
            }
            // Not one segment for each block after all, or malformed: what counts is what comes of
            // decoding it all.
            output.rewind(&start);
        }
        self.decode(segments, extent, output)
    }

    fn inline(&mut self, extent: &Extent<'_>, out: &mut [u8]) -> Result {
        let input = extent.input;
        let headers = HEADER.saturating_mul(2);
        let payload = input.get(headers..).unwrap_or_default();
        let segment = header(input, HEADER).ok_or(EUCLEAN)?;
        if payload.is_empty()
            || payload.len() > worst_compress(extent.block)
            || header(input, 0) != Some(input.len())
            || segment != payload.len()
        {
            return Err(EUCLEAN);
        }
        let block = self.scratch.get_mut(..extent.block).ok_or(EINVAL)?;
        // SAFETY: A slice can be written to over its length.
        let made = unsafe { decompress(payload, block.as_mut_ptr(), block.len()) }?;
        if made < extent.ram_bytes {
            return Err(EIO);
        }
        let data = block.get(..out.len()).ok_or(EINVAL)?;
        out.copy_from_slice(data);
        Ok(())
    }
}

impl Lzo {
    /// Decodes segments until `output` is full or there are no more.
    fn decode(
        &mut self,
        mut segments: Segments<'_>,
        extent: &Extent<'_>,
        output: &mut Output<'_>,
    ) -> Result {
        // Of the segments that remain, all but the last have to be a block, if blocks were skipped.
        let mut blocks = segments.whole_blocks;
        let mut at = segments.at_out;
        let most = worst_compress(extent.block);
        while output.left() > 0 {
            let Some(payload) = segments.next_segment()? else {
                break;
            };
            let mut made = None;
            if at >= extent.skip && output.left() >= extent.block {
                output.chunk(extent.block, |to, len| {
                    if len == extent.block {
                        // SAFETY: `to` is memory to write to over `len` bytes, by `chunk()`.
                        made = unsafe { decompress(payload, to, len) }.ok();
                    }
                    // If it is malformed, or has more than a block, it is not done.
                    Ok(made.unwrap_or(0))
                })?;
            }
            let made = match made {
                Some(made) => made,
                None => {
                    let scratch = self.scratch.get_mut(..most).ok_or(EINVAL)?;
                    // SAFETY: A slice can be written to over its length.
                    let made = unsafe { decompress(payload, scratch.as_mut_ptr(), scratch.len()) }?;
                    let wanted = extent.skip.saturating_sub(at).min(made);
                    output.copy(scratch.get(wanted..made).ok_or(EIO)?)?;
                    made
                }
            };
            if let Some(blocks) = &mut blocks {
                if *blocks > 0 && made != extent.block {
                    return Err(EIO);
                }
                *blocks = blocks.saturating_sub(1);
            }
            at = at.saturating_add(made);
        }
        Ok(())
    }
}

/// The segments of an extent, from one on.
#[derive(Clone)]
struct Segments<'a> {
    input: &'a [u8],
    block: usize,
    /// Where the segments end, in bytes of the input.
    total: usize,
    /// Where the header of the next one is, in bytes of the input. It does not cross a block.
    at: usize,
    /// Where what it decodes to belongs, in bytes of the extent.
    at_out: usize,
    /// If that is known only because each segment should be a block: how many more should be.
    whole_blocks: Option<usize>,
}

impl<'a> Segments<'a> {
    /// Begins with the first segment; fails with `EUCLEAN` if the header of the extent is not
    /// valid.
    fn new(extent: &Extent<'a>) -> Result<Self> {
        let total = header(extent.input, 0).ok_or(EUCLEAN)?;
        let used = total.checked_next_multiple_of(extent.block);
        if total > MAX_EXTENT.min(extent.input.len()) || used.ok_or(EUCLEAN)? < extent.input.len() {
            return Err(EUCLEAN);
        }
        Ok(Self {
            input: extent.input,
            block: extent.block,
            total,
            at: HEADER,
            at_out: 0,
            whole_blocks: None,
        })
    }

    /// Begins with the segment of the first block that is wanted, without decoding those before.
    ///
    /// That each of those is a block is concluded from there being one segment for each block, and
    /// from each that is decoded being one. Where btrfs has compressed the extent that is so; of
    /// one that was written in encoded form it could be a lie, which its author is then told.
    ///
    /// `None` if it is the first one, or if there is not one segment for each block.
    fn wanted(&self, extent: &Extent<'_>) -> Option<Self> {
        let first = extent.skip.checked_div(extent.block)?;
        if first == 0 {
            return None;
        }
        let mut wanted = None;
        let mut count = 0usize;
        let mut next = self.clone();
        loop {
            if count == first {
                wanted = Some(next.clone());
            }
            if next.next_segment().ok()?.is_none() {
                break;
            }
            count = count.saturating_add(1);
        }
        let size = extent.ram_bytes.checked_next_multiple_of(extent.block)?;
        if count <= first || count.saturating_mul(extent.block) != size {
            return None;
        }
        let mut wanted = wanted?;
        wanted.at_out = first.saturating_mul(extent.block);
        wanted.whole_blocks = Some(count.saturating_sub(first).saturating_sub(1));
        Some(wanted)
    }

    /// Returns the next segment without its header, `None` at the end.
    ///
    /// Fails with `EIO` if it is longer than any segment can be, with `EUCLEAN` if it is longer
    /// than the input.
    fn next_segment(&mut self) -> Result<Option<&'a [u8]>> {
        if self.at >= self.total {
            return Ok(None);
        }
        let len = header(self.input, self.at).ok_or(EUCLEAN)?;
        if len > worst_compress(self.block) {
            return Err(EIO);
        }
        let start = self.at.saturating_add(HEADER);
        let end = start.saturating_add(len);
        let payload = self.input.get(start..end).ok_or(EUCLEAN)?;
        // A header that does not fit into a block is in the next one.
        let block_end = end.checked_next_multiple_of(self.block).ok_or(EUCLEAN)?;
        self.at = if block_end.saturating_sub(end) < HEADER {
            block_end
        } else {
            end
        };
        Ok(Some(payload))
    }
}

/// Returns the length that the header at `at` holds, `None` if it does not lie within the input.
fn header(input: &[u8], at: usize) -> Option<usize> {
    let bytes = input.get(at..at.checked_add(HEADER)?)?;
    usize::try_from(u32::from_le_bytes(bytes.try_into().ok()?)).ok()
}

/// Returns the most bytes that `len` bytes can become when they are compressed.
fn worst_compress(len: usize) -> usize {
    // SAFETY: The function has no preconditions.
    unsafe { bindings::bdio_lzo1x_worst_compress(len) }
}

/// Decompresses one segment to `to`, and returns how many bytes it had. `EIO` if it is malformed,
/// or has more than `len` bytes.
///
/// # Safety
///
/// `to` must be valid for writes of `len` bytes for the duration of the call.
unsafe fn decompress(payload: &[u8], to: *mut u8, len: usize) -> Result<usize> {
    let mut made = len;
    // SAFETY: `payload` is readable over its length, `to` can be written to over `made` bytes by
    // the contract of this function. The function checks every access against both.
    let ret =
        unsafe { bindings::lzo1x_decompress_safe(payload.as_ptr(), payload.len(), to, &mut made) };
    if ret == OK {
        Ok(made.min(len))
    } else {
        Err(EIO)
    }
}
