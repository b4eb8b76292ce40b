// SPDX-License-Identifier: GPL-2.0

//! The pages of the caller's buffer, held so that devices can write into them.
//!
//! C headers: [`include/linux/uio.h`](srctree/include/linux/uio.h),
//! [`include/linux/mm.h`](srctree/include/linux/mm.h)

use super::{
    patience::Patience,
    read::{
        Buffer,
        DirectRead, //
    },
    vecs::Vecs, //
};
use crate::bindings;
use core::{
    marker::PhantomData,
    mem::MaybeUninit, //
};
use kernel::{
    bindings as kbindings,
    page::PAGE_SIZE,
    prelude::*, //
};

/// How many vectors need no memory beside: as many as 16 KiB in one range can take.
const FEW: usize = 6;

/// How many vectors beside may be freed in any context: what is longer than a page may be of
/// `vmalloc()`, and `vfree()` sleeps where it is not in an interrupt.
const ANYWHERE: usize = PAGE_SIZE / size_of::<kbindings::bio_vec>();

/// Returns how many pages a vector is in.
fn pages(vec: &kbindings::bio_vec) -> usize {
    // CAST: Widening.
    (vec.bv_offset as usize)
        .saturating_add(vec.bv_len as usize)
        .div_ceil(PAGE_SIZE)
}

/// The pages of a stretch of the caller's buffer.
///
/// Taken before any lock of the filesystem, because taking them may fault. User pages are pinned,
/// and marked dirty and unpinned when this is dropped, which may sleep and takes folio locks: no
/// extent bit may be held then. Pages of the kernel are not pinned, and are there for the duration
/// of the read, `'r`.
///
/// # Invariants
///
/// * Each of the first `nr` vectors of `many`, or of `few` if there is none, describes memory whose pages
///   are contiguous, and valid until this is dropped, and has a length.
/// * `len` is the sum of their lengths.
/// * If `pinned`, each page of these carries a pin that is ours.
pub(crate) struct UserPages<'r> {
    few: MaybeUninit<[kbindings::bio_vec; FEW]>,
    /// Used instead, if `few` has not room for as many as there can be.
    many: Option<KVVec<kbindings::bio_vec>>,
    nr: u16,
    len: usize,
    pinned: bool,
    /// Whether they have to be marked dirty.
    clean: bool,
    _read: PhantomData<&'r ()>,
}

// SAFETY: Pages may be used, marked dirty and unpinned by any task.
unsafe impl Send for UserPages<'_> {}
// SAFETY: By reference the vectors are only read, and the memory only touched through raw pointers.
unsafe impl Sync for UserPages<'_> {}

impl<'r> UserPages<'r> {
    /// Takes nothing. To be made where it stays, as all that is taken is.
    #[inline(always)]
    pub(crate) fn none() -> Self {
        // INVARIANT: No vectors, of no length.
        Self {
            few: MaybeUninit::uninit(),
            many: None,
            nr: 0,
            len: 0,
            pinned: false,
            clean: false,
            _read: PhantomData,
        }
    }

    /// Takes the next `want` bytes of the buffer of `read`, instead of what was taken before, or fails
    /// and has taken nothing.
    ///
    /// Fails with `EFAULT` if the memory is not there or not fit for a device to write to, with
    /// `ENOMEM`, with `EINVAL` if `want` is 0 or needs more than 2^16 - 1 pieces.
    ///
    /// Task context, sleeps, faults: also for a read that may not wait for the filesystem, as
    /// everywhere.
    pub(crate) fn pin(
        &mut self,
        read: &mut DirectRead<'r>,
        want: usize,
        patience: Patience,
    ) -> Result {
        // SAFETY: Of a read of that duration.
        unsafe { self.pin_for_now(read, want, patience) }
    }

    /// As [`Self::pin`], of a read of whatever duration.
    ///
    /// # Safety
    ///
    /// What is taken must not be used when the read is over.
    pub(super) unsafe fn pin_for_now(
        &mut self,
        read: &mut DirectRead<'_>,
        want: usize,
        patience: Patience,
    ) -> Result {
        self.release();
        let pinned = self.take(read, want, patience);
        if pinned.is_err() {
            self.release();
        }
        pinned
    }

