// SPDX-License-Identifier: GPL-2.0

//! Reads of what has to be rebuilt from the other stripes of a chunk with parity.
//!
//! C header: [`fs/btrfs/raid56.h`](srctree/fs/btrfs/raid56.h)

use super::{
    batch::Submitter,
    bio::{
        Mark,
        ReadBio, //
    },
    pool::BioPool, //
};
use crate::{
    bindings,
    safe::vecs::Piece, //
};
use core::ptr::{
    self,
    NonNull, //
};
use kernel::{
    error::to_result,
    page::PAGE_SIZE,
    prelude::*, //
};

/// A read of whole blocks of one stripe, which are to be rebuilt.
///
/// # Invariants
///
/// * `bio` is of no device, and begins at byte `logical` of the filesystem.
/// * It gathers pieces that begin and end at multiples of `step` in their pages; that is the size
///   `block` of a block, or that of a page if it is smaller.
pub(crate) struct RebuildBio<'p> {
    bio: ReadBio<'p>,
    logical: u64,
    block: usize,
    step: usize,
}

impl<'p> RebuildBio<'p> {
    /// Allocates one that begins at byte `logical`, into `pieces` pieces of memory at most, of a
    /// filesystem with blocks of `block` bytes. What becomes of it is marked. `EINVAL` if that is not
    /// where a block begins. Otherwise as [`ReadBio::gathering`].
    pub(crate) fn new(
        pool: &'p BioPool,
        logical: u64,
        block: usize,
        pieces: usize,
        mark: &'p Mark,
    ) -> Result<Self> {
        // CAST: Widening.
        if logical.checked_rem(block as u64) != Some(0) {
            return Err(EINVAL);
        }
        // INVARIANT: No piece yet.
        Ok(Self {
            bio: ReadBio::of_no_device(pool, logical, pieces)?.marked(Some(mark)),
            logical,
            block,
            step: block.min(PAGE_SIZE),
        })
    }

    /// Adds a piece of memory, and returns whether there was room, and it is one of whole steps.
    pub(crate) fn add(&mut self, piece: Piece<'p>) -> bool {
        // CAST: Widening.
        let bounds = piece.offset as usize | piece.len();
        // INVARIANT: Checked before it is added.
        bounds.checked_rem(self.step) == Some(0) && self.bio.add(piece)
    }
}

impl<'p> Submitter<'_, 'p> {
    /// Has a bio rebuilt, in the way that btrfs has for copy number `mirror`, which is 2 or more. What
    /// is rebuilt may still be wrong.
    ///
    /// `EINVAL` if the chunk is none with parity, or has no such copy, or the bio leaves the stripe, or
    /// is not of whole blocks of the filesystem. Task context, sleeps.
    ///
    /// Rule: `btrfs_submit_mirrored_bio()` and `__btrfs_submit_bio()`, fs/btrfs/bio.c.
    pub(crate) fn rebuild(self, bio: RebuildBio<'p>, mirror: u32) -> Result {
        const PARITY: u64 =
            bindings::BTRFS_BLOCK_GROUP_RAID5 as u64 | bindings::BTRFS_BLOCK_GROUP_RAID6 as u64;
        let fs_info = self.core().fs_info();
        let mut number = i32::try_from(mirror).map_err(|_| EINVAL)?;
        let len = bio.bio.len();
        // SAFETY: The set has not been sealed, so its filesystem is mounted.
        // CAST: Widening.
        let block = unsafe { (*fs_info).sectorsize as usize };
        let whole = len > 0 && bio.block == block && len.checked_rem(block) == Some(0);
        if number < 2 || !whole {
            return Err(EINVAL);
        }
        // CAST: Widening.
        let mut reach = len as u64;
        let mut context = ptr::null_mut();
        // SAFETY: As above, and a hold is ours.
        to_result(unsafe {
            bindings::btrfs_map_block(
                fs_info,
                bindings::btrfs_map_op_BTRFS_MAP_READ,
                bio.logical,
                &mut reach,
                &mut context,
                ptr::null_mut(),
                &mut number,
            )
        })?;
        let context = NonNull::new(context).ok_or(EINVAL)?;
        // SAFETY: A reference of ours, given back after its last use; what rebuilds the stripe takes
        // one of its own. The bio is ours to submit, and of this set. By its type invariants it begins
        // at a block, and has memory of whole steps, which are whole blocks altogether, and, as just
        // asked, do not leave the stripe.
        unsafe {
            // CAST: Widening.
            let fits = (*context.as_ptr()).map_type & PARITY != 0 && reach >= len as u64;
            if fits {
                let bio = self.enlist(bio.bio);
                bindings::raid56_parity_recover(bio.as_ptr(), context.as_ptr(), number);
            }
            bindings::btrfs_put_bioc(context.as_ptr());
            fits.then_some(()).ok_or(EINVAL)
        }
    }
}
