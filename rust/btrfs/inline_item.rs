// SPDX-License-Identifier: GPL-2.0

//! Inline extents: file data within the metadata.
//!
//! C headers: [`fs/btrfs/file-item.h`](srctree/fs/btrfs/file-item.h),
//! [`include/uapi/linux/btrfs_tree.h`](srctree/include/uapi/linux/btrfs_tree.h)

use super::{
    extent_lock::ExtentLock,
    inline_header::{
        self,
        Header, //
    },
    path::Path, //
};
use crate::{
    bindings,
    safe::{
        decode::Compression,
        patience::Patience, //
    },
};
use kernel::prelude::*;

/// An inline extent, copied out of the leaf.
pub(crate) struct InlineData {
    data: KVec<u8>,
    how: Option<Compression>,
    ram_bytes: usize,
}

impl InlineData {
    /// Copies the inline extent at offset 0 of the locked file.
    ///
    /// At most `max` bytes of what it decompresses to: what lies beyond is not asked for. `None` if
    /// there is none any more. Sleeps, or fails with `EAGAIN`, as `patience` says. `EIO`, `EUCLEAN`,
    /// `ENOMEM` as for any metadata; `EOPNOTSUPP` if it is encoded in a way not known here.
    pub(crate) fn read(
        lock: &ExtentLock<'_>,
        max: usize,
        patience: Patience,
    ) -> Result<Option<Self>> {
        if !lock.covers(0, 1) {
            return Err(EINVAL);
        }
        let inode = lock.inode();
        let mut path = Path::new();
        if patience == Patience::Nowait {
            path.nowait();
        }
        // SAFETY: Inode and path are valid. Without a transaction the function only searches.
        let ret = unsafe {
            bindings::btrfs_lookup_file_extent(
                core::ptr::null_mut(),
                (*inode.as_raw()).root,
                &mut path.0,
                inode.number(),
                0,
                0,
            )
        };
        match ret {
            0 => {}
            1.. => return Ok(None),
            errno => return Err(Error::from_errno(errno)),
        }
        let [leaf, ..] = path.0.nodes;
        let [slot, ..] = path.0.slots;
        // SAFETY: The search has found an item, so `leaf` and `slot` are valid until the path is
        // released. The item is an address within the leaf, not a pointer to memory.
        let (item, item_size) = unsafe {
            (
                bindings::bdio_file_extent(leaf, slot) as usize,
                bindings::bdio_item_size(leaf, slot),
            )
        };
        // CAST: Widening.
        let item_size = item_size as usize;
        let stored = item_size.checked_sub(inline_header::SIZE).ok_or(EUCLEAN)?;
        let mut header = [0u8; inline_header::SIZE];
        // SAFETY: The item is at least this long, and `header` exactly.
        unsafe {
            bindings::read_extent_buffer(leaf, header.as_mut_ptr().cast(), item, header.len())
        };
        let Some(header) = Header::parse(&header)? else {
            return Ok(None);
        };
        let (wanted, ram_bytes) = header.extent(stored, max);
        let mut data = KVec::from_elem(0u8, wanted, patience.gfp())?;
        // SAFETY: `wanted` bytes of inline data follow the header, by the size of the item, and
        // `data` has room for them.
        unsafe {
            bindings::read_extent_buffer(
                leaf,
                data.as_mut_ptr().cast(),
                item.saturating_add(inline_header::SIZE),
                wanted,
            )
        };
        Ok(Some(Self {
            data,
            how: header.how,
            ram_bytes,
        }))
    }

    /// Returns the bytes as they are stored. Not compressed, those of the block that are missing
    /// are zeros.
    pub(crate) fn as_slice(&self) -> &[u8] {
        &self.data
    }

    /// Returns how they are compressed, if they are, and to how many bytes of the block they
    /// decompress.
    pub(crate) fn encoding(&self) -> Option<(Compression, usize)> {
        self.how.map(|how| (how, self.ram_bytes))
    }
}
