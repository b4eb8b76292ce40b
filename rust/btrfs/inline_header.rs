// SPDX-License-Identifier: GPL-2.0

//! What comes before inline data in a file extent item. `tests/host/` reads it as well.
//!
//! C header: [`include/uapi/linux/btrfs_tree.h`](srctree/include/uapi/linux/btrfs_tree.h)

use crate::{
    bindings,
    safe::decode::Compression, //
};
use core::mem::{
    offset_of,
    size_of, //
};
use kernel::prelude::*;

/// As it is on disk.
#[repr(C, packed)]
struct Raw {
    generation: u64,
    ram_bytes: u64,
    compression: u8,
    encryption: u8,
    other_encoding: u16,
    kind: u8,
}

/// Its size in bytes.
pub(super) const SIZE: usize = size_of::<Raw>();

const _: () = assert!(SIZE == bindings::BTRFS_INLINE_DATA_START as usize);

/// What it says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::safe) struct Header {
    /// How the data is compressed, if it is.
    pub(in crate::safe) how: Option<Compression>,
    /// How many bytes it decompresses to, or has if it is not compressed.
    pub(in crate::safe) ram_bytes: u64,
}

impl Header {
    /// Reads one. `None` if the extent is not inline; `EOPNOTSUPP` if it is encoded in a way not known
    /// here.
    pub(in crate::safe) fn parse(raw: &[u8; SIZE]) -> Result<Option<Self>> {
        let byte = |at: usize| raw.get(at).copied().ok_or(EUCLEAN);
        if u32::from(byte(offset_of!(Raw, kind))?) != bindings::BTRFS_FILE_EXTENT_INLINE {
            return Ok(None);
        }
        if byte(offset_of!(Raw, encryption))? != 0 {
            return Err(EOPNOTSUPP);
        }
        let how = match byte(offset_of!(Raw, compression))? {
            0 => None,
            how => Some(Compression::from_type(how).ok_or(EOPNOTSUPP)?),
        };
        let ram_bytes = raw
            .get(offset_of!(Raw, ram_bytes)..)
            .and_then(|rest| rest.first_chunk())
            .map(|bytes| u64::from_le_bytes(*bytes))
            .ok_or(EUCLEAN)?;
        Ok(Some(Self { how, ram_bytes }))
    }

    /// Returns how much there is to copy out of an item that has `stored` bytes of data, and how many
    /// bytes of the first `max` of the file it gives. In bytes.
    ///
    /// The rest of the block is zeros: `read_inline_extent()`, fs/btrfs/inode.c.
    pub(in crate::safe) fn extent(&self, stored: usize, max: usize) -> (usize, usize) {
        let ram_bytes = usize::try_from(self.ram_bytes).unwrap_or(usize::MAX);
        let ram_bytes = ram_bytes.min(max);
        let wanted = match self.how {
            None => stored.min(ram_bytes),
            Some(_) => stored,
        };
        (wanted, ram_bytes)
    }
}
