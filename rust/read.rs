// SPDX-License-Identifier: GPL-2.0

//! A direct read that btrfs offers to us: its iocb and its iterator.
//!
//! C headers: [`include/linux/fs.h`](srctree/include/linux/fs.h),
//! [`include/linux/uio.h`](srctree/include/linux/uio.h)

use super::{
    btrfs::{
        extent_lock::WriterLock,
        inode::{
            DioCount,
            Inode,
            SharedInode, //
        },
    },
    patience::Patience,
    user_pages::{
        clamp_errno,
        UserPages, //
    },
};
use crate::bindings;
use core::{
    mem::MaybeUninit,
    ptr::NonNull, //
};
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
/// * If `detached`, an [`AsyncRead`] owns the iocb, and neither it nor the iterator is ours.
pub(crate) struct DirectRead<'a> {
    iocb: NonNull<kbindings::kiocb>,
    iter: NonNull<kbindings::iov_iter>,
    saved: kbindings::iov_iter,
    inode: Inode<'a>,
    detached: bool,
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
            detached: false,
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
        // As `is_sync_kiocb()`, include/linux/fs.h.
        // SAFETY: By the type invariants the iocb is valid. What completes it is plain data.
        unsafe { (*self.iocb.as_ptr()).ki_complete.is_none() }
    }

    /// Returns whether the read may not wait.
    pub(crate) fn is_nowait(&self) -> bool {
        // SAFETY: By the type invariants the iocb is valid. `ki_flags` is plain data.
        let flags = unsafe { (*self.iocb.as_ptr()).ki_flags };
        // CAST: Flags, looked at bit by bit.
        (flags as u32) & bindings::IOCB_NOWAIT != 0
    }

    /// Moves the access time of the file if that is due, by the rules of the mount and of the file. Under
    /// relatime it may lag by a second.
    ///
    /// Moving it takes a transaction, which may wait. A read that may not wait leaves the access time as
    /// it is if its caller waits for the answer (`RWF_NOWAIT`). It fails with `EAGAIN` if not: io_uring
    /// issues the read again from a worker then. Task context, sleeps otherwise; no lock of the
    /// filesystem held.
    #[inline]
    pub(crate) fn note_access(&self) -> Result {
        let iocb = self.iocb.as_ptr();
        // SAFETY: By the type invariants the iocb is valid, and its file is of btrfs.
        if !unsafe { bindings::bdio_atime_is_due(iocb) } {
            return Ok(());
        }
        self.move_access_time()
    }

    /// As [`Self::note_access`], once it is due.
    #[cold]
    fn move_access_time(&self) -> Result {
        let iocb = self.iocb.as_ptr();
        // SAFETY: By the type invariants the iocb is valid, and its file is of btrfs.
        let lags = unsafe { bindings::bdio_atime_lags(iocb) };
        match (lags, self.is_nowait()) {
            (false, _) => {}
            (true, true) if self.is_sync() => {}
            (true, true) => return Err(EAGAIN),
            // SAFETY: As above. The function may sleep here, and fails silently.
            (true, false) => unsafe { bindings::bdio_file_accessed(iocb) },
        }
        Ok(())
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

    /// Returns which kind of iterator there is.
    fn iter_type(&self) -> kbindings::iter_type {
        // SAFETY: By the type invariants the iterator is valid. Its kind is plain data.
        unsafe { (*self.iter.as_ptr()).iter_type }.into()
    }

    /// Returns what the buffer is made of.
    pub(crate) fn buffer(&self) -> Buffer {
        match self.iter_type() {
            kbindings::iter_type_ITER_UBUF | kbindings::iter_type_ITER_IOVEC => Buffer::User,
            kbindings::iter_type_ITER_BVEC => Buffer::Pages,
            _ => Buffer::Other,
        }
    }

    /// Returns whether two of the user ranges overlap, so that their order of being filled counts.
    ///
    /// One pass if the ranges come in ascending order, as they nearly always do; otherwise one
    /// pass for each range.
    pub(crate) fn ranges_overlap(&self) -> bool {
        let iter = self.iter.as_ptr();
        if self.iter_type() != kbindings::iter_type_ITER_IOVEC {
            return false;
        }
        // SAFETY: By the type invariants the iterator is valid. It has an iovec array, of `nr_segs`
        // entries from the current one on, that does not change while `read_iter` runs: it is a copy
        // in the kernel.
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

    /// Returns how many ranges or vectors the buffer may consist of, at least 1.
    pub(crate) fn ranges(&self) -> usize {
        // SAFETY: By the type invariants the iterator is valid, and of a kind that counts its
        // segments, [`Buffer::Other`] aside, of which any number will do.
        let segments = unsafe { (*self.iter.as_ptr()).__bindgen_anon_2.nr_segs };
        segments.max(1)
    }

    /// Returns the iterator, for [`super::user_pages`] to take pages from.
    pub(super) fn iter(&mut self) -> NonNull<kbindings::iov_iter> {
        self.iter
    }

    /// Ends the read with `result`: what the caller is told, and the iterator and the position
    /// moved by exactly the bytes read.
    pub(super) fn serve(self, result: Result<usize>) -> isize {
        if self.detached {
            return self.queued();
        }
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

    /// Returns what the caller of a read is told that has been detached.
    pub(super) fn queued(self) -> isize {
        // CAST: A small number.
        -(kbindings::EIOCBQUEUED as isize)
    }

    /// Begins to make the read one that completes later: pins the first `want` bytes of its buffer. As
    /// [`UserPages::pin`]; `EINVAL` if the caller waits for the read, or if one of them has been
    /// detached before.
    pub(crate) fn board<'s>(
        &'s mut self,
        later: &'s mut AsyncRead,
        want: usize,
        patience: Patience,
    ) -> Result<Boarding<'s, 'a>> {
        if self.detached || self.is_sync() || later.iocb.is_some() {
            return Err(EINVAL);
        }
        // SAFETY: They are handed out by what is returned only, which borrows the read, or are
        // released; or the read is detached, and is over when it is completed, which releases them.
        unsafe { later.pages.pin_for_now(self, want, patience)? };
        // INVARIANT: Just pinned, of this read.
        Ok(Boarding { read: self, later })
    }

    /// Puts the iterator back to where it was, for the read to be begun again.
    pub(crate) fn rewind(&mut self) {
        self.restore();
    }

    /// Puts the iterator back to where it was.
    fn restore(&self) {
        if self.detached {
            return;
        }
        // SAFETY: By the type invariants `iter` is valid and ours, and `saved` is a copy of it.
        unsafe { self.iter.as_ptr().write(core::ptr::read(&self.saved)) }
    }
}

impl Drop for DirectRead<'_> {
    fn drop(&mut self) {
        self.restore();
    }
}

