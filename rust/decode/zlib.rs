// SPDX-License-Identifier: GPL-2.0

//! zlib, as `zlib_decompress_bio()` and `zlib_decompress()` of
//! [`fs/btrfs/zlib.c`](srctree/fs/btrfs/zlib.c) read it.
//!
//! C header: [`include/linux/zlib.h`](srctree/include/linux/zlib.h)

use super::{
    stream::{
        self,
        Step,
        Stream,
        SCRATCH, //
    },
    Decoder,
    Extent,
    Output, //
};
use crate::bindings;
use core::{
    ffi::c_int,
    marker::PhantomData,
    mem::size_of, //
};
use kernel::{
    alloc::Flags,
    prelude::*, //
};

// CAST: Small numbers.
const OK: c_int = bindings::Z_OK as c_int;
const STREAM_END: c_int = bindings::Z_STREAM_END as c_int;
const NO_FLUSH: c_int = bindings::Z_NO_FLUSH as c_int;
const MAX_WBITS: c_int = bindings::MAX_WBITS as c_int;

/// A zlib decoder.
pub(super) struct Zlib {
    /// What inflate works in.
    workspace: KVVec<u64>,
    /// For what is not wanted.
    scratch: KVVec<u8>,
}

impl Decoder for Zlib {
    fn new(gfp: Flags) -> Result<Self> {
        // SAFETY: The function has no preconditions.
        let size = usize::try_from(unsafe { bindings::zlib_inflate_workspacesize() })?;
        Ok(Self {
            workspace: KVVec::zeroed(size.div_ceil(size_of::<u64>()), gfp)?,
            scratch: KVVec::zeroed(SCRATCH, gfp)?,
        })
    }

    fn extent(&mut self, extent: &Extent<'_>, output: &mut Output<'_>) -> Result {
        let mut inflate = Inflate::new(self.workspace.as_mut_slice(), extent.input)?;
        stream::extent(&mut inflate, &mut self.scratch, extent, output)
    }

    fn inline(&mut self, extent: &Extent<'_>, out: &mut [u8]) -> Result {
        let mut inflate = Inflate::new(self.workspace.as_mut_slice(), extent.input)?;
        stream::inline(&mut inflate, &mut self.scratch, extent, out)
    }
}

/// A stream that is being inflated.
///
/// Nothing has to be undone at its end: all that there is lies in the workspace.
///
/// # Invariants
///
/// `stream` has been initialised with a workspace that is as large as inflate needs, and ours for
/// `'a`; `next_in` has `avail_in` bytes that do not change for `'a`.
struct Inflate<'a> {
    stream: bindings::z_stream,
    _workspace: PhantomData<&'a mut [u64]>,
    _input: PhantomData<&'a [u8]>,
}

impl<'a> Inflate<'a> {
    /// Starts at the beginning of `input`, in a workspace that was made by [`Zlib::new`].
    fn new(workspace: &'a mut [u64], input: &'a [u8]) -> Result<Self> {
        let (window_bits, body) = frame(input);
        let mut stream = bindings::z_stream {
            next_in: body.as_ptr(),
            avail_in: body.len(),
            workspace: workspace.as_mut_ptr().cast(),
            ..Default::default()
        };
        // SAFETY: `workspace` is as large as the function wants it, and ours alone.
        match unsafe { bindings::zlib_inflateInit2(&mut stream, window_bits) } {
            // INVARIANT: As just done.
            OK => Ok(Self {
                stream,
                _workspace: PhantomData,
                _input: PhantomData,
            }),
            _ => Err(EIO),
        }
    }
}

/// Returns the size of the window and the stream.
///
/// Where btrfs does, the header is passed over and the size made negative, which is what says so to
/// inflate: the checksum at the end is then not computed. It would be of no use, there is one of
/// the filesystem.
fn frame(input: &[u8]) -> (c_int, &[u8]) {
    match input {
        &[method, flags, ref body @ ..]
            if !body.is_empty()
                && u32::from(flags) & bindings::PRESET_DICT == 0
                && u32::from(method) & 0x0f == bindings::Z_DEFLATED
                && u16::from_be_bytes([method, flags]) % 31 == 0 =>
        {
            // OVERFLOW: 8 to 23. Above 15 inflate refuses.
            (-(c_int::from(method >> 4) + 8), body)
        }
        _ => (MAX_WBITS, input),
    }
}

impl Stream for Inflate<'_> {
    unsafe fn step(&mut self, to: *mut u8, len: usize) -> Result<Step> {
        self.stream.next_out = to;
        self.stream.avail_out = len;
        // SAFETY: By the type invariants for input and workspace; `to` can be written to over `len`
        // bytes by the contract of this function.
        let ret = unsafe { bindings::zlib_inflate(&mut self.stream, NO_FLUSH) };
        let made = len.saturating_sub(self.stream.avail_out);
        match ret {
            OK => Ok(Step { made, end: false }),
            STREAM_END => Ok(Step { made, end: true }),
            _ => Err(EIO),
        }
    }
}
