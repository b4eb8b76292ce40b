// SPDX-License-Identifier: GPL-2.0

//! Devices, and the hold that keeps them from being replaced.
//!
//! C headers: [`fs/btrfs/dev-replace.h`](srctree/fs/btrfs/dev-replace.h),
//! [`fs/btrfs/volumes.h`](srctree/fs/btrfs/volumes.h)

use super::fs::FsInfo;
use crate::{
    bindings,
    safe::{
        block::account::Account,
        patience::Patience, //
    },
};
use core::marker::PhantomData;
use kernel::{
    bindings as kbindings,
    prelude::*, //
};

/// A hold on the devices of a filesystem: what btrfs calls the bio counter.
///
/// While one is held a device replacement does not finish, so the devices of a chunk stay what they
/// are. A set of bios takes it over, and gives it back when the last of them has ended, in whatever
/// context; nobody waits for anything but devices until then. With a hold nothing may be waited for
/// that needs the filesystem: no metadata, no second hold, and no memory but `GFP_NOFS`.
///
/// # Invariants
///
/// One count of the bio counter of `fs` is ours.
#[must_use = "the hold ends when this is dropped"]
pub(crate) struct DeviceHold<'a> {
    fs: FsInfo<'a>,
}

impl<'a> DeviceHold<'a> {
    /// Takes a hold, when no replacement is just finishing. Task context; sleeps, or fails with
    /// `EAGAIN`, as `patience` says. The task must not have a hold already.
    pub(crate) fn take(fs: FsInfo<'a>, patience: Patience) -> Result<Self> {
        // SAFETY: The filesystem is mounted.
        unsafe {
            match patience {
                Patience::Wait => bindings::btrfs_bio_counter_inc_blocked(fs.as_raw()),
                Patience::Nowait if bindings::bdio_bio_counter_try(fs.as_raw()) => {}
                Patience::Nowait => return Err(EAGAIN),
            }
        }
        // INVARIANT: Just counted.
        Ok(Self { fs })
    }

    /// Returns the filesystem's raw pointer, with the count: who gets it has to give it back.
    pub(in crate::safe) fn into_raw(self) -> *mut bindings::btrfs_fs_info {
        core::mem::ManuallyDrop::new(self).fs.as_raw()
    }

    /// Returns the filesystem.
    pub(crate) fn fs(&self) -> FsInfo<'a> {
        self.fs
    }
}

impl Drop for DeviceHold<'_> {
    fn drop(&mut self) {
        // SAFETY: By the type invariants the count is ours, and the filesystem is mounted.
        unsafe { bindings::btrfs_bio_counter_sub(self.fs.as_raw(), 1) }
    }
}

/// A device of a filesystem.
///
/// # Invariants
///
/// `device` points to a `struct btrfs_device` that exists, with its block device, for `'h`: the time
/// of a hold, and of a read side of RCU that began before it was found.
#[derive(Clone, Copy)]
pub(crate) struct Device<'h> {
    device: *mut bindings::btrfs_device,
    _held: PhantomData<&'h DeviceHold<'h>>,
}

impl<'h> Device<'h> {
    /// Wraps a device.
    ///
    /// # Safety
    ///
    /// It must exist for `'h`.
    pub(super) unsafe fn from_raw(device: *mut bindings::btrfs_device) -> Self {
        // INVARIANT: By the contract of this function.
        Self {
            device,
            _held: PhantomData,
        }
    }

    /// Returns what tells it from others, for as long as it exists.
    pub(crate) fn id(self) -> usize {
        self.device.addr()
    }

    /// Returns whether there is a block device behind it.
    ///
    /// Rule: `find_live_mirror()`, fs/btrfs/volumes.c; but a device that was unplugged, which it
    /// does not look for, and which fails, is none either.
    pub(crate) fn is_present(self) -> bool {
        !self.bdev().is_null() && !self.is_missing()
    }

    fn is_missing(self) -> bool {
        // SAFETY: By the type invariants the device exists.
        let state = unsafe { (&raw const (*self.device).dev_state).read_volatile() };
        // CAST: As `test_bit()` does it.
        state & (1 << bindings::BTRFS_DEV_STATE_MISSING) != 0
    }

