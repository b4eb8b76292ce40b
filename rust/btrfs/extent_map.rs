// SPDX-License-Identifier: GPL-2.0

//! Extent maps: where the bytes of a file lie.
//!
//! C header: [`fs/btrfs/extent_map.h`](srctree/fs/btrfs/extent_map.h)

use super::extent_lock::ExtentLock;
use crate::{
    bindings,
    safe::{
        decode::Compression,
        patience::Patience, //
    },
};
use core::ptr::NonNull;
use kernel::{
    error::from_err_ptr,
    prelude::*, //
};

pub(crate) use super::extent::{
    Encoded,
    Extent,
    Kind,
    Space, //
};

const ZLIB: u32 = 1 << bindings::__EXTENT_FLAG_COMPRESS_ZLIB_BIT;
const LZO: u32 = 1 << bindings::__EXTENT_FLAG_COMPRESS_LZO_BIT;
const ZSTD: u32 = 1 << bindings::__EXTENT_FLAG_COMPRESS_ZSTD_BIT;
const PREALLOC: u32 = 1 << bindings::__EXTENT_FLAG_PREALLOC_BIT;

/// The addresses on disk that are none, [`fs/btrfs/extent_map.h`](srctree/fs/btrfs/extent_map.h).
/// Not all versions of bindgen can compute them; [`layout`](crate::safe::layout) compares.
pub(in crate::safe) const EXTENT_MAP_HOLE: u64 = u64::MAX - 2;
pub(in crate::safe) const EXTENT_MAP_INLINE: u64 = u64::MAX - 1;

/// A reference to an extent map.
///
/// # Invariants
///
/// `em` is a reference of ours. While it is held its range and its place on disk do not change:
/// merging needs the last reference, and everything else replaces the map. Its flags may, by an
/// fsync that logs it.
pub(crate) struct ExtentMap {
    em: NonNull<bindings::extent_map>,
}

// SAFETY: A reference may be used, and given back, by any task.
unsafe impl Send for ExtentMap {}
// SAFETY: By reference its fields are only read.
unsafe impl Sync for ExtentMap {}

impl ExtentMap {
    /// Finds the extent at `start`, reading metadata if need be, or failing with `EAGAIN`, as
    /// `patience` says. `len` is how far the caller will look.
    ///
    /// The range must be locked, or the answer is old before it is given: `EINVAL` if it is not.
    /// `EIO`, `EUCLEAN` for metadata that cannot be read or makes no sense, `ENOMEM`.
    pub(crate) fn get(
        lock: &ExtentLock<'_>,
        start: u64,
        len: u64,
        patience: Patience,
    ) -> Result<Self> {
        if !lock.covers(start, len) {
            return Err(EINVAL);
        }
        let inode = lock.inode().as_raw();
        let em = match patience {
            // SAFETY: The inode is valid. The function returns a reference or an error.
            Patience::Wait => from_err_ptr(unsafe {
                bindings::btrfs_get_extent(inode, core::ptr::null_mut(), start, len)
            })?,
            // SAFETY: The inode is valid. The function returns a reference or null.
            Patience::Nowait => unsafe { bindings::bdio_cached_extent(inode, start, len) },
        };
        // INVARIANT: A reference, ours.
        let map = Self {
            em: NonNull::new(em).ok_or(EAGAIN)?,
        };
        // Without waiting, the next extent is found as well, if the one at `start` is not known.
        if patience == Patience::Nowait && map.extent().start > start {
            return Err(EAGAIN);
        }
        Ok(map)
    }

    /// Wraps a reference.
    ///
    /// # Safety
    ///
    /// It must be one, and is the new owner's.
    pub(super) unsafe fn from_raw(em: NonNull<bindings::extent_map>) -> Self {
        // INVARIANT: By the contract.
        Self { em }
    }

    /// Returns what the map says.
    pub(crate) fn extent(&self) -> Extent {
        let em = self.em.as_ptr();
        // SAFETY: By the type invariants the map is valid. `flags` is the one field read here that
        // may change meanwhile, hence volatile; the bits looked at do not.
        let (flags, disk_bytenr, offset, start, len, generation) = unsafe {
            (
                (&raw const (*em).flags).read_volatile(),
                (*em).disk_bytenr,
                (*em).offset,
                (*em).start,
                (*em).len,
                (*em).generation,
            )
        };
        let how = match flags & (ZLIB | LZO | ZSTD) {
            0 => Some(None),
            ZLIB => Some(Some(Compression::Zlib)),
            LZO => Some(Some(Compression::Lzo)),
            ZSTD => Some(Some(Compression::Zstd)),
            _ => None,
        };
        let kind = match (disk_bytenr, how) {
            (_, None) => Kind::Unknown,
            (EXTENT_MAP_HOLE, _) => Kind::Hole,
            (EXTENT_MAP_INLINE, _) => Kind::Inline,
            // SAFETY: As above. Compressed extents are not merged, so the fields describe one.
            (_, Some(Some(how))) => unsafe {
                Kind::Compressed(Encoded {
                    logical: disk_bytenr,
                    disk_len: (*em).disk_num_bytes,
                    ram_bytes: (*em).ram_bytes,
                    offset,
                    how,
                })
            },
            _ if flags & PREALLOC != 0 => Kind::Prealloc,
            _ => Kind::Regular {
                // Saturating: an address that is no address is refused when it is translated.
                logical: disk_bytenr.saturating_add(offset),
            },
        };
        Extent {
            start,
            len,
            kind,
            generation,
        }
    }

    /// Returns whether the map is still the one that the inode uses.
    ///
    /// If it is, the disk space it names has been the file's all the time: whoever drops a
    /// reference to disk space takes the map out first. If it is not, nothing is known. Any
    /// context.
    pub(crate) fn is_current(&self) -> bool {
        // SAFETY: By the type invariants the map is valid. A node that is in no tree has itself as
        // its parent (`RB_EMPTY_NODE()`); the word may change meanwhile, hence volatile.
        unsafe {
            let node = &raw const (*self.em.as_ptr()).rb_node;
            // CAST: As `RB_EMPTY_NODE()` does it.
            (&raw const (*node).__rb_parent_color).read_volatile() != node as usize
        }
    }
}

impl Drop for ExtentMap {
    fn drop(&mut self) {
        // SAFETY: By the type invariants a reference of ours.
        unsafe { bindings::btrfs_free_extent_map(self.em.as_ptr()) }
    }
}
