// SPDX-License-Identifier: GPL-2.0

//! A read bio under construction.
//!
//! C header: [`include/linux/bio.h`](srctree/include/linux/bio.h)

use super::pool::BioPool;
use crate::{
    bindings as our_bindings,
    safe::{
        btrfs::device::{
            DeviceHold,
            OpenDevice, //
        },
        user_pages::Piece, //
    },
};
use core::{
    marker::PhantomData,
    ptr::NonNull, //
};
use kernel::{
    bindings,
    block::SECTOR_SHIFT,
    prelude::*, //
};

/// A read that has not been submitted; it becomes one in flight through
/// [`Batch::submit`](super::batch::Batch::submit).
///
/// `'p` is how long the memory it reads into is valid, and its pool exists.
///
/// # Invariants
///
/// `bio` is a bio of ours that has not been submitted, to a device that `hold` keeps.
#[must_use = "a bio that is dropped reads nothing"]
pub(crate) struct ReadBio<'a, 'p> {
    bio: NonNull<bindings::bio>,
    hold: DeviceHold<'a>,
    _memory: PhantomData<&'p ()>,
}

impl<'a, 'p> ReadBio<'a, 'p> {
    /// Allocates a read from byte `physical` of `device` on, with room for `pieces` pieces of
    /// memory, or as many as a bio can have.
    ///
    /// `physical` must be a multiple of the sector size of 512 bytes. Task context, may sleep; at
    /// most one bio of the pool may exist unsubmitted in a task, or the reserve of the pool may
    /// not suffice. `ENOMEM` does not happen: the pool has a reserve.
    pub(crate) fn new(
        pool: &'p BioPool,
        device: &OpenDevice<'a>,
        physical: u64,
        pieces: usize,
        ioprio: u16,
    ) -> Result<Self> {
        // CAST: Clamped to what a bio can have, 256.
        let pieces = pieces.clamp(1, bindings::BIO_MAX_VECS as usize) as u16;
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
        // SAFETY: The bio is ours and not submitted.
        unsafe {
            (*bio.as_ptr()).bi_iter.bi_sector = physical >> SECTOR_SHIFT;
            (*bio.as_ptr()).bi_ioprio = ioprio;
        }
        // INVARIANT: Just allocated.
        Ok(Self {
            bio,
            hold: device.hold().another(),
            _memory: PhantomData,
        })
    }

    /// Adds a piece of memory, and returns whether there was room.
    pub(crate) fn add(&mut self, piece: Piece<'p>) -> bool {
        // SAFETY: By the type invariants the bio is ours and not submitted; the piece is valid
        // memory for `'p`, which the batch waits in.
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

    /// Returns the hold on the device.
    pub(super) fn hold(&self) -> &DeviceHold<'a> {
        &self.hold
    }

    /// Gives the bio away, to be submitted; its completion has to end the hold.
    pub(super) fn into_raw(self) -> NonNull<bindings::bio> {
        let bio = self.bio;
        core::mem::forget(self);
        bio
    }
}

impl Drop for ReadBio<'_, '_> {
    fn drop(&mut self) {
        // SAFETY: By the type invariants the bio is ours and not submitted, so this frees it.
        unsafe { bindings::bio_put(self.bio.as_ptr()) }
    }
}