    /// As [`Self::pin_for_now`], if nothing has been taken; if it fails something may have been.
    fn take(&mut self, read: &mut DirectRead<'_>, want: usize, patience: Patience) -> Result {
        // A range of n bytes touches at most n / PAGE_SIZE + 2 pages.
        let most = read
            .ranges()
            .saturating_mul(2)
            .saturating_add(want / PAGE_SIZE);
        let most_u16 = u16::try_from(most).unwrap_or(u16::MAX);
        let iter = read.iter();
        // As `iov_iter_extract_will_pin()`, include/linux/uio.h.
        // INVARIANT: No vectors yet.
        self.pinned = read.buffer() == Buffer::User;
        self.clean = true;
        // CAST: Widening, and small.
        let (room, most) = if most_u16 as usize <= FEW {
            (self.few.as_mut_ptr().cast(), FEW as u16)
        } else {
            let many = KVVec::with_capacity(most_u16 as usize, patience.gfp())?;
            (self.many.insert(many).as_mut_ptr(), most_u16)
        };
        while self.len < want {
            if self.nr == most {
                return Err(EINVAL);
            }
            // SAFETY: The iterator is valid and a destination. There is room for `most` entries,
            // of which the first `nr` are filled; the function uses no others than those between,
            // and leaves the first `nr` (after the call) filled.
            // INVARIANT: They are pieces of the buffer, which stays valid for the duration of the
            // read or, if user memory, as long as it is pinned.
            let got = unsafe {
                kbindings::iov_iter_extract_bvecs(
                    iter.as_ptr(),
                    room,
                    want.saturating_sub(self.len),
                    &mut self.nr,
                    most,
                    0,
                    0,
                )
            };
            let got = usize::try_from(got).map_err(|_| Error::from_errno(clamp_errno(got)))?;
            if got == 0 {
                return Err(EFAULT);
            }
            self.len = self.len.saturating_add(got);
        }
        if self.many.is_some() {
            // Fewer vectors are less for everybody to walk along.
            // SAFETY: The first `nr` vectors are filled, each with contiguous pages.
            // INVARIANT: They describe the same pages, in fewer vectors at the beginning.
            self.nr = unsafe { bindings::bdio_merge_vecs(room, self.nr) };
        }
        Ok(())
    }

    /// Takes back what [`Self::may_drop_anywhere`] has found: they may still be written to.
    pub(super) fn may_be_written(&mut self) {
        self.clean = true;
    }

    /// Gives back what was taken. As for dropping it.
    pub(super) fn release(&mut self) {
        if self.pinned {
            for vec in self.as_bvecs() {
                // SAFETY: By the type invariants the pages of the vector carry a pin of ours each, and
                // nobody uses them through us any more: `Vecs` borrow from `self`.
                unsafe {
                    if self.clean {
                        bindings::bdio_unpin_dirty(vec.bv_page, pages(vec));
                    } else {
                        kbindings::unpin_user_page_range_dirty_lock(vec.bv_page, pages(vec), false);
                    }
                }
            }
        }
        // INVARIANT: Nothing is left.
        (self.nr, self.len, self.pinned) = (0, 0, false);
        if self.many.is_some() {
            self.many = None;
        }
    }

    /// Returns the number of bytes.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Returns the memory.
    pub(crate) fn vecs(&self) -> Vecs<'_> {
        // SAFETY: By the type invariants, for as long as `self` is borrowed.
        unsafe { Vecs::new(self.as_bvecs()) }
    }

    /// Returns the vectors, for an iterator over them.
    pub(super) fn as_bvecs(&self) -> &[kbindings::bio_vec] {
        let first = match &self.many {
            Some(many) => many.as_ptr(),
            None => self.few.as_ptr().cast(),
        };
        // SAFETY: By the type invariants the first `nr` vectors are initialised.
        unsafe { core::slice::from_raw_parts(first, usize::from(self.nr)) }
    }

    /// Returns whether this may be dropped in any context, because the pages need not be marked
    /// dirty, and are not many; if so, it is to be dropped next. Any context; nothing may write to them
    /// any more.
    ///
    /// A page that is dirty now, when all has been written to it, and is cleaned later, is cleaned
    /// with all that has been written to it. Pages of a file on a filesystem are never known to be dirty:
    /// their folio is, if any block of it is.
    pub(crate) fn may_drop_anywhere(&mut self) -> bool {
        let many = self.many.as_ref();
        if many.is_some_and(|many| many.capacity() > ANYWHERE) {
            return false;
        }
        if self.pinned {
            self.clean = !self.as_bvecs().iter().all(|vec| {
                // SAFETY: By the type invariants the pages of the vector are pinned, and follow each
                // other.
                unsafe { bindings::bdio_pages_are_dirty(vec.bv_page, pages(vec)) }
            });
        }
        !self.pinned || !self.clean
    }
}

/// Narrows what a C function returned as an error to what an errno can be.
pub(super) fn clamp_errno(ret: isize) -> i32 {
    i32::try_from(ret).unwrap_or(-(kbindings::EIO as i32))
}

impl Drop for UserPages<'_> {
    fn drop(&mut self) {
        self.release();
    }
}