/// A read that is about to become one that completes later.
///
/// # Invariants
///
/// Neither has been detached. The pages of `later` are the first ones of the buffer of `read`.
pub(crate) struct Boarding<'s, 'a> {
    read: &'s mut DirectRead<'a>,
    later: &'s mut AsyncRead,
}

impl<'a> Boarding<'_, 'a> {
    /// Returns the read.
    pub(crate) fn read(&self) -> &DirectRead<'a> {
        self.read
    }

    /// Returns the pages of its buffer.
    pub(crate) fn pages(&self) -> &UserPages<'a> {
        // No longer than the read, though for now they are `'static` by name.
        &self.later.pages
    }

    /// Makes the read one that completes later, whose caller is told `EIOCBQUEUED`.
    ///
    /// Without `inode`, nothing keeps truncation away until a worker locks it.
    pub(crate) fn detach(self, inode: Option<SharedInode<'a>>, writers: Option<WriterLock<'a>>) {
        let count = inode.map(SharedInode::into_count);
        // SAFETY: `'a` is the duration of the read, which from now on ends with its completion:
        // file, inode and filesystem are there until then. `AsyncRead` drops all of these before it
        // completes.
        let (count, writers) = unsafe {
            (
                core::mem::transmute::<Option<DioCount<'a>>, Option<DioCount<'static>>>(count),
                core::mem::transmute::<Option<WriterLock<'a>>, Option<WriterLock<'static>>>(
                    writers,
                ),
            )
        };
        // INVARIANT: The iocb and the iterator are not used by the read from here on. The caller will be
        // told that the iocb completes later, and it is used by nobody else until then. Kernel pages of
        // the buffer are there until then, too; user pages are pinned.
        self.read.detached = true;
        self.later.iocb = Some(self.read.iocb);
        self.later.writers = writers;
        self.later.count = count;
    }
}

