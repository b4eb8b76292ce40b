// SPDX-License-Identifier: GPL-2.0

//! A read bio under construction.
//!
//! C header: [`include/linux/bio.h`](srctree/include/linux/bio.h)

use super::pool::BioPool;
use crate::{
    bindings as our_bindings,
    safe::{
        btrfs::device::OpenDevice,
        vecs::Span, //
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
/// [`Submitter::submit`](super::batch::Submitter::submit).
///
/// `'p` is how long the memory it reads into is valid, and its pool exists. The device has to be kept
/// until it is submitted; from then on the block layer keeps it.
///
/// # Invariants
///
/// `bio` is a bio of ours that has not been submitted.
#[must_use = "a bio that is dropped reads nothing"]
pub(crate) struct ReadBio<'p> {
    bio: NonNull<bindings::bio>,
    _memory: PhantomData<&'p ()>,
}

impl<'p> ReadBio<'p> {
    /// Allocates a read from byte `physical` of `device` on, into the memory of `span`.
    ///
    /// `physical` must be a multiple of the sector size of 512 bytes. Task context, may sleep; at
    /// most one bio of the pool may exist unsubmitted in a task, or the reserve of the pool may
    /// not suffice. `ENOMEM` does not happen: the pool has a reserve.
    pub(crate) fn new(
        pool: &'p BioPool,
        device: &OpenDevice,
        physical: u64,
        span: Span<'p>,
        ioprio: u16,
    ) -> Result<Self> {
        // SAFETY: The pool is initialised, and the device is open by its type invariants.
        let bio = unsafe {
            bindings::bio_alloc_bioset(
                device.as_bdev(),
                // Vectors of its own.
                0,
                our_bindings::READ_OPF,
                // With a hold on the devices reclaim must not enter the filesystem.
                our_bindings::NOFS,
                pool.as_raw(),
            )
        };
        let bio = NonNull::new(bio).ok_or(ENOMEM)?;
        // SAFETY: The bio is ours and not submitted. The vectors describe as much memory as is said,
        // and they as well as the memory are there for `'p`, which lasts until the bio has ended.
        unsafe {
            (*bio.as_ptr()).bi_iter.bi_sector = physical >> SECTOR_SHIFT;
            (*bio.as_ptr()).bi_ioprio = ioprio;
            our_bindings::bdio_bio_set_vecs(
                bio.as_ptr(),
                span.vecs.as_ptr(),
                span.within,
                span.len,
            );
        }
        // INVARIANT: Just allocated.
        Ok(Self {
            bio,
            _memory: PhantomData,
        })
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
        // SAFETY: By the type invariants the bio is ours and not submitted, so this frees it.
        unsafe { bindings::bio_put(self.bio.as_ptr()) }
    }
}
