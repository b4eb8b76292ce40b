// SPDX-License-Identifier: GPL-2.0

//! A read bio under construction.
//!
//! C header: [`include/linux/bio.h`](srctree/include/linux/bio.h)

use super::{
    account::Charge,
    pool::BioPool, //
};
use crate::{
    bindings as our_bindings,
    safe::{
        btrfs::device::OpenDevice,
        vecs::{
            Piece,
            Span, //
        },
    },
};
use core::{
    marker::PhantomData,
    mem::MaybeUninit,
    ptr::{
        self,
        NonNull, //
    },
};
use kernel::{
    bindings,
    block::SECTOR_SHIFT,
    page::PAGE_SIZE,
    prelude::*,
    sync::atomic::{
        Atomic,
        Relaxed, //
    }, //
};

/// How many pieces of memory a bio can have that gathers them.
// CAST: 256.
pub(crate) const MAX_PIECES: usize = bindings::BIO_MAX_VECS as usize;

/// Where bios leave the first error that one of them ends with, for who wants to know which of a set
/// it was. To be asked once the set has landed.
pub(crate) struct Mark(Atomic<i32>);

impl Mark {
    /// Makes one without an error.
    pub(crate) fn new() -> Self {
        Self(Atomic::new(0))
    }

    /// Returns the error.
    pub(crate) fn status(&self) -> Result {
        kernel::error::to_result(self.0.load(Relaxed))
    }

    /// Leaves an error.
    pub(crate) fn fail(&self, error: Error) {
        let _ = self.0.cmpxchg(0, error.to_errno(), Relaxed);
    }
}

/// What our pools allocate in front of a bio.
#[repr(C)]
struct Charged {
    charge: MaybeUninit<Charge>,
    /// Null, or the mark, which is there until the bio has ended.
    mark: *const Mark,
    /// Whether it is put by somebody else, once the set has landed.
    lent: bool,
}

// The bio follows.
const _: () = assert!(size_of::<Charged>() % align_of::<bindings::bio>() == 0);

/// A bio that is part of something that owns it, and that stays until the set has landed that the bio
/// becomes one of.
///
/// # Invariants
///
/// It is a bio of our pools, without a device, that has not been submitted, and nobody else uses.
pub(super) struct LentBio(NonNull<bindings::bio>);

impl LentBio {
    /// # Safety
    ///
    /// The bio must be as the type invariants want it, and is to be put when the set has landed.
    pub(super) unsafe fn new(bio: NonNull<bindings::bio>) -> Self {
        // INVARIANT: By the contract.
        Self(bio)
    }
}

/// A read that has not been submitted; it becomes one in flight through
/// [`Submitter::submit`](super::batch::Submitter::submit).
///
/// `'p` is how long the memory it reads into is valid, and its pool exists. The device has to be kept
/// until it is submitted; from then on the block layer keeps it.
///
/// # Invariants
///
/// `bio` is a bio of ours that has not been submitted, that of a [`Charged`] with a charge, and with a
/// mark, if any, that is there for `'p`.
#[must_use = "a bio that is dropped reads nothing"]
pub(crate) struct ReadBio<'p> {
    bio: NonNull<bindings::bio>,
    _memory: PhantomData<&'p ()>,
}

impl<'p> ReadBio<'p> {
    /// How many bytes a pool has to allocate in front of a bio.
    pub(super) const FRONT_PAD: usize = size_of::<Charged>();

    /// Allocates a read from byte `physical` of `device` on, into the memory of `span`.
    ///
    /// `physical` must be a multiple of the sector size of 512 bytes. Task context, may sleep; at
    /// most one bio of the pool may exist unsubmitted in a task, or the reserve of the pool may
    /// not suffice. `ENOMEM` does not happen: the pool has a reserve.
    pub(crate) fn over(
        pool: &'p BioPool,
        device: &OpenDevice,
        physical: u64,
        span: Span<'p>,
        ioprio: u16,
        charge: Charge,
    ) -> Result<Self> {
        // SAFETY: The device is open by its type invariants.
        let bio = unsafe { Self::new(pool, device.as_bdev(), physical, 0, ioprio, charge)? };
        Ok(bio.of(span))
    }