impl Drop for Boarding<'_, '_> {
    fn drop(&mut self) {
        if self.later.iocb.is_none() {
            self.later.pages.release();
            self.read.restore();
        }
    }
}

/// An O_DIRECT read whose caller does not wait: it owns the iocb until it completes it, once.
///
/// Dropped instead, it fails with `EIO`.
///
/// # States
///
/// | state     | what is there                                     | ends by                   |
/// |-----------|---------------------------------------------------|---------------------------|
/// | boarding  | pages, if there is a [`Boarding`]                 | [`Boarding::detach`]      |
/// | parked    | pages: it waits for memory                        | a worker locks the inode  |
/// | in flight | pages, count of direct I/O, lock against writers  | [`Self::let_writers_in`]  |
/// | landed    | pages, count of direct I/O                        | `complete`, `read_on`     |
/// | read on   | pages: btrfs takes the locks it needs             | `complete`                |
/// | completed | nothing: neither iocb nor inode may be touched    |                           |
///
/// # Invariants
///
/// * `iocb`, if there is one, is a live iocb, not yet completed, that nobody else uses. It holds the
///   file.
/// * All that borrows from the file, `'static` only in name, is dropped before it completes, and used
///   while there is an iocb only, or by a [`Boarding`].
pub(crate) struct AsyncRead {
    iocb: Option<NonNull<kbindings::kiocb>>,
    pages: UserPages<'static>,
    writers: Option<WriterLock<'static>>,
    count: Option<DioCount<'static>>,
}

// SAFETY: An iocb may be completed by any task, and so may the locks be released that are in here:
// they belong to the inode, not to a task.
unsafe impl Send for AsyncRead {}
// SAFETY: By reference it only hands out what is `Sync`, or bound to a reference of the inode.
unsafe impl Sync for AsyncRead {}

impl AsyncRead {
    /// Makes one that has nothing so far. To be made where it stays.
    #[inline(always)]
    pub(crate) fn new() -> Self {
        Self {
            iocb: None,
            pages: UserPages::none(),
            writers: None,
            count: None,
        }
    }

