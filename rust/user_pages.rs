// SPDX-License-Identifier: GPL-2.0

//! The pages of the caller's buffer, held so that devices can write into them.
//!
//! C headers: [`include/linux/uio.h`](srctree/include/linux/uio.h),
//! [`include/linux/bvec.h`](srctree/include/linux/bvec.h),
//! [`include/linux/mm.h`](srctree/include/linux/mm.h)

use super::{
    hash::{
        Algorithm,
        Digest, //
    },
    read::DirectRead,
};
use crate::bindings;
use core::{
    marker::PhantomData,
    ptr::NonNull, //
};
use kernel::{
    bindings as kbindings,
    page::PAGE_SIZE,
    prelude::*, //
};

/// A physically contiguous piece of a buffer.
#[derive(Clone, Copy)]
pub(crate) struct Piece<'p> {
    /// The page it begins in; the pages that follow it in memory belong to it as well.
    pub(super) page: NonNull<kbindings::page>,
    /// Where in that page it begins, in bytes; less than a page.
    pub(super) offset: u32,
    /// Its length in bytes, not 0.
    pub(super) len: u32,
    _pages: PhantomData<&'p ()>,
}

impl Piece<'_> {
    /// Returns the length in bytes.
    pub(crate) fn len(&self) -> usize {
        // CAST: `u32` fits `usize` on all machines with an MMU that Linux supports in Rust.
        self.len as usize
    }
}

/// A place in a buffer, moving forward only.
#[derive(Clone, Copy, Default)]
pub(crate) struct Cursor {
    /// Index of the vector.
    vec: usize,
    /// Bytes of that vector that lie behind.
    within: u32,
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
/// * Each of `vecs` describes memory that is valid until this is dropped, and has a length.
/// * `len` is the sum of their lengths.
/// * If `pinned`, each page of `vecs` carries a pin that is ours.
pub(crate) struct UserPages<'r> {
    vecs: KVVec<kbindings::bio_vec>,
    len: usize,
    pinned: bool,
    _read: PhantomData<&'r ()>,
}

