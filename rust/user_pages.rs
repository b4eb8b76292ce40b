// SPDX-License-Identifier: GPL-2.0

//! The pages of the caller's buffer, held so that devices can write into them.
//!
//! C headers: [`include/linux/uio.h`](srctree/include/linux/uio.h),
//! [`include/linux/mm.h`](srctree/include/linux/mm.h)

use super::{
    patience::Patience,
    read::DirectRead,
    vecs::Vecs, //
};
use crate::bindings;
use core::marker::PhantomData;
use kernel::{
    bindings as kbindings,
    page::PAGE_SIZE,
    prelude::*, //
};

/// The pages of a stretch of the caller's buffer.
///
/// Taken before any lock of the filesystem, because taking them may fault. User pages are pinned,
/// and marked dirty and unpinned when this is dropped, which may sleep and takes folio locks: no
/// extent bit may be held then. Pages of the kernel are not pinned, and are there for the duration
/// of the read, `'r`.
///
/// # Invariants
///
/// * Each of `vecs` describes memory that is valid until this is dropped, and has a length.
/// * `len` is the sum of their lengths.
/// * If `pinned`, each page of `vecs` carries a pin that is ours.
pub(crate) struct UserPages<'r> {
    vecs: KVVec<kbindings::bio_vec>,
    len: usize,
    pinned: bool,
    _read: PhantomData<&'r ()>,
}

// SAFETY: Pages may be used, marked dirty and unpinned by any task.
unsafe impl Send for UserPages<'_> {}
// SAFETY: By reference the vectors are only read, and the memory only touched through raw pointers.
unsafe impl Sync for UserPages<'_> {}

impl<'r> UserPages<'r> {
    /// Takes the next `want` bytes of the buffer of `read`, or fails.
    ///
    /// Fails with `EFAULT` if the memory is not there or not fit for a device to write to, with
    /// `ENOMEM`, with `EINVAL` if `want` is 0 or needs more than 2^16 - 1 pieces.
    ///
    /// Task context, sleeps, faults: also for a read that may not wait for the filesystem, as
    /// everywhere.
    pub(crate) fn pin(read: &mut DirectRead<'r>, want: usize, patience: Patience) -> Result<Self> {
        // A range of n bytes touches at most n / PAGE_SIZE + 2 pages.
        let most = read
            .ranges()
            .saturating_mul(2)
            .saturating_add(want / PAGE_SIZE);
        let most_u16 = u16::try_from(most).unwrap_or(u16::MAX);
        let iter = read.iter();
        let mut pages = Self {
            // CAST: Widening.
            vecs: KVVec::with_capacity(most_u16 as usize, patience.gfp())?,
            len: 0,
            // SAFETY: `DirectRead` guarantees a valid iterator.
            pinned: unsafe { bindings::bdio_iter_will_pin(iter.as_ptr()) },
            _read: PhantomData,
        };
        let mut nr: u16 = 0;
        while pages.len < want {
            if nr == most_u16 {
                return Err(EINVAL);
            }
            // SAFETY: The iterator is valid and a destination. `vecs` has room for `most_u16`
            // entries, of which the first `nr` are filled; the function uses no others than those
            // between, and leaves the first `nr` (after the call) filled.
            let got = unsafe {
                kbindings::iov_iter_extract_bvecs(
                    iter.as_ptr(),
                    pages.vecs.as_mut_ptr(),
                    want.saturating_sub(pages.len),
                    &mut nr,
                    most_u16,
                    0,
                    0,
                )
            };
            let new = usize::from(nr).saturating_sub(pages.vecs.len());
            // SAFETY: `nr` entries are filled, as above, and that is within the capacity.
            // INVARIANT: They are pieces of the buffer, which stays valid for the duration of the
            // read or, if user memory, as long as it is pinned.
            unsafe { pages.vecs.inc_len(new) };
            let got = usize::try_from(got).map_err(|_| Error::from_errno(clamp_errno(got)))?;
            if got == 0 {
                return Err(EFAULT);
            }
            pages.len = pages.len.saturating_add(got);
        }
        Ok(pages)
    }

    /// Returns the number of bytes.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Returns the memory.
    pub(crate) fn vecs(&self) -> Vecs<'_> {
        // SAFETY: By the type invariants, for as long as `self` is borrowed.
        unsafe { Vecs::new(&self.vecs) }
    }

    /// Returns the vectors, for an iterator over them.
    pub(super) fn as_bvecs(&self) -> &[kbindings::bio_vec] {
        &self.vecs
    }
}

/// Narrows what a C function returned as an error to what an errno can be.
fn clamp_errno(ret: isize) -> i32 {
    i32::try_from(ret).unwrap_or(-(kbindings::EIO as i32))
}

impl Drop for UserPages<'_> {
    fn drop(&mut self) {
        if !self.pinned {
            return;
        }
        for vec in &self.vecs {
            // CAST: Widening.
            let bytes = vec.bv_offset as usize + vec.bv_len as usize;
            // SAFETY: By the type invariants the pages of the vector carry a pin of ours each, and
            // nobody uses them through us any more: `Vecs` borrow from `self`.
            unsafe {
                kbindings::unpin_user_page_range_dirty_lock(
                    vec.bv_page,
                    bytes.div_ceil(PAGE_SIZE),
                    true,
                )
            }
        }
    }
}
