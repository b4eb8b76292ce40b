// SPDX-License-Identifier: GPL-2.0

//! Devices, and the hold that keeps them from being replaced.
//!
//! C headers: [`fs/btrfs/dev-replace.h`](srctree/fs/btrfs/dev-replace.h),
//! [`fs/btrfs/volumes.h`](srctree/fs/btrfs/volumes.h)

use super::fs::FsInfo;
use crate::bindings;
use core::marker::PhantomData;
use kernel::bindings as kbindings;

/// A hold on the devices of a filesystem: what btrfs calls the bio counter.
///
/// While one is held a device replacement does not finish, so the devices of a chunk stay what they
/// are. The first is taken by [`Self::wait`]; more come from it by [`Self::another`], without
/// waiting, because whoever waited while holding one could wait for himself. For the same reason,
/// with a hold nothing may be waited for that needs the filesystem: no metadata, and no memory but
/// `GFP_NOFS`.
///
/// # Invariants
///
/// One count of the bio counter of `fs` is ours.
#[must_use = "the hold ends when this is dropped"]
pub(crate) struct DeviceHold<'a> {
    fs: FsInfo<'a>,
}

impl<'a> DeviceHold<'a> {
    /// Takes a hold, when no replacement is just finishing. Task context, sleeps; the task must not
    /// have a hold already.
    pub(crate) fn wait(fs: FsInfo<'a>) -> Self {
        // SAFETY: The filesystem is mounted.
        unsafe { bindings::btrfs_bio_counter_inc_blocked(fs.as_raw()) };
        // INVARIANT: Just counted.
        Self { fs }
    }

    /// Takes one more. Any context.
    pub(crate) fn another(&self) -> Self {
        // SAFETY: The filesystem is mounted.
        unsafe { bindings::btrfs_bio_counter_sub(self.fs.as_raw(), -1) };
        // INVARIANT: Just counted.
        Self { fs: self.fs }
    }

    /// Returns the filesystem's raw pointer, for the completion that will end the hold.
    pub(in crate::safe) fn fs_info(&self) -> *mut bindings::btrfs_fs_info {
        self.fs.as_raw()
    }

    /// Returns the filesystem.
    pub(super) fn fs(&self) -> FsInfo<'a> {
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
/// `device` points to a `struct btrfs_device` that exists for `'h`: the time of a hold, and of the
/// lock of an extent on it.
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

    /// Returns whether the two are the same device.
    pub(crate) fn is(self, other: Device<'_>) -> bool {
        core::ptr::eq(self.device, other.device)
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

    /// Opens it for reading, with a hold of its own; `None` if it cannot be read.
    ///
    /// While the extent lock is held the chunk, and so its devices, cannot be removed: a reference
    /// that is taken then keeps the block device, even if it is closed before a bio is made for it.
    ///
    /// Rule: `btrfs_submit_dev_bio()`, fs/btrfs/bio.c.
    pub(crate) fn open<'a>(self, hold: &'h DeviceHold<'a>) -> Option<OpenDevice<'a>> {
        let bdev = self.bdev();
        if bdev.is_null() || self.is_missing() {
            return None;
        }
        // SAFETY: The device is open: the extent lock, which `'h` is part of, keeps it.
        // INVARIANT: A reference, given back on drop.
        unsafe { bindings::bdio_bdev_get(bdev) };
        Some(OpenDevice {
            bdev,
            hold: hold.another(),
        })
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
            let state = (&raw const (*fs_info).dev_replace.replace_state).read_volatile();
            let ongoing = state == u64::from(bindings::BTRFS_IOCTL_DEV_REPLACE_STATE_STARTED)
                || state == u64::from(bindings::BTRFS_IOCTL_DEV_REPLACE_STATE_SUSPENDED);
            ongoing
                && core::ptr::eq(source, self.device)
                && bindings::bdio_replace_avoids_source(fs_info)
        }
    }
}

/// A device that can be read, and the hold that keeps it.
///
/// # Invariants
///
/// `bdev` is a reference of ours to the block device of a device that `hold` keeps from being
/// replaced. It is to be kept until what is submitted to it has ended.
pub(crate) struct OpenDevice<'a> {
    bdev: *mut kbindings::block_device,
    hold: DeviceHold<'a>,
}

impl<'a> OpenDevice<'a> {
    /// Returns the block device, for the safe abstractions.
    pub(in crate::safe) fn as_bdev(&self) -> *mut kbindings::block_device {
        self.bdev
    }

    /// Returns the hold, for a bio to the device.
    pub(in crate::safe) fn hold(&self) -> &DeviceHold<'a> {
        &self.hold
    }
}

impl Drop for OpenDevice<'_> {
    fn drop(&mut self) {
        // SAFETY: By the type invariants a reference of ours. Dropped in task context, as it is not
        // `Send`.
        unsafe { bindings::bdio_bdev_put(self.bdev) }
    }
}
