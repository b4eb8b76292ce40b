// SPDX-License-Identifier: GPL-2.0

//! As [`rust/btrfs.rs`](../../../../rust/btrfs.rs).

#[path = "../../../../rust/btrfs/extent.rs"]
mod extent;
#[path = "../../../../rust/btrfs/inline_header.rs"]
mod inline_header;
#[path = "../../../../rust/btrfs/shape.rs"]
mod shape;

#[cfg(not(loom))]
mod props;

pub(crate) mod chunk {
    pub(crate) use super::shape::{
        Profile,
        Shape, //
    };
}

pub(crate) mod extent_map {
    pub(crate) use super::extent::{
        Encoded,
        Extent,
        Kind,
        Space, //
    };
}

pub(crate) mod fs {
    /// What tells a filesystem from others, as long as it is mounted.
    #[derive(Clone, Copy)]
    pub(crate) struct FsId(pub(crate) usize);
}

pub(crate) mod inode {
    /// What tells an inode from others, as long as it is in memory.
    #[derive(Clone, Copy)]
    pub(crate) struct InodeId(pub(crate) usize);
}