    /// As [`Self::over`], with a bio that there is already.
    pub(super) fn over_lent(
        bio: LentBio,
        device: &OpenDevice,
        physical: u64,
        span: Span<'p>,
        ioprio: u16,
        charge: Charge,
    ) -> Self {
        let bio = bio.0;
        // SAFETY: By its type invariants the bio is ours and not submitted, and of our pools. The device
        // is open by its type invariants.
        // INVARIANT: Charged.
        let bio = unsafe {
            our_bindings::bdio_bio_set_dev(bio.as_ptr(), device.as_bdev());
            Self::prepared(bio, physical, ioprio, charge, true)
        };
        bio.of(span)
    }

    /// Gives it its memory.
    fn of(self, span: Span<'p>) -> Self {
        // SAFETY: The bio is ours and not submitted, and has no vectors of its own. Those of the span
        // describe as much memory as is said, and they as well as the memory are there for `'p`,
        // which lasts until the bio has ended.
        unsafe {
            our_bindings::bdio_bio_set_vecs(
                self.bio.as_ptr(),
                span.vecs.as_ptr(),
                span.within,
                span.len,
            );
        }
        self
    }

    /// Allocates a read as [`Self::over`] does, into `pieces` pieces of memory at most, or as many as
    /// a bio can have: [`MAX_PIECES`]. They are to be added.
    pub(crate) fn gathering(
        pool: &'p BioPool,
        device: &OpenDevice,
        physical: u64,
        pieces: usize,
        ioprio: u16,
        charge: Charge,
    ) -> Result<Self> {
        // CAST: Clamped to what a bio can have.
        let pieces = pieces.clamp(1, MAX_PIECES) as u16;
        // SAFETY: The device is open by its type invariants.
        unsafe { Self::new(pool, device.as_bdev(), physical, pieces, ioprio, charge) }
    }

    /// Allocates a read as [`Self::gathering`] does, but from byte `logical` of the filesystem on, and of
    /// no device: it is not to be submitted to one.
    pub(super) fn of_no_device(pool: &'p BioPool, logical: u64, pieces: usize) -> Result<Self> {
        // CAST: Clamped to what a bio can have.
        let pieces = pieces.clamp(1, MAX_PIECES) as u16;
        // SAFETY: No device.
        unsafe { Self::new(pool, ptr::null_mut(), logical, pieces, 0, Charge::none()) }
    }

    /// Has the bio leave an error at `mark`, too.
    pub(crate) fn marked(self, mark: Option<&'p Mark>) -> Self {
        let mark = mark.map_or(ptr::null(), ptr::from_ref);
        // SAFETY: By the type invariants.
        // INVARIANT: There for `'p`.
        unsafe { (*charged(self.bio.as_ptr())).mark = mark };
        self
    }

    /// # Safety
    ///
    /// `bdev` must be null or a block device that is there.
    unsafe fn new(
        pool: &'p BioPool,
        bdev: *mut bindings::block_device,
        physical: u64,
        pieces: u16,
        ioprio: u16,
        charge: Charge,
    ) -> Result<Self> {
        // SAFETY: The pool is initialised, and the device is there by the contract.
        let bio = unsafe {
            bindings::bio_alloc_bioset(
                bdev,
                pieces,
                our_bindings::READ_OPF,
                // With a hold on the devices reclaim must not enter the filesystem.
                our_bindings::NOFS,
                pool.as_raw(),
            )
        };
        let bio = NonNull::new(bio).ok_or(ENOMEM)?;
        // SAFETY: Just allocated.
        Ok(unsafe { Self::prepared(bio, physical, ioprio, charge, false) })
    }

    /// # Safety
    ///
    /// The bio must be one of our pools, not submitted, and ours; or `lent`, and then there until the set
    /// that it becomes one of has landed.
    unsafe fn prepared(
        bio: NonNull<bindings::bio>,
        physical: u64,
        ioprio: u16,
        charge: Charge,
        lent: bool,
    ) -> Self {
        // SAFETY: The bio is ours and not submitted; the pool has allocated what is in front of it.
        unsafe {
            charged(bio.as_ptr()).write(Charged {
                charge: MaybeUninit::new(charge),
                mark: ptr::null(),
                lent,
            });
            (*bio.as_ptr()).bi_iter.bi_sector = physical >> SECTOR_SHIFT;
            (*bio.as_ptr()).bi_ioprio = ioprio;
        }
        // INVARIANT: Just charged.
        Self {
            bio,
            _memory: PhantomData,
        }
    }

