// SPDX-License-Identifier: GPL-2.0

//! Telling of a bad copy, and writing a good one over it.
//!
//! C headers: [`fs/btrfs/bio.h`](srctree/fs/btrfs/bio.h),
//! [`fs/btrfs/messages.h`](srctree/fs/btrfs/messages.h)

use super::{
    extent_lock::ExtentLock,
    fs::FsInfo,
    inode::Inode, //
};
use crate::{
    bindings,
    safe::{
        hash::Digest,
        private::PrivateBuffer, //
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

/// Leave to write to the devices of a filesystem, which is neither read-only nor frozen for as long
/// as this lives, and was neither broken nor shut down when it was taken.
///
/// To be held for a short time only: whoever freezes, remounts or unmounts it waits.
///
/// # Invariants
///
/// `bdio_write_begin()` has succeeded for `fs`, in this task, and `bdio_write_end()` is still due.
pub(crate) struct Writable<'a> {
    fs: FsInfo<'a>,
}

impl<'a> Writable<'a> {
    /// Takes leave, if it is given at once. Task context; does not sleep.
    pub(crate) fn take(fs: FsInfo<'a>) -> Option<Self> {
        // SAFETY: The filesystem is mounted.
        if !unsafe { bindings::bdio_write_begin(fs.as_raw()) } {
            return None;
        }
        // INVARIANT: Called just now, with success.
        Some(Self { fs })
    }
}

impl Drop for Writable<'_> {
    fn drop(&mut self) {
        // SAFETY: By the type invariants. `FsInfo` does not leave its task.
        unsafe { bindings::bdio_write_end(self.fs.as_raw()) }
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
    /// Writes the block to the copy of number `mirror`, which counts from 1, and waits for that.
    ///
    /// The caller has seen that it is the block of the locked range that it is said to be. Errors
    /// are those of the device, which are counted, or `EINVAL`. Task context, sleeps; no hold on
    /// devices held.
    pub(crate) fn write(
        &self,
        lock: &ExtentLock<'_>,
        writable: &Writable<'_>,
        mirror: u32,
    ) -> Result {
        // CAST: Widening.
        let block = writable.fs.block_size() as usize;
        let step = block.min(PAGE_SIZE);
        let whole = |value: u64| value.checked_rem(block as u64) == Some(0);
        let same = core::ptr::eq(lock.inode().fs().as_raw(), writable.fs.as_raw());
        if !same || self.len != block || !whole(self.offset) || !whole(self.logical) {
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
        // SAFETY: The filesystem is mounted; there is an address for each step of the block, of
        // memory within a page that is there until the function returns. It waits for what it
        // submits. `mirror` is not 0, and what is asked for is a block, at a multiple of its size.
        to_result(unsafe {
            bindings::btrfs_repair_io_failure(
                writable.fs.as_raw(),
                lock.inode().number(),
                self.offset,
                // CAST: The size of a block.
                self.len as u32,
                self.logical,
                addresses.as_ptr(),
                // CAST: No more than that.
                step as u32,
                mirror,
            )
        })
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
