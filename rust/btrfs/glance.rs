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
    _rcu: rcu::Guard,
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
        let rcu = rcu::read_lock();
        // SAFETY: The inode is valid. The function returns a reference or null.
        let em = unsafe { bindings::bdio_settled_extent(inode.as_raw(), start, len) };
        // INVARIANT: The function looked at the tree, and at the flag, under the lock of the tree.
        Some(Self {
            inode,
            // SAFETY: A reference, ours.
            map: unsafe { ExtentMap::from_raw(NonNull::new(em)?) },
            _rcu: rcu,
        })
    }

    /// Returns what the map says.
    pub(crate) fn extent(&self) -> Extent {
        self.map.extent()
    }

    /// Returns the filesystem.
    pub(crate) fn fs(&self) -> FsInfo<'a> {
        self.inode.fs()
    }

    /// Returns the epoch of the filesystem, as [`ExtentLock::epoch`](super::extent_lock::ExtentLock).
    ///
    /// If the extent is current afterwards, then what is said there holds for it: the map was not
    /// pinned when it was looked at, so the transaction that made the file refer to its space had
    /// begun, and it cannot be freed by one that has ended.
    pub(crate) fn epoch(&self) -> u64 {
        self.inode.fs().generation()
    }

    /// Returns whether the file has had the extent all the time since the look.
    ///
    /// To be asked after all that depends on it has been read, with acquire semantics or under a
    /// lock.
    pub(crate) fn is_current(&self) -> bool {
        self.map.is_current()
    }
}
