// SPDX-License-Identifier: GPL-2.0

//! A direct read that btrfs offers to us: its iocb and its iterator.
//!
//! C headers: [`include/linux/fs.h`](srctree/include/linux/fs.h),
//! [`include/linux/uio.h`](srctree/include/linux/uio.h)

use super::btrfs::inode::Inode;
use crate::bindings;
use core::ptr::NonNull;
use kernel::{
    bindings as kbindings,
    prelude::*,
    types::NotThreadSafe, //
};

/// What the memory of a read is described by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Buffer {
    /// User memory: one range, or an array of them.
    User,
    /// Kernel pages.
    Pages,
    /// Anything else an `iov_iter` can be.
    Other,
}

/// An O_DIRECT read in the context of its submitter.
///
/// Nothing that is done through it can be seen by the caller of `read_iter` until it is consumed
/// by [`Self::serve`]; if it is dropped instead, the iterator is as it was.
///
/// # Invariants
///
/// * `iocb` and `iter` point to a live `struct kiocb` and `struct iov_iter` that nobody else uses
///   for as long as `'a`. The file of the iocb is a regular file of btrfs, open for reading.
/// * `saved` is a copy of `*iter` as it was when this was made.
pub(crate) struct DirectRead<'a> {
    iocb: NonNull<kbindings::kiocb>,
    iter: NonNull<kbindings::iov_iter>,
    saved: kbindings::iov_iter,
    inode: Inode<'a>,
    _not_send: NotThreadSafe,
}

impl<'a> DirectRead<'a> {
    /// Wraps the arguments of `read_iter`.
    ///
    /// # Safety
    ///
    /// For `'a`, `iocb` and `iter` must be valid and used by nobody else, `iter` must be a
    /// destination, and the file of `iocb` must be an open regular file of btrfs.
    pub(crate) unsafe fn from_raw(
        iocb: NonNull<kbindings::kiocb>,
        iter: NonNull<kbindings::iov_iter>,
    ) -> Self {
        // SAFETY: `iocb` is valid by the contract of this function.
        let inode = unsafe { bindings::bdio_file_inode(iocb.as_ptr()) };
        // INVARIANT: Promised by the contract; `saved` is read from `iter` here.
        Self {
            iocb,
            iter,
            // SAFETY: `iter` is valid, and `struct iov_iter` is plain data: the arrays it points
            // to are not changed by advancing it.
            saved: unsafe { iter.as_ptr().read() },
            // SAFETY: The file is a file of btrfs, so its inode lies within a btrfs inode; the
            // iocb holds the file, and so the inode, for `'a`.
            inode: unsafe { Inode::from_vfs(inode) },
            _not_send: NotThreadSafe,
        }
    }

