// SPDX-License-Identifier: GPL-2.0

//! Inodes of btrfs.
//!
//! C headers: [`fs/btrfs/btrfs_inode.h`](srctree/fs/btrfs/btrfs_inode.h),
//! [`include/linux/fs.h`](srctree/include/linux/fs.h)

use super::fs::FsInfo;
use crate::{
    bindings,
    safe::patience::Patience, //
};
use core::{
    marker::PhantomData,
    ptr::NonNull, //
};
use kernel::{
    bindings as kbindings,
    container_of,
    error::to_result,
    page::PAGE_SIZE,
    prelude::*,
    types::NotThreadSafe, //
};

/// Tells inodes that are in memory at the same time apart. To be compared, never followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct InodeId(pub(crate) usize);

/// A reference to the inode of a regular file.
///
/// # Invariants
///
/// `inode` points to a `struct btrfs_inode` that is held for `'a`.
#[derive(Clone, Copy)]
pub(crate) struct Inode<'a> {
    inode: NonNull<bindings::btrfs_inode>,
    _held: PhantomData<&'a bindings::btrfs_inode>,
    _not_send: NotThreadSafe,
}

impl<'a> Inode<'a> {
    /// Finds the btrfs inode around a VFS inode.
    ///
    /// # Safety
    ///
    /// `inode` must be an inode of btrfs, and held for `'a`.
    pub(crate) unsafe fn from_vfs(inode: *mut kbindings::inode) -> Self {
        // SAFETY: An inode of btrfs lies within a btrfs inode, so this is in bounds, and not null.
        let inode = unsafe {
            NonNull::new_unchecked(container_of!(inode, bindings::btrfs_inode, vfs_inode))
        };
        // INVARIANT: By the contract of this function.
        Self {
            inode,
            _held: PhantomData,
            _not_send: NotThreadSafe,
        }
    }

    /// Returns the btrfs inode, for the modules around.
    pub(super) fn as_raw(self) -> *mut bindings::btrfs_inode {
        self.inode.as_ptr()
    }

    /// Returns the VFS inode, for the safe abstractions.
    pub(in crate::safe) fn as_vfs(self) -> *mut kbindings::inode {
        // SAFETY: By the type invariants the inode is valid.
        unsafe { &raw mut (*self.inode.as_ptr()).vfs_inode }
    }

    /// Returns the filesystem.
    pub(crate) fn fs(self) -> FsInfo<'a> {
        // SAFETY: By the type invariants the inode is held, and with it its root and filesystem.
        unsafe { FsInfo::from_raw((*(*self.inode.as_ptr()).root).fs_info) }
    }

    /// Returns what tells it from others for as long as it is in memory.
    pub(crate) fn id(self) -> InodeId {
        InodeId(self.inode.as_ptr().addr())
    }

    /// Returns its number, the one that people know the file by.
    pub(super) fn number(self) -> u64 {
        // SAFETY: By the type invariants the inode is valid.
        unsafe { bindings::bdio_ino(self.as_raw()) }
    }

    /// Returns the size of the file in bytes, as of now.
    pub(crate) fn size(self) -> u64 {
        // SAFETY: By the type invariants the inode is valid.
        let size = unsafe { bindings::bdio_i_size_read(self.as_vfs()) };
        u64::try_from(size).unwrap_or(0)
    }

    /// Returns whether the file is sealed with fs-verity.
    pub(crate) fn has_verity(self) -> bool {
        self.has_flag(kbindings::S_VERITY)
    }

    /// Returns whether the file is encrypted.
    pub(crate) fn is_encrypted(self) -> bool {
        self.has_flag(kbindings::S_ENCRYPTED)
    }

    /// Returns whether a flag of the VFS is set, as of now.
    fn has_flag(self, flag: u32) -> bool {
        // SAFETY: By the type invariants the inode is valid. Flags may change at any time.
        let flags = unsafe { (&raw const (*self.as_vfs()).i_flags).read_volatile() };
        flags & flag != 0
    }

    /// Returns whether the data of the file has checksums that can be looked up.
    ///
    /// Rule: `btrfs_lookup_bio_sums()`, fs/btrfs/file-item.c.
    pub(crate) fn has_checksums(self) -> bool {
        self.flags() & bindings::BTRFS_INODE_NODATASUM == 0 && !self.fs().lacks_checksums()
    }

    /// Returns whether data is overwritten where it is.
    pub(crate) fn is_overwritten_in_place(self) -> bool {
        self.flags() & bindings::BTRFS_INODE_NODATACOW != 0
    }

    /// Returns whether data of the file has been given to the threads that compress, ever since it
    /// was opened.
    pub(super) fn is_compressing(self) -> bool {
        // SAFETY: By the type invariants the inode is valid.
        unsafe { bindings::bdio_has_async_extent(self.as_raw()) }
    }

    /// Waits until nobody has a folio of the bytes from `start` to `last` locked. No extent bit may
    /// be held. Sleeps.
    pub(super) fn wait_for_folios(self, start: u64, last: u64) {
        // CAST: Widening; `usize` on 64 bits.
        let page = PAGE_SIZE as u64;
        let (mut index, last) = (start / page, last / page);
        while index <= last {
            // SAFETY: By the type invariants the inode is valid.
            // CAST: As above.
            let next = unsafe { bindings::bdio_wait_folio(self.as_vfs(), index as usize) };
            index = index.saturating_add(1).max(next as u64);
        }
    }

    fn flags(self) -> u32 {
        // SAFETY: By the type invariants the inode is valid. The flags looked at change only while
        // the file is empty.
        unsafe { (&raw const (*self.inode.as_ptr()).flags).read_volatile() }
    }

    /// Takes `i_rwsem` shared, and tells truncate and the like that a direct read is under way.
    ///
    /// Task context; sleeps, or fails with `EAGAIN`, as `patience` says. Taken before any extent
    /// bit. No page may be faulted in by the holder that a writer of this file could hold; pages
    /// are best pinned before.
    pub(crate) fn lock_shared(self, patience: Patience) -> Result<SharedInode<'a>> {
        // SAFETY: By the type invariants the inode is valid. `inode_dio_begin()` is called under
        // the lock, so that `inode_dio_wait()` under the exclusive lock is a barrier.
        unsafe {
            match patience {
                Patience::Wait => bindings::bdio_inode_lock_shared(self.as_vfs()),
                Patience::Nowait if bindings::bdio_inode_trylock_shared(self.as_vfs()) => {}
                Patience::Nowait => return Err(EAGAIN),
            }
            bindings::bdio_inode_dio_begin(self.as_vfs());
        }
        // INVARIANT: Just taken.
        Ok(SharedInode {
            count: DioCount { inode: self },
            _lock: SharedLock { inode: self },
        })
    }
}

