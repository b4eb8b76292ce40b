// SPDX-License-Identifier: GPL-2.0

//! Tracepoints, as safe functions.
//!
//! C header: `rust/helpers/trace.h`

use super::btrfs::inode::Inode;
use crate::bindings;
use kernel::prelude::*;

/// A read has been offered: `offset` and `length` in bytes as the caller gave them.
#[inline]
pub(crate) fn read_begin(inode: Inode<'_>, offset: i64, length: usize) {
    // SAFETY: The inode is valid by its type invariants; the rest are plain integers.
    unsafe { bindings::bdio_trace_read_begin(inode.as_vfs(), offset, length) }
}

/// A read has been served: `result` is what its caller sees, bytes or an error.
#[inline]
pub(crate) fn read_end(inode: Inode<'_>, offset: i64, length: usize, result: Result<usize>) {
    let result = match result {
        // CAST: A count of bytes read is at most `MAX_RW_COUNT`, less than 2^31.
        Ok(bytes) => bytes as isize,
        Err(e) => e.to_errno() as isize,
    };
    // SAFETY: As in `read_begin()`.
    unsafe { bindings::bdio_trace_read_end(inode.as_vfs(), offset, length, result) }
}
