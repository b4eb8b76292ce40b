// SPDX-License-Identifier: GPL-2.0

//! Telling of a bad copy, and writing a good one over it.
//!
//! C headers: [`fs/btrfs/bio.h`](srctree/fs/btrfs/bio.h),
//! [`fs/btrfs/messages.h`](srctree/fs/btrfs/messages.h)

use super::{
    extent_lock::ExtentLock,
    inode::Inode, //
};
use crate::{
    bindings,
    safe::{
        hash::Digest,
        private::PrivateBuffer,
        workqueue::Queue, //
    },
};
use kernel::{
    error::to_result,
    page::PAGE_SIZE,
    prelude::*, //
};

/// Into how many pages a block can reach.
// CAST: 16.
const MOST_STEPS: usize = bindings::BTRFS_MAX_BLOCKSIZE as usize / PAGE_SIZE;

/// What a worker is told to write.
struct Order {
    fs_info: *mut bindings::btrfs_fs_info,
    ino: u64,
    offset: u64,
    len: u32,
    logical: u64,
    addresses: [kernel::bindings::phys_addr_t; MOST_STEPS],
    step: u32,
    mirror: i32,
}

// SAFETY: Whoever gives the order waits until it has been carried out, and keeps the filesystem.
unsafe impl Send for Order {}

impl Order {
    /// Writes it, if the filesystem is, and stays, neither read-only nor frozen nor broken. `EROFS`
    /// if not: that is not waited for, or who freezes it would be waited for by readers.
    ///
    /// # Safety
    ///
    /// The filesystem must be mounted, and the addresses must be those of so many steps of memory that
    /// are as many bytes as are to be written: a block, at a multiple of its size. There must be a
    /// copy of that number, which is not 0.
    unsafe fn carry_out(&self) -> Result {
        // SAFETY: By the contract; what was begun is ended, in this task. The function waits for what
        // it submits.
        unsafe {
            if !bindings::bdio_write_begin(self.fs_info) {
                return Err(EROFS);
            }
            let written = to_result(bindings::btrfs_repair_io_failure(
                self.fs_info,
                self.ino,
                self.offset,
                self.len,
                self.logical,
                self.addresses.as_ptr(),
                self.step,
                self.mirror,
            ));
            // An error of the filesystem makes it read-only at any time, and then nothing is written.
            let may_write = bindings::bdio_may_write(self.fs_info);
            bindings::bdio_write_end(self.fs_info);
            written.and(may_write.then_some(()).ok_or(EROFS))
        }
    }
}

/// A block of a file that is right. In bytes.
pub(crate) struct GoodBlock<'b> {
    /// Offset in the file that people are told, a multiple of the block size.
    pub(crate) offset: u64,
    /// Logical address.
    pub(crate) logical: u64,
    /// Length: the size of a block.
    pub(crate) len: usize,
    /// Where it is.
    pub(crate) buffer: &'b PrivateBuffer,
    /// Offset in that.
    pub(crate) at: usize,
}

impl GoodBlock<'_> {
    /// Has a worker of `queue` write the block to the copy of number `mirror`, which counts from 1, and
    /// waits for that.
    ///
    /// The caller has seen that it is the block that it is said to be, and that the locked range keeps
    /// its space the file's. Errors are those of the device, which are counted; `EROFS` if nothing may
    /// be written now; or `EINVAL`. Task context, sleeps; not from work of `queue`; no hold on devices
    /// held.
    pub(crate) fn write(&self, lock: &ExtentLock<'_>, queue: &Queue, mirror: u32) -> Result {
        let fs = lock.inode().fs();
        // CAST: Widening.
        let block = fs.block_size() as usize;
        let step = block.min(PAGE_SIZE);
        let whole = |value: u64| value.checked_rem(block as u64) == Some(0);
        if self.len != block || !whole(self.offset) || !whole(self.logical) {
            return Err(EINVAL);
        }
        let mirror = i32::try_from(mirror).map_err(|_| EINVAL)?;
        if mirror < 1 {
            return Err(EINVAL);
        }
        let mut addresses = [0; MOST_STEPS];
        for (nr, at) in (0..self.len).step_by(step).enumerate() {
            let at = self.at.checked_add(at).ok_or(EINVAL)?;
            let physical = self.buffer.physical(at, step).ok_or(EINVAL)?;
            *addresses.get_mut(nr).ok_or(EINVAL)? = physical;
        }
        let order = Order {
            fs_info: fs.as_raw(),
            ino: lock.inode().number(),
            offset: self.offset,
            // CAST: The size of a block.
            len: self.len as u32,
            logical: self.logical,
            addresses,
            // CAST: No more than that.
            step: step as u32,
            mirror,
        };
        // SAFETY: The filesystem is mounted as long as this waits, and so is the memory there, of which
        // there is an address for each step. What is asked for is a block.
        let written = queue.run(move || unsafe { order.carry_out() });
        written.unwrap_or(Err(EIO))
    }
}

/// Tells of a block of a file, at this offset of it, whose copy of number `mirror` does not have the
/// checksum it must have, of which there are as many bytes as `digest` is to be compared in.
///
/// Any context.
pub(crate) fn tell_mismatch(
    inode: Inode<'_>,
    offset: u64,
    digest: &Digest,
    expected: &[u8],
    mirror: u32,
) {
    // CAST: Widening.
    let size = inode.fs().checksum_algorithm().map(|alg| alg.digest_size());
    if size != Some(expected.len()) {
        return;
    }
    // SAFETY: The inode is valid. Both have as many bytes as a checksum of the filesystem.
    unsafe {
        bindings::bdio_warn_csum(
            inode.as_raw(),
            offset,
            digest.as_ptr(),
            expected.as_ptr(),
            // CAST: A small number.
            mirror as i32,
        )
    }
}

/// Tells who listens to errors of the filesystem that the `len` bytes of a file from `offset` on cannot be
/// read. Task context; does not wait for who listens.
pub(crate) fn tell_lost(inode: Inode<'_>, offset: u64, len: u64) {
    // SAFETY: The inode is valid, and referred to: what is told refers to it as well.
    unsafe { bindings::bdio_report_read_error(inode.as_raw(), offset, len, EIO.to_errno()) }
}
