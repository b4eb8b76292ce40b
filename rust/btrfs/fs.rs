// SPDX-License-Identifier: GPL-2.0

//! A mounted btrfs.
//!
//! C header: [`fs/btrfs/fs.h`](srctree/fs/btrfs/fs.h)

use crate::{
    bindings,
    safe::hash::Algorithm, //
};
use core::marker::PhantomData;
use kernel::types::NotThreadSafe;

/// Tells filesystems that are mounted at the same time apart. To be compared, never followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FsId(pub(crate) usize);

impl FsId {
    /// Returns the identity of a filesystem, which need not be mounted any more.
    pub(super) fn of(fs_info: *const bindings::btrfs_fs_info) -> Self {
        Self(fs_info.addr())
    }
}

/// A reference to a mounted filesystem.
///
/// # Invariants
///
/// `fs_info` points to the `struct btrfs_fs_info` of a filesystem that stays mounted for `'a`.
#[derive(Clone, Copy)]
pub(crate) struct FsInfo<'a> {
    fs_info: *mut bindings::btrfs_fs_info,
    _mounted: PhantomData<&'a bindings::btrfs_fs_info>,
    _not_send: NotThreadSafe,
}

impl FsInfo<'_> {
    /// Wraps a filesystem.
    ///
    /// # Safety
    ///
    /// It must stay mounted for the lifetime that the caller chooses.
    pub(super) unsafe fn from_raw(fs_info: *mut bindings::btrfs_fs_info) -> Self {
        // INVARIANT: By the contract of this function.
        Self {
            fs_info,
            _mounted: PhantomData,
            _not_send: NotThreadSafe,
        }
    }

    /// Returns the raw pointer, for the modules around.
    pub(in crate::safe) fn as_raw(self) -> *mut bindings::btrfs_fs_info {
        self.fs_info
    }

    /// Returns what tells it from others for as long as it is mounted.
    pub(crate) fn id(self) -> FsId {
        FsId::of(self.fs_info)
    }

    /// Returns the size of a block in bytes, a power of two; what btrfs calls sectorsize.
    pub(crate) fn block_size(self) -> u32 {
        // SAFETY: By the type invariants. The field does not change while mounted.
        unsafe { (*self.fs_info).sectorsize }
    }

    /// Returns the algorithm of data checksums, `None` for one that is not known here.
    pub(crate) fn checksum_algorithm(self) -> Option<Algorithm> {
        // SAFETY: By the type invariants. The fields do not change while mounted.
        let (csum_type, csum_size) =
            unsafe { ((*self.fs_info).csum_type, (*self.fs_info).csum_size) };
        // CAST: Widening.
        Algorithm::from_csum_type(csum_type).filter(|alg| alg.digest_size() == csum_size as usize)
    }

    /// Returns whether the filesystem uses a feature that changes how logical addresses are
    /// translated: the raid stripe tree or the remap tree.
    pub(crate) fn has_indirect_mapping(self) -> bool {
        // SAFETY: By the type invariants.
        let flags = unsafe { bindings::bdio_incompat_flags(self.fs_info) };
        flags & (bindings::BTRFS_INCOMPAT_RST | bindings::BTRFS_INCOMPAT_REMAP) != 0
    }

    /// Returns whether a device is being replaced, as far as is known without a lock.
    pub(crate) fn is_replacing(self) -> bool {
        // SAFETY: By the type invariants. The state may change meanwhile, hence volatile.
        let state =
            unsafe { (&raw const (*self.fs_info).dev_replace.replace_state).read_volatile() };
        state == u64::from(bindings::BTRFS_IOCTL_DEV_REPLACE_STATE_STARTED)
            || state == u64::from(bindings::BTRFS_IOCTL_DEV_REPLACE_STATE_SUSPENDED)
    }

    /// Returns whether the copy to read is chosen by the pid of the reader: the one policy there is,
    /// unless the kernel has experimental features.
    pub(crate) fn reads_by_pid(self) -> bool {
        // SAFETY: By the type invariants. The policy may be changed meanwhile, hence volatile.
        let policy = unsafe {
            let devices = (*self.fs_info).fs_devices;
            (&raw const (*devices).read_policy).read_volatile()
        };
        policy == bindings::btrfs_read_policy_BTRFS_READ_POLICY_PID
    }

    /// Returns whether it is mounted without data checksums.
    pub(super) fn lacks_checksums(self) -> bool {
        // SAFETY: By the type invariants.
        unsafe { bindings::bdio_no_data_csums(self.fs_info) }
    }

    /// Returns how many data checksums a leaf of the checksum tree has room for.
    pub(super) fn checksums_per_leaf(self) -> usize {
        // SAFETY: By the type invariants. The field does not change while mounted.
        let count = unsafe { (*self.fs_info).csums_per_leaf };
        // CAST: Widening.
        count as usize
    }

    /// Returns the epoch: the number of the latest transaction there is.
    ///
    /// Disk space that is freed while an extent that a file has there is known is freed by that
    /// transaction or a later one; what makes a file refer to it again is part of one that is later
    /// still.
    pub(crate) fn epoch(self) -> u64 {
        // SAFETY: By the type invariants.
        unsafe { bindings::bdio_generation(self.fs_info) }
    }
}