    /// Returns the pages of the buffer.
    pub(crate) fn pages(&self) -> Option<&UserPages<'_>> {
        self.iocb.map(|_| &self.pages)
    }

    /// Returns the inode, with truncation and the like kept away; `None` once it has been read on.
    pub(crate) fn inode(&self) -> Option<&DioCount<'_>> {
        self.count.as_ref()
    }

    /// Lets direct writers in: the data has been read, or will be read again.
    pub(crate) fn let_writers_in(&mut self) {
        self.writers = None;
    }

    /// Lets all in: what is left is read on.
    pub(crate) fn let_all_in(&mut self) {
        self.writers = None;
        self.count = None;
    }

    /// Returns the inode, of which nothing is kept away; `None` if the read is not ours.
    pub(crate) fn file(&self) -> Option<Inode<'_>> {
        let iocb = self.iocb?;
        // SAFETY: By the type invariants the iocb is live, and holds a file of btrfs.
        Some(unsafe { Inode::from_vfs(bindings::bdio_file_inode(iocb.as_ptr())) })
    }

    /// Returns the length of the buffer in bytes, as far as it was taken.
    pub(crate) fn len(&self) -> usize {
        self.pages.len()
    }

    /// Returns the offset in the file, in bytes; 0 if the read is not ours.
    pub(crate) fn pos(&self) -> i64 {
        // SAFETY: By the type invariants the iocb is live.
        self.iocb
            .map_or(0, |iocb| unsafe { (*iocb.as_ptr()).ki_pos })
    }

    /// Has the rest read, behind the first `done` bytes, as any synchronous direct read of the file
    /// is: btrfs may offer it to us again. Returns how many bytes there are then in all, at most
    /// `valid`: more only if the file has grown since the read began.
    ///
    /// Task context, sleeps; no extent bit may be held but those of this read, which end here.
    pub(crate) fn read_on(&mut self, done: usize, valid: usize) -> Result<usize> {
        // Whoever truncates holds `i_rwsem`, which is taken next, and waits for the count.
        self.let_all_in();
        let (Some(iocb), Some(pages)) = (self.iocb, self.pages()) else {
            return Err(EIO);
        };
        let vecs = pages.as_bvecs();
        let left = pages.len().saturating_sub(done);
        let mut iter = MaybeUninit::<kbindings::iov_iter>::uninit();
        // CAST: At most `MAX_RW_COUNT`, less than 2^31.
        let pos = self.pos().saturating_add(done as i64);
        // SAFETY: The vectors describe memory that stays valid until the call returns, `len` bytes
        // of it, of which the first `done` are skipped. The file of the iocb is open for reading,
        // and its `read_iter` is that of btrfs, by which this read came.
        let ret = unsafe {
            kbindings::iov_iter_bvec(
                iter.as_mut_ptr(),
                kbindings::ITER_DEST,
                vecs.as_ptr(),
                vecs.len(),
                pages.len(),
            );
            kbindings::iov_iter_advance(iter.as_mut_ptr(), pages.len().saturating_sub(left));
            bindings::bdio_read_sync(iocb.as_ptr(), iter.as_mut_ptr(), pos)
        };
        match usize::try_from(ret) {
            Ok(more) => Ok(done.saturating_add(more).min(valid)),
            // The error of the read as a whole, as everywhere: an earlier failure to write back is
            // told once, so the next read might not meet it.
            Err(_) => Err(Error::from_errno(clamp_errno(ret))),
        }
    }

    /// Returns whether it may be completed in any context: if so it is to be completed next, for
    /// direct writers have been let in. Any context.
    pub(crate) fn may_complete_anywhere(&mut self) -> bool {
        if !self.pages.may_drop_anywhere() {
            return false;
        }
        let alone = self.writers.as_mut().is_none_or(WriterLock::try_let_in);
        if !alone {
            // Pages that are dirty now may be cleaned, and written to once more, before it is.
            self.pages.may_be_written();
        }
        alone
    }

    /// Completes the read, if it is ours, with `result`, bytes or an error; then it is not ours any
    /// more. Task context, may sleep, unless [`Self::may_complete_anywhere`] says otherwise.
    pub(crate) fn complete(&mut self, result: Result<usize>) {
        self.writers = None;
        self.pages.release();
        self.count = None;
        // INVARIANT: All that borrows from the file has been dropped.
        let Some(iocb) = self.iocb.take() else {
            return;
        };
        let ret = match result {
            // CAST: At most `MAX_RW_COUNT`, less than 2^31.
            Ok(bytes) => bytes as isize,
            // CAST: Widening.
            Err(e) => e.to_errno() as isize,
        };
        // Whoever learns that the read is complete may do with the memory and the file as they like.
        debug_assert!(self.pages.len() == 0 && self.writers.is_none() && self.count.is_none());
        // SAFETY: The iocb was ours to complete. It is not touched afterwards: with it the file, the
        // inode and the filesystem may be gone.
        unsafe { bindings::bdio_complete(iocb.as_ptr(), ret) }
    }
}

impl Drop for AsyncRead {
    fn drop(&mut self) {
        self.complete(Err(EIO));
    }
}