    /// Returns the inode that is read.
    pub(crate) fn inode(&self) -> Inode<'a> {
        self.inode
    }

    /// Returns the offset in the file, in bytes.
    pub(crate) fn pos(&self) -> i64 {
        // SAFETY: By the type invariants the iocb is valid.
        unsafe { (*self.iocb.as_ptr()).ki_pos }
    }

    /// Returns the I/O priority that the submitter asked for.
    pub(crate) fn ioprio(&self) -> u16 {
        // SAFETY: By the type invariants the iocb is valid.
        unsafe { (*self.iocb.as_ptr()).ki_ioprio }
    }

    /// Returns whether the caller waits for the result of `read_iter`.
    pub(crate) fn is_sync(&self) -> bool {
        // SAFETY: By the type invariants the iocb is valid.
        unsafe { bindings::bdio_is_sync_kiocb(self.iocb.as_ptr()) }
    }

    /// Returns whether the read may not wait.
    pub(crate) fn is_nowait(&self) -> bool {
        // SAFETY: By the type invariants the iocb is valid. `ki_flags` is plain data.
        let flags = unsafe { (*self.iocb.as_ptr()).ki_flags };
        // CAST: Flags, looked at bit by bit.
        (flags as u32) & bindings::IOCB_NOWAIT != 0
    }

    /// Returns the number of bytes that are left in the iterator.
    pub(crate) fn count(&self) -> usize {
        // SAFETY: By the type invariants the iterator is valid.
        unsafe {
            (*self.iter.as_ptr())
                .__bindgen_anon_1
                .__bindgen_anon_1
                .as_ref()
                .count
        }
    }

    /// Returns all bits that are set in the address or the length of any piece of the buffer.
    pub(crate) fn alignment(&self) -> usize {
        // SAFETY: By the type invariants the iterator is valid.
        unsafe { kbindings::iov_iter_alignment(self.iter.as_ptr()) }
    }

    /// Returns what the buffer is made of.
    pub(crate) fn buffer(&self) -> Buffer {
        let iter = self.iter.as_ptr();
        // SAFETY: By the type invariants the iterator is valid.
        unsafe {
            if bindings::bdio_iter_is_ubuf(iter) || bindings::bdio_iter_is_iovec(iter) {
                Buffer::User
            } else if bindings::bdio_iter_is_bvec(iter) {
                Buffer::Pages
            } else {
                Buffer::Other
            }
        }
    }

    /// Returns whether two of the user ranges overlap, so that their order of being filled counts.
    ///
    /// One pass if the ranges come in ascending order, as they nearly always do; otherwise one
    /// pass for each range.
    pub(crate) fn ranges_overlap(&self) -> bool {
        let iter = self.iter.as_ptr();
        // SAFETY: By the type invariants the iterator is valid.
        if !unsafe { bindings::bdio_iter_is_iovec(iter) } {
            return false;
        }
        // SAFETY: As above; the iterator has an iovec array, of `nr_segs` entries from the current
        // one on, that does not change while `read_iter` runs: it is a copy in the kernel.
        let ranges = unsafe {
            let first = bindings::bdio_iter_iov(iter);
            core::slice::from_raw_parts(first, (*iter).__bindgen_anon_2.nr_segs)
        };
        let bounds = |v: &kbindings::iovec| {
            let start = v.iov_base as usize;
            (start, start.saturating_add(v.iov_len))
        };
        let ascending = ranges
            .windows(2)
            .all(|w| matches!(w, [a, b] if bounds(a).1 <= bounds(b).0));
        if ascending {
            return false;
        }
        ranges.iter().enumerate().any(|(i, a)| {
            let (a_start, a_end) = bounds(a);
            ranges.iter().skip(i.saturating_add(1)).any(|b| {
                let (b_start, b_end) = bounds(b);
                a_start < b_end && b_start < a_end
            })
        })
    }

    /// Returns the iterator, for [`super::user_pages`] to take pages from.
    pub(super) fn iter(&mut self) -> NonNull<kbindings::iov_iter> {
        self.iter
    }

    /// Ends the read with `result`: what the caller is told, and the iterator and the position
    /// moved by exactly the bytes read.
    pub(super) fn serve(self, result: Result<usize>) -> isize {
        self.restore();
        let ret = match result {
            Ok(bytes) => {
                let bytes = bytes.min(self.count());
                // CAST: At most `MAX_RW_COUNT`, less than 2^31.
                let moved = bytes as i64;
                let pos = self.pos().saturating_add(moved);
                // SAFETY: By the type invariants iocb and iterator are valid and ours. The
                // iterator has just been restored and has at least `bytes` left.
                unsafe {
                    kbindings::iov_iter_advance(self.iter.as_ptr(), bytes);
                    (*self.iocb.as_ptr()).ki_pos = pos;
                }
                moved as isize
            }
            Err(e) => e.to_errno() as isize,
        };
        // What `drop` would undo has just been decided.
        core::mem::forget(self);
        ret
    }

    /// Puts the iterator back to where it was.
    fn restore(&self) {
        // SAFETY: By the type invariants `iter` is valid and ours, and `saved` is a copy of it.
        unsafe { self.iter.as_ptr().write(core::ptr::read(&self.saved)) }
    }
}

impl Drop for DirectRead<'_> {
    fn drop(&mut self) {
        self.restore();
    }
}
