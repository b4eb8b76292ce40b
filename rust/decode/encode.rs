// SPDX-License-Identifier: GPL-2.0

//! Compression of extents, in the framing of btrfs. For the tests.
//!
//! Task context, may sleep; fails with `ENOMEM`, and with `EINVAL` if a compressor fails.

use crate::bindings;
use core::{
    ffi::c_int,
    mem::size_of, //
};
use kernel::prelude::*;

/// Bytes by which incompressible data may grow, and headers.
const SLACK: usize = 8 << 10;

/// Compresses `data` to a zlib stream, flushed after each block, with a window of `2^window_bits`
/// bytes.
pub(crate) fn zlib(data: &[u8], block: usize, window_bits: u8) -> Result<KVVec<u8>> {
    // CAST: Small numbers.
    let (max_bits, level) = (
        bindings::MAX_WBITS as c_int,
        bindings::MAX_MEM_LEVEL as c_int,
    );
    // SAFETY: The function has no preconditions.
    let size = unsafe { bindings::zlib_deflate_workspacesize(max_bits, level) };
    let mut workspace = KVVec::<u64>::zeroed(
        usize::try_from(size)?.div_ceil(size_of::<u64>()),
        GFP_KERNEL,
    )?;
    let mut out = KVVec::<u8>::zeroed(data.len() * 2 + SLACK, GFP_KERNEL)?;
    let mut stream = bindings::z_stream {
        workspace: workspace.as_mut_ptr().cast(),
        next_out: out.as_mut_ptr(),
        avail_out: out.len(),
        ..Default::default()
    };
    // SAFETY: The workspace is large enough for any window.
    let ret = unsafe {
        bindings::zlib_deflateInit2(
            &mut stream,
            3,
            bindings::Z_DEFLATED as c_int,
            c_int::from(window_bits),
            8,
            bindings::Z_DEFAULT_STRATEGY as c_int,
        )
    };
    if ret != bindings::Z_OK as c_int {
        return Err(EINVAL);
    }
    for piece in data.chunks(block) {
        stream.next_in = piece.as_ptr();
        stream.avail_in = piece.len();
        // SAFETY: The stream is initialised, its input and output are slices.
        let ret = unsafe { bindings::zlib_deflate(&mut stream, bindings::Z_SYNC_FLUSH as c_int) };
        if ret != bindings::Z_OK as c_int || stream.avail_in != 0 {
            return Err(EINVAL);
        }
    }
    // SAFETY: As above.
    let ret = unsafe { bindings::zlib_deflate(&mut stream, bindings::Z_FINISH as c_int) };
    if ret != bindings::Z_STREAM_END as c_int {
        return Err(EINVAL);
    }
    out.truncate(stream.total_out);
    Ok(out)
}

/// Compresses `data` to a Zstandard frame.
pub(crate) fn zstd(data: &[u8]) -> Result<KVVec<u8>> {
    // SAFETY: The function has no preconditions.
    let mut params = unsafe { bindings::zstd_get_params(3, data.len() as u64) };
    params.cParams.windowLog = params.cParams.windowLog.min(17);
    // SAFETY: The parameters are valid.
    let size = unsafe { bindings::zstd_cctx_workspace_bound(&params.cParams) };
    let mut workspace = KVVec::<u64>::zeroed(size.div_ceil(size_of::<u64>()), GFP_KERNEL)?;
    let mut out = KVVec::<u8>::zeroed(data.len() * 2 + SLACK, GFP_KERNEL)?;
    // SAFETY: The workspace has that size; input and output are slices.
    let ret = unsafe {
        let cctx = bindings::zstd_init_cctx(workspace.as_mut_ptr().cast(), size);
        if cctx.is_null() {
            return Err(EINVAL);
        }
        bindings::zstd_compress_cctx(
            cctx,
            out.as_mut_ptr().cast(),
            out.len(),
            data.as_ptr().cast(),
            data.len(),
            &params,
        )
    };
    // SAFETY: The function has no preconditions.
    if unsafe { bindings::zstd_is_error(ret) } != 0 {
        return Err(EINVAL);
    }
    out.truncate(ret);
    Ok(out)
}

/// Compresses `data` to an LZO segment, without any header.
pub(crate) fn lzo_segment(data: &[u8]) -> Result<KVVec<u8>> {
    let mut workspace =
        KVVec::<u64>::zeroed(bindings::LZO1X_MEM_COMPRESS / size_of::<u64>(), GFP_KERNEL)?;
    let mut out = KVVec::<u8>::zeroed(data.len() * 2 + SLACK, GFP_KERNEL)?;
    let mut len = out.len();
    // SAFETY: Input and output are slices, the output long enough for any input; the workspace has
    // the size that is demanded.
    let ret = unsafe {
        bindings::lzo1x_1_compress(
            data.as_ptr(),
            data.len(),
            out.as_mut_ptr(),
            &mut len,
            workspace.as_mut_ptr().cast(),
        )
    };
    if ret != bindings::LZO_E_OK as c_int {
        return Err(EINVAL);
    }
    out.truncate(len);
    Ok(out)
}
