// SPDX-License-Identifier: GPL-2.0

//! Memory in pieces: what devices write into, and what is done with it before and after.
//!
//! C header: [`include/linux/bvec.h`](srctree/include/linux/bvec.h)

use super::{
    comparison::Comparison,
    hash::{
        Algorithm,
        Digest, //
    }, //
};
use core::{
    marker::PhantomData,
    ptr::NonNull, //
};
use kernel::{
    bindings,
    page::PAGE_SIZE, //
};

/// How much of contiguous memory is mapped along with its first page, from the beginning of that on, in
/// bytes, if not all of it.
///
/// Memory that is always mapped lies there as it does physically. Not so where pages are mapped when
/// they are used; and where an address carries the tag of its page, the next page may have another
/// one (`page_to_virt()` in arch/arm64/include/asm/memory.h).
///
/// `None` also says that to map is to compute an address, which stays good as long as the memory does
/// ([`include/linux/highmem-internal.h`](srctree/include/linux/highmem-internal.h)).
const MAPPED: Option<usize> = match cfg!(any(
    CONFIG_HIGHMEM,
    CONFIG_KASAN_SW_TAGS,
    CONFIG_KASAN_HW_TAGS
)) {
    true => Some(PAGE_SIZE),
    false => None,
};

/// Returns how many of `bytes` from the beginning of a page on are mapped at a time, if they are
/// contiguous.
pub(super) fn mapped(bytes: usize) -> usize {
    MAPPED.map_or(bytes, |most| bytes.min(most))
}

/// A physically contiguous piece of memory.
#[derive(Clone, Copy)]
pub(crate) struct Piece<'p> {
    /// The page it begins in; the pages that follow it in memory belong to it as well.
    pub(super) page: NonNull<bindings::page>,
    /// Where in that page it begins, in bytes; less than a page.
    pub(super) offset: u32,
    /// Its length in bytes, not 0.
    pub(super) len: u32,
    _pages: PhantomData<&'p ()>,
}

impl Piece<'_> {
    /// Returns the `len` bytes of a vector that begin `within` it.
    ///
    /// # Safety
    ///
    /// They must be there, `len` not 0, and the vector be as [`Vecs`] wants it for the lifetime.
    unsafe fn of(vec: &bindings::bio_vec, within: u32, len: u32) -> Option<Self> {
        // CAST: Widening.
        let at = vec.bv_offset as usize + within as usize;
        Some(Self {
            // SAFETY: The pages of a vector are contiguous, in `struct page` as in memory, and `at`
            // lies within the vector by the contract.
            page: unsafe { NonNull::new(vec.bv_page)?.add(at / PAGE_SIZE) },
            // CAST: Less than a page.
            offset: (at % PAGE_SIZE) as u32,
            len,
            _pages: PhantomData,
        })
    }

    /// Returns whether it consists of blocks of `block` bytes none of which is mapped in two parts.
    fn is_whole(&self, block: usize) -> bool {
        let (parts, fits) = match MAPPED {
            Some(most) => (self.len | self.offset, block <= most),
            None => (self.len, true),
        };
        // CAST: Widening.
        let parts = parts as usize & block.wrapping_sub(1);
        parts == 0 && block.is_power_of_two() && fits
    }

    /// Returns the length in bytes.
    pub(crate) fn len(&self) -> usize {
        // CAST: `u32` fits `usize` on all machines with an MMU that Linux supports in Rust.
        self.len as usize
    }
}

/// A stretch of memory in pieces, for a bio.
///
/// # Invariants
///
/// Behind the first `within` bytes of the first, the vectors describe at least `len` bytes, of which
/// there is one or more; and `within` is less than the length of the first.
pub(crate) struct Span<'p> {
    pub(super) vecs: &'p [bindings::bio_vec],
    pub(super) within: u32,
    pub(super) len: u32,
}

/// A place in memory that comes in pieces.
#[derive(Clone, Copy, Default)]
pub(crate) struct Cursor {
    /// Index of the vector.
    vec: usize,
    /// Bytes of that vector that lie behind.
    within: u32,
    /// Bytes that lie behind in all.
    at: usize,
}

