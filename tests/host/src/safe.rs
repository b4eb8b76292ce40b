// SPDX-License-Identifier: GPL-2.0

//! As [`rust/safe.rs`](../../../rust/safe.rs), as far as files that are tested look at it.

pub(crate) mod block;
pub(crate) mod btrfs;
pub(crate) mod clock;
pub(crate) mod decode;
pub(crate) mod per_cpu;

#[path = "../../../rust/comparison.rs"]
pub(crate) mod comparison;
#[path = "../../../rust/hash.rs"]
pub(crate) mod hash;
#[path = "../../../rust/vecs.rs"]
pub(crate) mod vecs;

#[cfg(not(loom))]
pub(crate) mod memory;
