// SPDX-License-Identifier: GPL-2.0

//! A look at one extent of a file without a lock on its range.
//!
//! C header: [`fs/btrfs/extent_map.h`](srctree/fs/btrfs/extent_map.h)

use super::{
    extent_map::{
        Extent,
        ExtentMap, //
    },
    fs::FsInfo,
    inode::{
        DioCount,
        Inode, //
    },
};
use crate::bindings;
use core::ptr::NonNull;
use kernel::sync::rcu;

/// An extent that a file had a moment ago.
///
/// What was learned of it is true if [`Self::is_current`] says so afterwards: whoever takes disk
/// space from the file takes the extent map out of the tree first, so the space was the file's, and
/// the chunk it is in was there, all the time from the look on. Until then only memory is safe: it is
/// looked at within a read side of RCU, which a device that is removed waits for, after its last
/// chunk has gone.
///
/// While it lives the task must not sleep.
///
/// # Invariants
///
/// The map was in the tree of the inode after the read side of RCU had begun, and was not pinned: all
/// that was written to it had been written, and its checksums, if they are in the tree, are those of
/// what was written.
pub(crate) struct Glance<'a> {
    inode: Inode<'a>,
    map: ExtentMap,
    watch: Watch,
}

/// A read side of RCU: chunks that have their block groups in it, and their devices, can be looked
/// at in it.
///
/// `btrfs_rm_device()` waits for those that have begun when the last block group on the device has
/// gone, and frees the device and closes the block device after that. A device that is replaced is
/// not freed while there is a hold, which is needed beside.
///
/// While it lives the task must not sleep.
pub(crate) struct Watch(rcu::Guard);

impl Watch {
    /// Begins one.
    pub(crate) fn new() -> Self {
        Self(rcu::read_lock())
    }
}

impl<'a> Glance<'a> {
    /// Looks at the extent that has the `len` bytes from `start` on; `None` if it is not known
    /// without reading metadata, does not have all of them, or has not been written yet. Data that
    /// is on its way to the threads that compress is in no extent, so `None` if there may be such.
    ///
    /// Task context, does not sleep.
    pub(crate) fn new(inode: &DioCount<'a>, start: u64, len: u64) -> Option<Self> {
        let inode = inode.inode();
        if inode.is_compressing() {
            return None;
        }
        let watch = Watch::new();
        // SAFETY: The inode is valid. The function returns a reference or null.
        let em = unsafe { bindings::bdio_settled_extent(inode.as_raw(), start, len) };
        // INVARIANT: The function looked at the tree, and at the flag, under the lock of the tree.
        Some(Self {
            inode,
            // SAFETY: A reference, ours.
            map: unsafe { ExtentMap::from_raw(NonNull::new(em)?) },
            watch,
        })
    }

    /// Returns what the map says.
    pub(crate) fn extent(&self) -> Extent {
        self.map.extent()
    }

    /// Returns the read side of RCU.
    pub(crate) fn watch(&self) -> &Watch {
        &self.watch
    }

    /// Returns the filesystem.
    pub(crate) fn fs(&self) -> FsInfo<'a> {
        self.inode.fs()
    }

    /// Returns whether the file has had the extent all the time since the look.
    ///
    /// To be asked after all that depends on it has been read, with acquire semantics or under a
    /// lock.
    pub(crate) fn is_current(&self) -> bool {
        self.map.is_current()
    }

    /// Returns the map, to be asked again: what is read from the disk counts if it still is current
    /// then. The task may sleep again.
    pub(crate) fn into_map(self) -> ExtentMap {
        self.map
    }
}