/// `i_rwsem`, held shared by the current task, since [`Inode`] is not `Send`.
struct SharedLock<'a> {
    inode: Inode<'a>,
}

impl Drop for SharedLock<'_> {
    fn drop(&mut self) {
        // SAFETY: Held, as its existence says.
        unsafe { bindings::bdio_inode_unlock_shared(self.inode.as_vfs()) }
    }
}

/// A count of direct I/O of an inode: who truncates the file, or shares its extents, waits until
/// it is given back. May be given back by any task.
///
/// # Invariants
///
/// The count was raised for this under `i_rwsem`.
#[must_use = "the count is given back when this is dropped"]
pub(crate) struct DioCount<'a> {
    inode: Inode<'a>,
}

impl<'a> DioCount<'a> {
    /// Returns the inode.
    pub(crate) fn inode(&self) -> Inode<'a> {
        self.inode
    }

    /// Writes back once more what [`SharedInode::write_back`] may have left in the hands of the
    /// threads that compress: it starts them, and their pages are not under writeback until they
    /// end. Who may not wait has seen to it that there is nothing to write back.
    ///
    /// Rule: `btrfs_dio_iomap_begin()`, fs/btrfs/direct-io.c. No extent bit may be held. Sleeps.
    pub(crate) fn write_back_compressed(&self, start: u64, len: u64, patience: Patience) -> Result {
        if patience == Patience::Nowait || !self.inode.is_compressing() {
            return Ok(());
        }
        let Some((start, end)) = bounds(start, len) else {
            return Ok(());
        };
        // SAFETY: As in `write_back()`.
        to_result(unsafe {
            let mapping = (*self.inode.as_vfs()).i_mapping;
            kbindings::filemap_fdatawrite_range(mapping, start, end)
        })
    }
}

impl Drop for DioCount<'_> {
    fn drop(&mut self) {
        // SAFETY: By the type invariants the count is ours.
        unsafe { bindings::bdio_inode_dio_end(self.inode.as_vfs()) }
    }
}

/// An inode whose `i_rwsem` is held shared, and whose count of direct I/O is raised.
#[must_use = "the lock is released when this is dropped"]
pub(crate) struct SharedInode<'a> {
    // Dropped in this order.
    count: DioCount<'a>,
    _lock: SharedLock<'a>,
}

impl<'a> SharedInode<'a> {
    /// Returns the count of direct I/O.
    pub(crate) fn count(&self) -> &DioCount<'a> {
        &self.count
    }

    /// Releases the lock and keeps the count.
    pub(crate) fn into_count(self) -> DioCount<'a> {
        self.count
    }

    /// Writes back dirty pages of the `len` bytes from `start` on, and waits for them; `EAGAIN` if
    /// there are some, and the read may not wait.
    ///
    /// Also reports, once, an earlier failure to write back, as for every direct read: the result
    /// is the read's result, and asking again would hide it. Rule: `kiocb_write_and_wait()` in
    /// `iomap_dio_rw()`, fs/iomap/direct-io.c. No extent bit may be held. Sleeps.
    pub(crate) fn write_back(&self, start: u64, len: u64, patience: Patience) -> Result {
        let Some((start, end)) = bounds(start, len) else {
            return Ok(());
        };
        let inode = self.count.inode.as_vfs();
        // SAFETY: By the type invariants the inode is valid, and so is its mapping.
        unsafe {
            if patience == Patience::Nowait {
                return if bindings::bdio_range_needs_writeback(inode, start, end) {
                    Err(EAGAIN)
                } else {
                    Ok(())
                };
            }
            to_result(kbindings::filemap_write_and_wait_range(
                (*inode).i_mapping,
                start,
                end,
            ))
        }
    }
}

/// First and last byte of a range, `None` if it is empty or not within a file.
fn bounds(start: u64, len: u64) -> Option<(i64, i64)> {
    let last = start.checked_add(len)?.checked_sub(1).filter(|_| len > 0)?;
    Some((i64::try_from(start).ok()?, i64::try_from(last).ok()?))
}