impl<'r> UserPages<'r> {
    /// Takes the next `want` bytes of the buffer of `read`, or fails.
    ///
    /// `align` is a power of two that address and length of every piece of the buffer are known to
    /// be multiples of. Fails with `EFAULT` if the memory is not there or not fit for a device to
    /// write to, with `ENOMEM`, with `EINVAL` if `want` is 0 or needs more than 2^16 - 1 pieces.
    ///
    /// Task context, sleeps, faults.
    pub(crate) fn pin(read: &mut DirectRead<'r>, want: usize, align: usize) -> Result<Self> {
        let most = want.div_ceil(align.clamp(1, PAGE_SIZE));
        let most_u16 = u16::try_from(most).map_err(|_| EINVAL)?;
        let iter = read.iter();
        let mut pages = Self {
            vecs: KVVec::with_capacity(most, GFP_KERNEL)?,
            len: 0,
            // SAFETY: `DirectRead` guarantees a valid iterator.
            pinned: unsafe { bindings::bdio_iter_will_pin(iter.as_ptr()) },
            _read: PhantomData,
        };
        let mut nr: u16 = 0;
        while pages.len < want {
            if nr == most_u16 {
                // The buffer is not aligned as promised.
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

    /// Returns the piece at `cursor`, at most `max` bytes long, and moves the cursor past it.
    ///
    /// `None` at the end of the buffer, or if `max` is 0.
    pub(crate) fn next_piece(&self, cursor: &mut Cursor, max: usize) -> Option<Piece<'_>> {
        loop {
            let vec = self.vecs.get(cursor.vec)?;
            let left = vec.bv_len.saturating_sub(cursor.within);
            if left == 0 {
                cursor.vec = cursor.vec.saturating_add(1);
                cursor.within = 0;
                continue;
            }
            let len = u32::try_from(max).unwrap_or(u32::MAX).min(left);
            if len == 0 {
                return None;
            }
            // CAST: Widening.
            let at = vec.bv_offset as usize + cursor.within as usize;
            let page = NonNull::new(vec.bv_page)?;
            cursor.within = cursor.within.saturating_add(len);
            return Some(Piece {
                // SAFETY: The pages of a vector are contiguous, in `struct page` as in memory, and
                // `at` lies within the vector by the check of `left`.
                page: unsafe { page.add(at / PAGE_SIZE) },
                // CAST: Less than a page.
                offset: (at % PAGE_SIZE) as u32,
                len,
                _pages: PhantomData,
            });
        }
    }

    /// Moves `cursor` forward by `bytes`, at most to the end of the buffer.
    pub(crate) fn skip(&self, cursor: &mut Cursor, mut bytes: usize) {
        while bytes > 0 {
            let Some(piece) = self.next_piece(cursor, bytes) else {
                return;
            };
            bytes = bytes.saturating_sub(piece.len());
        }
    }

    /// Returns how many pieces the `bytes` from `cursor` on have.
    pub(crate) fn count_pieces(&self, mut cursor: Cursor, mut bytes: usize) -> usize {
        let mut count = 0usize;
        while let Some(piece) = self.next_piece(&mut cursor, bytes) {
            bytes = bytes.saturating_sub(piece.len());
            count = count.saturating_add(1);
        }
        count
    }

    /// Sets `bytes` from `cursor` on to 0, and moves the cursor past them.
    pub(crate) fn zero(&self, cursor: &mut Cursor, mut bytes: usize) {
        while let Some(piece) = self.next_piece(cursor, bytes) {
            bytes = bytes.saturating_sub(piece.len());
            self.with_each_page(piece, |ptr, len| {
                // SAFETY: `ptr` is mapped for `len` bytes that are ours to write. Others may write
                // them at the same time, as with any buffer of a system call: what they hold then
                // is up to the user, who sees nothing but own data and zeros.
                unsafe { core::ptr::write_bytes(ptr, 0, len) }
            });
        }
    }

    /// Copies `data` to `cursor`, and moves the cursor past it.
    pub(crate) fn copy_from(&self, cursor: &mut Cursor, mut data: &[u8]) {
        while let Some(piece) = self.next_piece(cursor, data.len()) {
            self.with_each_page(piece, |ptr, len| {
                let Some((now, later)) = data.split_at_checked(len) else {
                    return;
                };
                // SAFETY: As in `zero()`; `now` has `len` bytes, and is private memory.
                unsafe { core::ptr::copy_nonoverlapping(now.as_ptr(), ptr, len) };
                data = later;
            });
        }
    }

    /// Hashes the next `len` bytes, and moves the cursor past them.
    ///
    /// `None` if they are not contiguous within a page: cannot be if `len` divides the size of a
    /// page, and the buffer is aligned to it.
    pub(crate) fn hash(&self, cursor: &mut Cursor, len: usize, alg: Algorithm) -> Option<Digest> {
        let piece = self.next_piece(cursor, len)?;
        let mut digest = None;
        self.with_each_page(piece, |ptr, mapped| {
            if mapped == len {
                // SAFETY: `ptr` is mapped and readable for `mapped` bytes.
                digest = Some(unsafe { alg.hash_raw(ptr, mapped) });
            }
        });
        digest
    }

    /// Maps each page of `piece` in turn, and calls `f` with the address and the length of what
    /// lies in it.
    pub(super) fn with_each_page(&self, piece: Piece<'_>, mut f: impl FnMut(*mut u8, usize)) {
        let mut page = piece.page;
        // CAST: Widening.
        let mut offset = piece.offset as usize;
        let mut left = piece.len();
        while left > 0 {
            let len = left.min(PAGE_SIZE.saturating_sub(offset));
            // SAFETY: The page is valid by the type invariants. The mapping is used by this task
            // only, and undone below in the reverse order, since `f` returns with its own undone.
            unsafe {
                let base = kbindings::kmap_local_page(page.as_ptr()).cast::<u8>();
                f(base.add(offset), len);
                kbindings::kunmap_local(base.cast());
            }
            left = left.saturating_sub(len);
            offset = 0;
            if left > 0 {
                // SAFETY: A piece is contiguous, so the next `struct page` is of it as well.
                page = unsafe { page.add(1) };
            }
        }
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
            // nobody uses them through us any more: pieces borrow from `self`.
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
