// SPDX-License-Identifier: GPL-2.0

//! Zstandard, as `zstd_decompress_bio()` and `zstd_decompress()` of
//! [`fs/btrfs/zstd.c`](srctree/fs/btrfs/zstd.c) read it.
//!
//! C header: [`include/linux/zstd.h`](srctree/include/linux/zstd.h)

use super::{
    stream::{
        self,
        Step,
        Stream,
        SCRATCH, //
    },
    Decoder,
    Extent,
    Output,
    MAX_EXTENT, //
};
use crate::bindings;
use core::{
    marker::PhantomData,
    mem::{
        size_of,
        size_of_val, //
    },
    ptr::NonNull, //
};
use kernel::{
    alloc::Flags,
    prelude::*, //
};

/// The largest window that is decoded, in bytes: `ZSTD_BTRFS_MAX_INPUT`. It is the size of the
/// workspace that enforces it, unless a frame says how long it is, and all of it is wanted in one
/// chunk: that is decoded where it goes, without a window.
const MAX_WINDOW: usize = MAX_EXTENT;

/// A Zstandard decoder.
pub(super) struct Zstd {
    /// What the library works in; aligned as it demands.
    workspace: KVVec<u64>,
    /// For what is not wanted.
    scratch: KVVec<u8>,
}

impl Decoder for Zstd {
    fn new(gfp: Flags) -> Result<Self> {
        // SAFETY: The function has no preconditions.
        let size = unsafe { bindings::zstd_dstream_workspace_bound(MAX_WINDOW) };
        Ok(Self {
            workspace: KVVec::zeroed(size.div_ceil(size_of::<u64>()), gfp)?,
            scratch: KVVec::zeroed(SCRATCH, gfp)?,
        })
    }

    fn extent(&mut self, extent: &Extent<'_>, output: &mut Output<'_>) -> Result {
        let mut frame = Frame::new(self.workspace.as_mut_slice(), extent.input)?;
        stream::extent(&mut frame, &mut self.scratch, extent, output)
    }

    fn inline(&mut self, extent: &Extent<'_>, out: &mut [u8]) -> Result {
        let mut frame = Frame::new(self.workspace.as_mut_slice(), extent.input)?;
        stream::inline(&mut frame, &mut self.scratch, extent, out)
    }
}

/// A frame that is being decoded.
///
/// Nothing has to be undone at its end: all that there is lies in the workspace.
///
/// # Invariants
///
/// `stream` was made in a workspace that is ours for `'a`; `input` describes bytes that do not
/// change for `'a`.
struct Frame<'a> {
    stream: NonNull<bindings::zstd_dstream>,
    input: bindings::zstd_in_buffer,
    _workspace: PhantomData<&'a mut [u64]>,
    _input: PhantomData<&'a [u8]>,
}

impl<'a> Frame<'a> {
    /// Starts at the beginning of `input`.
    fn new(workspace: &'a mut [u64], input: &'a [u8]) -> Result<Self> {
        // SAFETY: `workspace` is memory of the size that is given, and ours alone.
        let stream = unsafe {
            bindings::zstd_init_dstream(
                MAX_WINDOW,
                workspace.as_mut_ptr().cast(),
                size_of_val(workspace),
            )
        };
        // INVARIANT: As just done.
        Ok(Self {
            stream: NonNull::new(stream).ok_or(EIO)?,
            input: bindings::zstd_in_buffer {
                src: input.as_ptr().cast(),
                size: input.len(),
                pos: 0,
            },
            _workspace: PhantomData,
            _input: PhantomData,
        })
    }
}

impl Stream for Frame<'_> {
    unsafe fn step(&mut self, to: *mut u8, len: usize) -> Result<Step> {
        let mut out = bindings::zstd_out_buffer {
            dst: to.cast(),
            size: len,
            pos: 0,
        };
        // SAFETY: By the type invariants for stream and input; `to` can be written to over `len`
        // bytes by the contract of this function.
        let (ret, failed) = unsafe {
            let ret =
                bindings::zstd_decompress_stream(self.stream.as_ptr(), &mut out, &mut self.input);
            (ret, bindings::zstd_is_error(ret) != 0)
        };
        if failed {
            return Err(EIO);
        }
        let made = out.pos.min(len);
        // As in btrfs, a frame that is cut off is one that has ended.
        let used_up = made == 0 && self.input.pos >= self.input.size;
        Ok(Step {
            made,
            end: ret == 0 || used_up,
        })
    }
}
