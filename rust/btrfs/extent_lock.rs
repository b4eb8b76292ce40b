// SPDX-License-Identifier: GPL-2.0

//! The extent bits: exclusive locks on ranges of a file.
//!
//! Under `EXTENT_LOCKED`, and with no ordered extent in the range, neither the extents of the range
//! nor the references to their disk space can change: every path that does so takes the bit first.
//! `EXTENT_DIO_LOCKED` keeps direct writers away until the data has been read, too: needed where
//! they write in place.
//!
//! C headers: [`fs/btrfs/extent-io-tree.h`](srctree/fs/btrfs/extent-io-tree.h),
//! [`fs/btrfs/ordered-data.h`](srctree/fs/btrfs/ordered-data.h)

use super::inode::{
    DioCount,
    Inode, //
};
use crate::{
    bindings,
    safe::{
        memalloc::Scope,
        patience::Patience, //
    },
};
use core::ptr;
use kernel::{
    error::to_result,
    prelude::*, //
};

const EXTENT_BIT: u32 = 1 << bindings::__EXTENT_LOCKED_BIT;
const DELALLOC: u32 = 1 << bindings::__EXTENT_DELALLOC_BIT;
const DIO_BIT: u32 = 1 << bindings::__EXTENT_DIO_LOCKED_BIT;

/// What else is locked beside the extents.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Writers {
    /// Direct writers may write into the range while its data is read: what they write goes
    /// elsewhere on disk.
    Allowed,
    /// Direct writers are kept away until the data has been read: they write where it is. So are
    /// other readers that keep them away.
    KeptAway,
}

/// A locked range of a file, with no ordered extent in it.
///
/// While it lives the task must not fault, lock a folio, allocate into the filesystem (it is in a
/// [`Scope`] for that), submit I/O, or wait for anything that needs the range.
///
/// # Invariants
///
/// * The bits `bits` are set on the bytes `start..=end` of `inode`, by the current task.
/// * `cached` is null or a reference to an extent state, ours.
#[must_use = "the range is unlocked when this is dropped"]
pub(crate) struct ExtentLock<'a> {
    inode: Inode<'a>,
    start: u64,
    end: u64,
    bits: u32,
    cached: *mut bindings::extent_state,
    nofs: Option<Scope>,
}

impl<'a> ExtentLock<'a> {
    /// Locks the `len` bytes from `start` on, and waits for the writes in it that are under way.
    ///
    /// Both are multiples of the block size. `None` if after `tries` waits there still is an
    /// ordered extent. Nothing is locked while waiting for one, so its completion can always take
    /// the range. Task context; sleeps, or fails with `EAGAIN`, as `patience` says.
    pub(crate) fn new(
        inode: &DioCount<'a>,
        start: u64,
        len: u64,
        writers: Writers,
        tries: u32,
        patience: Patience,
    ) -> Result<Option<Self>> {
        let inode = inode.inode();
        let end = start
            .checked_add(len)
            .and_then(|end| end.checked_sub(1))
            .filter(|end| *end >= start)
            .ok_or(EINVAL)?;
        let mut settled = !inode.is_compressing();
        for _ in 0..tries {
            let mut lock = Self {
                inode,
                start,
                end,
                // INVARIANT: No bit yet.
                bits: 0,
                cached: ptr::null_mut(),
                nofs: Some(Scope::nofs()),
            };
            // The order in which fs/btrfs/direct-io.c takes them.
            if writers == Writers::KeptAway {
                lock.take(DIO_BIT, patience)?;
            }
            lock.take(EXTENT_BIT, patience)?;
            // SAFETY: The inode is valid. What is returned is null or a reference, ours.
            let ordered = unsafe {
                bindings::btrfs_lookup_ordered_range(
                    inode.as_raw(),
                    start,
                    // Does not overflow: `start` to `end` has been counted up.
                    end.saturating_sub(start).saturating_add(1),
                )
            };
            if ordered.is_null() {
                if settled || !lock.is_pending() {
                    return Ok(Some(lock));
                }
                drop(lock);
                if patience == Patience::Nowait {
                    return Err(EAGAIN);
                }
                settled = true;
                inode.wait_for_folios(start, end);
                continue;
            }
            drop(lock);
            if patience == Patience::Nowait {
                // SAFETY: `ordered` is a reference of ours.
                unsafe { bindings::btrfs_put_ordered_extent(ordered) };
                return Err(EAGAIN);
            }
            // SAFETY: `ordered` is a reference of ours, given back here. No extent bit is held by
            // this task, so waiting for it to complete cannot wait for ourselves.
            unsafe {
                bindings::bdio_start_ordered_extent(ordered);
                bindings::btrfs_put_ordered_extent(ordered);
            }
        }
        Ok(None)
    }

    /// Returns whether there is data in the range that is to be written, and not in an ordered
    /// extent yet: written to a mapping since it was written back, or in the hands of the threads
    /// that compress.
    ///
    /// These take a large folio in pieces, and make the first one's ordered extent, and the folio
    /// one under writeback, long before the last one's. Writing back once more does not wait for
    /// them then: the folio is not dirty any more. But they keep it locked.
    fn is_pending(&self) -> bool {
        // SAFETY: The inode is valid, and so is its tree.
        unsafe {
            let tree = &raw mut (*self.inode.as_raw()).io_tree;
            bindings::btrfs_test_range_bit_exists(tree, self.start, self.end, DELALLOC)
        }
    }