    /// Counts a read that has failed, and tells of it, as btrfs does. Any context.
    ///
    /// Rule: `btrfs_log_dev_io_error()`, fs/btrfs/bio.c.
    pub(crate) fn count_read_error(self, error: Error) {
        // SAFETY: By the type invariants the device exists, and its name with it.
        unsafe { bindings::bdio_count_read_error(self.device, error.to_errno()) }
    }

    /// Counts a block that is not what was written, and tells of it, as btrfs does. Any context.
    pub(crate) fn count_corruption(self) {
        let kind = bindings::btrfs_dev_stat_values_BTRFS_DEV_STAT_CORRUPTION_ERRS;
        // SAFETY: By the type invariants the device exists.
        // CAST: A small number.
        unsafe { bindings::btrfs_dev_stat_inc_and_print(self.device, kind as i32) }
    }

    /// Returns the account of its block device, if there is one.
    pub(crate) fn account(self) -> Option<Account> {
        let bdev = self.bdev();
        // SAFETY: The block device exists, by the type invariants.
        (!bdev.is_null()).then(|| Account::of(unsafe { bindings::bdio_bdev_number(bdev) }))
    }

    /// Opens it for reading; `None` if it cannot be read.
    ///
    /// A reference that is taken now keeps the block device, even if it is closed before a bio is
    /// made for it.
    ///
    /// Rule: `btrfs_submit_dev_bio()`, fs/btrfs/bio.c.
    pub(crate) fn open(self) -> Option<OpenDevice> {
        let bdev = self.bdev();
        if bdev.is_null() || self.is_missing() {
            return None;
        }
        // SAFETY: The block device exists, by the type invariants.
        // INVARIANT: A reference, given back on drop.
        unsafe { bindings::bdio_bdev_get(bdev) };
        Some(OpenDevice { bdev })
    }

    fn bdev(self) -> *mut kbindings::block_device {
        // SAFETY: By the type invariants the device exists. The field may change meanwhile.
        unsafe { (&raw const (*self.device).bdev).read_volatile() }
    }

    /// Returns whether the device is being replaced, and reads of it are to be avoided.
    pub(crate) fn is_avoided(self, hold: &DeviceHold<'_>) -> bool {
        let fs_info = hold.fs().as_raw();
        // SAFETY: The filesystem is mounted. Its `srcdev` is compared, not followed; the state may
        // change while it is looked at, but the replacement cannot finish, and until it does the
        // device is as good as any: no more than a preference is at stake.
        unsafe {
            let source = (&raw const (*fs_info).dev_replace.srcdev).read_volatile();
            hold.fs().is_replacing()
                && core::ptr::eq(source, self.device)
                && bindings::bdio_replace_avoids_source(fs_info)
        }
    }
}

/// A device that can be read.
///
/// # Invariants
///
/// `bdev` is a reference of ours to a block device. It is to be kept until all has been submitted to
/// it: what is in flight then is the block layer's to wait for, as with the bios of btrfs, for which
/// `btrfs_rm_device()` does not wait either. That the device is the right one to read is what a
/// [`DeviceHold`] is for.
pub(crate) struct OpenDevice {
    bdev: *mut kbindings::block_device,
}

// SAFETY: A reference may be given back by any task.
unsafe impl Send for OpenDevice {}
// SAFETY: By reference it is only read.
unsafe impl Sync for OpenDevice {}

impl OpenDevice {
    /// Returns the block device, for the safe abstractions.
    pub(in crate::safe) fn as_bdev(&self) -> *mut kbindings::block_device {
        self.bdev
    }

    /// Returns which low bits of the address and the length of a piece of memory must be 0.
    pub(crate) fn memory_mask(&self) -> usize {
        // SAFETY: By the type invariants.
        let mask = unsafe { bindings::bdio_bdev_dma_alignment(self.bdev) };
        // CAST: Widening.
        mask as usize
    }
}

impl Drop for OpenDevice {
    fn drop(&mut self) {
        // SAFETY: By the type invariants a reference of ours. In task context: runs of bios are
        // dropped by the task that planned them, or by a worker.
        unsafe { bindings::bdio_bdev_put(self.bdev) }
    }
}
