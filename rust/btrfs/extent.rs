// SPDX-License-Identifier: GPL-2.0

//! What an extent map says. Without bindings: `tests/host/` reads it as well.

use crate::safe::decode::Compression;

/// What the bytes of an extent are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Nothing: zeros.
    Hole,
    /// Disk space that has not been written: zeros.
    Prealloc,
    /// In the metadata, compressed or not.
    Inline,
    /// On disk as they are, from this logical address on.
    Regular {
        /// Logical address of the first byte of the extent map, in bytes.
        logical: u64,
    },
    /// On disk, compressed.
    Compressed(Encoded),
    /// Something that is not known here.
    Unknown,
}

/// A compressed extent, or the part of one that a file refers to. In bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Encoded {
    /// Logical address of the compressed bytes.
    pub(crate) logical: u64,
    /// How many there are.
    pub(crate) disk_len: u64,
    /// How many they decompress to.
    pub(crate) ram_bytes: u64,
    /// Offset of the part among these.
    pub(crate) offset: u64,
    /// How they are compressed.
    pub(crate) how: Compression,
}

/// A stretch of a file that is of one kind. Offsets and lengths in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Extent {
    /// Offset in the file.
    pub(crate) start: u64,
    /// Length.
    pub(crate) len: u64,
    /// What it is.
    pub(crate) kind: Kind,
    /// Transaction that it is of; if it was merged of several, the latest.
    pub(crate) generation: u64,
}

/// Disk space that holds an extent, or the part of one that is known: all of it is the file's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Space {
    /// Logical address of the first byte.
    pub(crate) logical: u64,
    /// Length in bytes.
    pub(crate) len: u64,
    /// Transaction that wrote it; if it is of several, the latest.
    pub(crate) generation: u64,
}

impl Extent {
    /// Returns where it is on disk, if it is.
    pub(crate) fn space(&self) -> Option<Space> {
        let (logical, len) = match self.kind {
            Kind::Regular { logical } => (logical, self.len),
            Kind::Compressed(encoded) => (encoded.logical, encoded.disk_len),
            _ => return None,
        };
        Some(Space {
            logical,
            len,
            generation: self.generation,
        })
    }
}