/// Memory in pieces, seen for as long as `'p`.
///
/// It may be that of a user, and change at any time: no Rust reference is ever formed to it.
///
/// # Invariants
///
/// Each of the vectors describes memory that is valid for `'p`, which is physically contiguous, and
/// so are its `struct page`s.
#[derive(Clone, Copy)]
pub(crate) struct Vecs<'p>(&'p [bindings::bio_vec]);

impl<'p> Vecs<'p> {
    /// Wraps vectors.
    ///
    /// # Safety
    ///
    /// They must describe memory as the type invariants want it.
    pub(super) unsafe fn new(vecs: &'p [bindings::bio_vec]) -> Self {
        // INVARIANT: By the contract of this function.
        Self(vecs)
    }

    /// Returns the piece at `cursor`, at most `max` bytes long, and moves the cursor past it.
    ///
    /// `None` at the end of the memory, or if `max` is 0.
    pub(crate) fn next_piece(self, cursor: &mut Cursor, max: usize) -> Option<Piece<'p>> {
        loop {
            let vec = self.0.get(cursor.vec)?;
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
            // SAFETY: As many bytes are left of the vector, which is ours.
            let piece = unsafe { Piece::of(vec, cursor.within, len) }?;
            cursor.within = cursor.within.saturating_add(len);
            // CAST: Widening.
            cursor.at = cursor.at.saturating_add(len as usize);
            return Some(piece);
        }
    }

    /// Moves `cursor` to `at` bytes from the beginning, or to the end if that comes first.
    ///
    /// Cheap if it does not lie behind the cursor, and not far in front of it.
    pub(crate) fn seek(self, cursor: &mut Cursor, at: usize) {
        if at == cursor.at {
            return;
        }
        if at < cursor.at {
            *cursor = Cursor::default();
        }
        let mut left = at.saturating_sub(cursor.at);
        for vec in self.0.get(cursor.vec..).unwrap_or_default() {
            // CAST: Widening.
            let there = vec.bv_len.saturating_sub(cursor.within) as usize;
            if left < there {
                // CAST: Less than `there`.
                cursor.within = cursor.within.saturating_add(left as u32);
                left = 0;
                break;
            }
            left = left.saturating_sub(there);
            cursor.vec = cursor.vec.saturating_add(1);
            cursor.within = 0;
        }
        cursor.at = at.saturating_sub(left);
    }

    /// Returns the next `len` bytes, and moves the cursor past them. `None` if there are not as many,
    /// or none, or 4 GiB or more.
    pub(crate) fn span(self, cursor: &mut Cursor, len: usize) -> Option<Span<'p>> {
        if self.0.get(cursor.vec)?.bv_len == cursor.within {
            cursor.vec = cursor.vec.saturating_add(1);
            cursor.within = 0;
        }
        let vecs = self.0.get(cursor.vec..)?;
        let within = cursor.within;
        let size = u32::try_from(len).ok().filter(|size| *size > 0)?;
        let end = cursor.at.checked_add(len)?;
        let within_first = within.checked_add(size);
        match within_first.filter(|until| *until <= vecs.first().map_or(0, |vec| vec.bv_len)) {
            Some(until) => {
                cursor.within = until;
                cursor.at = end;
            }
            None => self.seek(cursor, end),
        }
        // INVARIANT: The cursor got there, through memory of these vectors.
        (cursor.at == end).then_some(Span {
            vecs,
            within,
            len: size,
        })
    }

    /// Returns in how many pieces the `len` bytes from `cursor` on are, as far as they are there.
    pub(crate) fn pieces(self, cursor: &Cursor, len: usize) -> usize {
        let (mut cursor, mut left, mut pieces) = (*cursor, len, 0usize);
        while let Some(piece) = self.next_piece(&mut cursor, left) {
            left = left.saturating_sub(piece.len());
            pieces = pieces.saturating_add(1);
        }
        pieces
    }

    /// Sets `bytes` from `cursor` on to 0, and moves the cursor past them.
    pub(crate) fn zero(self, cursor: &mut Cursor, mut bytes: usize) {
        while let Some(piece) = self.next_piece(cursor, bytes) {
            bytes = bytes.saturating_sub(piece.len());
            self.with_each_mapping(piece, |ptr, len| {
                // SAFETY: `ptr` is mapped for `len` bytes that are ours to write. Others may write
                // them at the same time, as with any buffer of a system call: what they hold then
                // is up to the user, who sees nothing but own data and zeros.
                unsafe { core::ptr::write_bytes(ptr, 0, len) }
            });
        }
    }

    /// Copies `data` to `cursor`, and moves the cursor past it.
    pub(crate) fn copy_from(self, cursor: &mut Cursor, mut data: &[u8]) {
        while let Some(piece) = self.next_piece(cursor, data.len()) {
            self.with_each_mapping(piece, |ptr, len| {
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
    /// If they are not contiguous where they are mapped they are first copied to `scratch`. `None` if
    /// they have to be, and it is too small, or if there are not as many bytes.
    pub(crate) fn hash(
        self,
        cursor: &mut Cursor,
        len: usize,
        alg: Algorithm,
        scratch: &mut [u8],
    ) -> Option<Digest> {
        let mut ahead = *cursor;
        let piece = self.next_piece(&mut ahead, len)?;
        let mut digest = None;
        if piece.len() == len {
            self.with_each_mapping(piece, |ptr, mapped| {
                if mapped == len {
                    // SAFETY: `ptr` is mapped and readable for `mapped` bytes.
                    digest = Some(unsafe { alg.hash_raw(ptr, mapped) });
                }
            });
        }
        if digest.is_some() {
            *cursor = ahead;
            return digest;
        }
        let scratch = scratch.get_mut(..len)?;
        self.copy_to(cursor, scratch).then(|| alg.hash(scratch))
    }

    /// Hashes one block of `block` bytes after the other, `count` of them, moves the cursor past them, and
    /// returns how many do not have the digest expected.
    ///
    /// What can't be hashed, as said at [`Self::hash`], does not have it, nor does what none is
    /// expected of.
    pub(crate) fn mismatches<'d>(
        self,
        cursor: &mut Cursor,
        block: usize,
        count: usize,
        alg: Algorithm,
        expected: &mut impl Iterator<Item = &'d [u8]>,
        scratch: &mut [u8],
    ) -> u64 {
        let mut comparison = Comparison::new(alg, block, expected);
        let mut left = count;
        while left > 0 {
            let mut ahead = *cursor;
            let piece = self.next_piece(&mut ahead, left.saturating_mul(block));
            let piece = piece.filter(|piece| piece.is_whole(block));
            let Some(piece) = piece else {
                let digest = self.hash(cursor, block, alg, scratch);
                comparison
                    .add_by(|expected| digest.is_some_and(|digest| alg.matches(&digest, expected)));
                left = left.saturating_sub(1);
                continue;
            };
            *cursor = ahead;
            left = left.saturating_sub(piece.len() >> block.trailing_zeros());
            // SAFETY: It is whole as to the blocks that are compared.
            unsafe { self.compare(piece, &mut comparison) };
        }
        comparison.mismatches()
    }

    /// As [`Self::mismatches`], of the `len` bytes from `at` on. `None` if these are not all there, or
    /// not whole blocks none of which is mapped in two parts: some may have been hashed all the same,
    /// and what was expected of them taken.
    pub(crate) fn mismatches_in_place<'d>(
        self,
        at: usize,
        len: usize,
        block: usize,
        alg: Algorithm,
        expected: &mut impl Iterator<Item = &'d [u8]>,
    ) -> Option<u64> {
        let mut index = 0usize;
        let mut piece = self.whole_blocks(&mut index, at, len, block)?;
        if len == block {
            // What others would wait in costs more than all that is done here for the only one.
            let expected = expected.next().unwrap_or_default();
            // SAFETY: It is whole, so the block is mapped with its first page, from `ptr` on.
            let is_right = self.with_page(piece, |ptr| unsafe {
                alg.matches_raw(ptr, block, expected)
            });
            return Some(u64::from(!is_right));
        }
        let mut comparison = Comparison::new(alg, block, expected);
        let mut left = len;
        loop {
            // SAFETY: It is whole as to the blocks that are compared.
            unsafe { self.compare(piece, &mut comparison) };
            left = left.saturating_sub(piece.len());
            if left == 0 {
                return Some(comparison.mismatches());
            }
            piece = self.whole_blocks(&mut index, 0, left, block)?;
        }
    }

    /// Returns what there is in one piece from `skip` bytes behind the start of vector `index` on, at most
    /// `len` bytes, and moves the index past that vector. `None` if that is nothing, or not whole blocks
    /// none of which is mapped in two parts.
    #[inline(always)]
    fn whole_blocks(
        self,
        index: &mut usize,
        mut skip: usize,
        len: usize,
        block: usize,
    ) -> Option<Piece<'p>> {
        let (vec, there) = loop {
            let vec = self.0.get(*index)?;
            *index = index.saturating_add(1);
            // CAST: Widening.
            let there = vec.bv_len as usize;
            if skip < there {
                break (vec, there.saturating_sub(skip));
            }
            skip = skip.saturating_sub(there);
        };
        let now = len.min(there);
        if now == 0 {
            return None;
        }
        // SAFETY: They are within the vector, which is ours.
        // CAST: No more than the length of the vector.
        let piece = unsafe { Piece::of(vec, skip as u32, now as u32) }?;
        piece.is_whole(block).then_some(piece)
    }

    /// Compares the blocks of a piece.
    ///
    /// # Safety
    ///
    /// It must be one that [is whole](Piece::is_whole), as to blocks of that length.
    #[inline]
    unsafe fn compare<'d>(
        self,
        piece: Piece<'p>,
        comparison: &mut Comparison<'_, 'p, impl Iterator<Item = &'d [u8]>>,
    ) {
        self.with_each_mapping(piece, |ptr, len| {
            let mut at = 0usize;
            while at < len {
                // SAFETY: `len` bytes are mapped and readable from `ptr` on, which are whole blocks by the
                // contract, so another one is there. It is by `'p` if nothing is mapped for this only,
                // by `MAPPED`; or else until it is settled below.
                unsafe { comparison.add(ptr.add(at)) };
                at = at.saturating_add(comparison.block());
            }
            if MAPPED.is_some() {
                comparison.settle();
            }
        });
    }

    /// Copies the next bytes, as many as `out` has room for, and moves the cursor past them.
    /// Returns whether there were as many.
    fn copy_to(self, cursor: &mut Cursor, mut out: &mut [u8]) -> bool {
        while let Some(piece) = self.next_piece(cursor, out.len()) {
            self.with_each_mapping(piece, |ptr, len| {
                if let Some((now, later)) = core::mem::take(&mut out).split_at_mut_checked(len) {
                    // SAFETY: `ptr` is mapped and readable for `len` bytes; `now` has as many, and
                    // is private memory. Should a user write at the same time, then what is copied
                    // is any mix, all of it the user's.
                    unsafe { core::ptr::copy_nonoverlapping(ptr, now.as_mut_ptr(), len) };
                    out = later;
                }
            });
        }
        out.is_empty()
    }

    /// Maps the page that `piece` begins in, with as much of what follows as [`MAPPED`] says, and calls
    /// `f` with the address of the piece.
    fn with_page<R>(self, piece: Piece<'_>, f: impl FnOnce(*const u8) -> R) -> R {
        // SAFETY: As in `with_each_mapping()`.
        unsafe {
            let base = bindings::kmap_local_page(piece.page.as_ptr()).cast::<u8>();
            // CAST: Widening.
            let result = f(base.add(piece.offset as usize));
            bindings::kunmap_local(base.cast());
            result
        }
    }

    /// Maps `piece` as far as it can be at a time, and calls `f` with the address and the length of
    /// each stretch: only one if it is [`mapped`] along, or one for each page.
    pub(super) fn with_each_mapping(self, piece: Piece<'_>, mut f: impl FnMut(*mut u8, usize)) {
        let mut page = piece.page;
        // CAST: Widening.
        let mut offset = piece.offset as usize;
        let mut left = piece.len();
        while left > 0 {
            let len = mapped(left.saturating_add(offset)).saturating_sub(offset);
            // SAFETY: The page is valid by the type invariants; those that follow it, of as many bytes
            // as are told, are mapped with it, by `MAPPED`. The mapping is used by this task only, and
            // undone below in the reverse order, since `f` returns with its own undone.
            unsafe {
                let base = bindings::kmap_local_page(page.as_ptr()).cast::<u8>();
                f(base.add(offset), len);
                bindings::kunmap_local(base.cast());
            }
            left = left.saturating_sub(len);
            offset = 0;
            if left > 0 {
                // SAFETY: A piece is contiguous, so the next `struct page` is of it as well: there is
                // more than `MAPPED`, which is a page then.
                page = unsafe { page.add(1) };
            }
        }
    }
}