    /// Sets a bit on the range, waiting for whoever has it.
    fn take(&mut self, bit: u32, patience: Patience) -> Result {
        // SAFETY: The inode is valid, and so is its tree; `cached` is as the functions want it.
        unsafe {
            let tree = &raw mut (*self.inode.as_raw()).io_tree;
            let cached = &mut self.cached;
            match patience {
                Patience::Wait => to_result(bindings::btrfs_lock_extent_bits(
                    tree, self.start, self.end, bit, cached,
                ))?,
                Patience::Nowait => {
                    if !bindings::btrfs_try_lock_extent_bits(
                        tree, self.start, self.end, bit, cached,
                    ) {
                        return Err(EAGAIN);
                    }
                }
            }
        }
        // INVARIANT: Set, since the function succeeded.
        self.bits |= bit;
        Ok(())
    }

    /// Clears bits of ours.
    fn clear(&mut self, bits: u32) {
        let bits = bits & self.bits;
        if bits == 0 {
            return;
        }
        // INVARIANT: Cleared below.
        self.bits &= !bits;
        // Of what stays locked the state is still needed.
        let kept = match self.bits {
            0 => ptr::null_mut(),
            _ => self.cached,
        };
        if !kept.is_null() {
            // SAFETY: By the type invariants we have a reference.
            unsafe { bindings::bdio_get_extent_state(kept) }
        }
        // SAFETY: By the type invariants the bits are set, by us. With a lock bit the function also
        // gives back the reference in `cached`, and nulls it.
        let _ = unsafe {
            let tree = &raw mut (*self.inode.as_raw()).io_tree;
            bindings::btrfs_clear_extent_bit_changeset(
                tree,
                self.start,
                self.end,
                bits,
                &mut self.cached,
                ptr::null_mut(),
            )
        };
        // INVARIANT: Null, or the reference that was just taken.
        self.cached = kept;
    }

    /// Returns the inode.
    pub(crate) fn inode(&self) -> Inode<'a> {
        self.inode
    }

    /// Returns whether the `len` bytes from `start` on lie within the range.
    pub(super) fn covers(&self, start: u64, len: u64) -> bool {
        start >= self.start
            && start
                .checked_add(len)
                .and_then(|end| end.checked_sub(1))
                .is_some_and(|end| end <= self.end)
    }

    /// Unlocks the extents; faults, folio locks and I/O are allowed again. Returns what remains locked,
    /// if anything.
    #[must_use = "direct writers are let in when this is dropped"]
    pub(crate) fn unlock_extents(mut self) -> Option<WriterLock<'a>> {
        self.clear(EXTENT_BIT);
        self.nofs = None;
        let writers = WriterLock { lock: self };
        writers.keeps_writers_away().then_some(writers)
    }
}

impl Drop for ExtentLock<'_> {
    fn drop(&mut self) {
        self.clear(self.bits);
        if !self.cached.is_null() {
            // SAFETY: By the type invariants a reference of ours.
            unsafe { bindings::btrfs_free_extent_state(self.cached) }
        }
    }
}

/// What is left of an [`ExtentLock`] while the data is read: direct writers are kept away.
#[must_use = "direct writers are let in when this is dropped"]
pub(crate) struct WriterLock<'a> {
    lock: ExtentLock<'a>,
}

impl<'a> WriterLock<'a> {
    /// Keeps direct writers away from the `len` bytes from `start` on, both multiples of the block
    /// size, but not those who write there already: see [`Self::is_quiet`].
    ///
    /// Task context; sleeps, or fails with `EAGAIN`, as `patience` says.
    pub(crate) fn take(
        inode: &DioCount<'a>,
        start: u64,
        len: u64,
        patience: Patience,
    ) -> Result<Self> {
        let end = start
            .checked_add(len)
            .and_then(|end| end.checked_sub(1))
            .filter(|end| *end >= start);
        let mut lock = ExtentLock {
            inode: inode.inode(),
            start,
            end: end.ok_or(EINVAL)?,
            // INVARIANT: No bit, no state.
            bits: 0,
            cached: ptr::null_mut(),
            nofs: None,
        };
        lock.take(DIO_BIT, patience)?;
        Ok(Self { lock })
    }

    /// Returns whether nobody writes to the range, who has begun before it was locked: a direct
    /// writer has an ordered extent there before the lock is given up, and until the data has
    /// arrived. Does not sleep.
    ///
    /// Rule: `btrfs_dio_iomap_begin()`, fs/btrfs/direct-io.c.
    pub(crate) fn is_quiet(&self) -> bool {
        let lock = &self.lock;
        let len = lock.end.saturating_sub(lock.start).saturating_add(1);
        // SAFETY: The inode is valid. What is returned is null or a reference, ours, given back.
        unsafe {
            let inode = lock.inode.as_raw();
            let ordered = bindings::btrfs_lookup_ordered_range(inode, lock.start, len);
            if ordered.is_null() {
                return true;
            }
            bindings::btrfs_put_ordered_extent(ordered);
        }
        false
    }

    /// Returns whether anything is locked. If not, it may be dropped in any context.
    fn keeps_writers_away(&self) -> bool {
        self.lock.bits != 0 || !self.lock.cached.is_null()
    }

    /// Lets direct writers in, if that can be done here and now, and returns whether none is kept
    /// away any more: then it may be dropped in any context. Any context.
    pub(crate) fn try_let_in(&mut self) -> bool {
        let lock = &mut self.lock;
        if lock.bits == DIO_BIT {
            // SAFETY: The inode is valid, and so is its tree. By the type invariants the bit is
            // set on the range, by us, and `cached` is as the function wants it, which gives back
            // the reference and nulls it if it succeeds. Any context will do for it.
            let done = unsafe {
                let tree = &raw mut (*lock.inode.as_raw()).io_tree;
                bindings::btrfs_try_unlock_dio_extent(tree, lock.start, lock.end, &mut lock.cached)
            };
            if done {
                // INVARIANT: Cleared by the function.
                lock.bits = 0;
            }
        }
        !self.keeps_writers_away()
    }
}
