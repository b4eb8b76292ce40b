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
    mem::{
        offset_of,
        MaybeUninit, //
    },
    ptr::NonNull, //
};
use kernel::{
    bindings,
    block::SECTOR_SHIFT,
    container_of,
    prelude::*, //
};

/// How many pieces of memory a bio can have that gathers them.
// CAST: 256.
pub(crate) const MAX_PIECES: usize = bindings::BIO_MAX_VECS as usize;

/// A bio as our pools allocate it.
#[repr(C)]
struct Charged {
    charge: MaybeUninit<Charge>,
    bio: MaybeUninit<bindings::bio>,
}

/// A read that has not been submitted; it becomes one in flight through
/// [`Submitter::submit`](super::batch::Submitter::submit).
///
/// `'p` is how long the memory it reads into is valid, and its pool exists. The device has to be kept
/// until it is submitted; from then on the block layer keeps it.
///
/// # Invariants
///
/// `bio` is a bio of ours that has not been submitted, that of a [`Charged`] with a charge.
#[must_use = "a bio that is dropped reads nothing"]
pub(crate) struct ReadBio<'p> {
    bio: NonNull<bindings::bio>,
    _memory: PhantomData<&'p ()>,
}

impl<'p> ReadBio<'p> {
    /// How many bytes a pool has to allocate in front of a bio.
    pub(super) const FRONT_PAD: usize = offset_of!(Charged, bio);

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
        let bio = Self::new(pool, device, physical, 0, ioprio, charge)?;
        // SAFETY: The bio is ours and not submitted, and has no vectors of its own. Those of the span
        // describe as much memory as is said, and they as well as the memory are there for `'p`,
        // which lasts until the bio has ended.
        unsafe {
            our_bindings::bdio_bio_set_vecs(
                bio.bio.as_ptr(),
                span.vecs.as_ptr(),
                span.within,
                span.len,
            );
        }
        Ok(bio)
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
        Self::new(pool, device, physical, pieces, ioprio, charge)
    }

    fn new(
        pool: &'p BioPool,
        device: &OpenDevice,
        physical: u64,
        pieces: u16,
        ioprio: u16,
        charge: Charge,
    ) -> Result<Self> {
        // SAFETY: The pool is initialised, and the device is open by its type invariants.
        let bio = unsafe {
            bindings::bio_alloc_bioset(
                device.as_bdev(),
                pieces,
                our_bindings::READ_OPF,
                // With a hold on the devices reclaim must not enter the filesystem.
                our_bindings::NOFS,
                pool.as_raw(),
            )
        };
        let bio = NonNull::new(bio).ok_or(ENOMEM)?;
        // SAFETY: The bio is ours and not submitted; the pool has allocated what is in front of it.
        unsafe {
            (*charged(bio.as_ptr())).charge.write(charge);
            (*bio.as_ptr()).bi_iter.bi_sector = physical >> SECTOR_SHIFT;
            (*bio.as_ptr()).bi_ioprio = ioprio;
        }
        // INVARIANT: Just allocated, and charged.
        Ok(Self {
            bio,
            _memory: PhantomData,
        })
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
            drop((*charged(self.bio.as_ptr())).charge.assume_init_read());
            bindings::bio_put(self.bio.as_ptr());
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
    unsafe { container_of!(bio.cast::<MaybeUninit<bindings::bio>>(), Charged, bio) }
}

/// Frees a bio that has ended. Any context.
///
/// # Safety
///
/// It must have been submitted as a [`ReadBio`], and not be used any more.
pub(super) unsafe fn ended(bio: *mut bindings::bio, succeeded: bool) {
    // SAFETY: By the contract; the charge was written before, and is read once.
    unsafe {
        (*charged(bio)).charge.assume_init_read().ended(succeeded);
        bindings::bio_put(bio);
    }
}