    /// Adds a piece of memory, and returns whether there was room. Only to one that gathers.
    pub(crate) fn add(&mut self, piece: Piece<'p>) -> bool {
        // SAFETY: By the type invariants the bio is ours and not submitted; the piece is valid
        // memory for `'p`, which lasts until the bio has ended.
        let added = unsafe {
            bindings::bio_add_page(
                self.bio.as_ptr(),
                piece.page.as_ptr(),
                piece.len,
                piece.offset,
            )
        };
        added > 0
    }

    /// Adds a stretch of memory, and returns whether there was room. Only to one that gathers.
    pub(crate) fn gather(&mut self, span: Span<'p>) -> bool {
        let bio = self.bio.as_ptr();
        let (mut within, mut left) = (span.within, span.len);
        // SAFETY: By the type invariants the bio is ours and not submitted. The vectors of one that
        // gathers are its own, `bi_max_vecs` of which the first `bi_vcnt` are used; the one written
        // is behind these. What is added is valid memory for `'p`, which lasts until the bio has
        // ended.
        unsafe {
            for vec in span.vecs {
                let len = vec.bv_len.saturating_sub(within).min(left);
                if len == 0 {
                    break;
                }
                if (*bio).bi_vcnt >= (*bio).bi_max_vecs {
                    return false;
                }
                let Some(size) = (*bio).bi_iter.bi_size.checked_add(len) else {
                    return false;
                };
                // CAST: Widening.
                let offset = vec.bv_offset as usize + within as usize;
                let slot = (*bio).bi_io_vec.add(usize::from((*bio).bi_vcnt));
                slot.write(bindings::bio_vec {
                    // The pages of a vector are contiguous.
                    bv_page: vec.bv_page.add(offset / PAGE_SIZE),
                    bv_len: len,
                    // CAST: Less than a page.
                    bv_offset: (offset % PAGE_SIZE) as u32,
                });
                (*bio).bi_vcnt = (*bio).bi_vcnt.wrapping_add(1);
                (*bio).bi_iter.bi_size = size;
                left = left.wrapping_sub(len);
                within = 0;
            }
        }
        left == 0
    }

    /// Returns how many bytes of memory it has so far.
    pub(super) fn len(&self) -> usize {
        // SAFETY: By the type invariants.
        // CAST: Widening.
        unsafe { (*self.bio.as_ptr()).bi_iter.bi_size as usize }
    }

    /// Gives the bio away, to be submitted.
    pub(super) fn into_raw(self) -> NonNull<bindings::bio> {
        let bio = self.bio;
        core::mem::forget(self);
        bio
    }
}

impl Drop for ReadBio<'_> {
    fn drop(&mut self) {
        // SAFETY: By the type invariants the bio is ours and not submitted, so this frees it, and it
        // has a charge.
        unsafe {
            let charged = charged(self.bio.as_ptr());
            drop((*charged).charge.assume_init_read());
            put(charged, self.bio.as_ptr());
        }
    }
}

/// Returns the whole of which a bio of our pools is a part.
///
/// # Safety
///
/// `bio` must be one.
unsafe fn charged(bio: *mut bindings::bio) -> *mut Charged {
    // SAFETY: By the contract.
    unsafe { bio.byte_sub(ReadBio::FRONT_PAD).cast() }
}

/// Puts a bio, unless it is lent.
///
/// # Safety
///
/// The bio must be ours, and not be used any more.
unsafe fn put(charged: *mut Charged, bio: *mut bindings::bio) {
    // SAFETY: By the contract.
    unsafe {
        if !(*charged).lent {
            bindings::bio_put(bio);
        }
    }
}

/// Gives back a bio that has ended with this status. Any context.
///
/// # Safety
///
/// It must have been submitted as a [`ReadBio`], and not be used any more; its set must not have
/// landed.
pub(super) unsafe fn ended(bio: *mut bindings::bio, status: Result) {
    // SAFETY: By the contract; the charge was written before, and is read once. What a bio has a
    // mark for lasts until its set has landed.
    unsafe {
        let charged = charged(bio);
        if let (Err(error), Some(mark)) = (status, (*charged).mark.as_ref()) {
            mark.fail(error);
        }
        (*charged).charge.assume_init_read().ended(status.is_ok());
        put(charged, bio);
    }
}
