// SPDX-License-Identifier: GPL-2.0

//! What of btrfs_dio needs no kernel, tested without one.
//!
//! The files of the module are compiled as they are, in a crate that has the same shape as theirs as
//! far as they look at it. What they import of the kernel is in the crate `kernel` beside this one,
//! what they import of C in [`bindings`].
//!
//! There are two kinds of tests:
//!
//! * Properties: whatever a broken or hostile image says, nothing panics or overflows, and what is
//!   planned is what a plain model of btrfs plans. Cases are random, but the same for the same `SEED`
//!   in the environment; `CASES` says how many. What has failed once is kept in `regressions/`.
//! * Models, with `--cfg loom`: threads do what contexts of the kernel do at the same time, in all
//!   orders, with all values that loads may return. Each says which mistakes it is known to find.
#![cfg(test)]
// What the module uses is more than what is tested.
#![allow(dead_code, unused_imports)]

mod bindings;
mod safe;

#[path = "../../../fs/btrfs_dio/checksum_cache.rs"]
mod checksum_cache;
#[path = "../../../fs/btrfs_dio/checksum_group.rs"]
mod checksum_group;
#[path = "../../../fs/btrfs_dio/error.rs"]
mod error;
#[path = "../../../fs/btrfs_dio/few.rs"]
mod few;
#[path = "../../../fs/btrfs_dio/mirror.rs"]
mod mirror;
#[path = "../../../fs/btrfs_dio/range.rs"]
mod range;
#[path = "../../../fs/btrfs_dio/segment.rs"]
mod segment;
#[path = "../../../fs/btrfs_dio/stripe.rs"]
mod stripe;
#[path = "../../../fs/btrfs_dio/unstable.rs"]
mod unstable;

#[cfg(loom)]
mod models;
#[cfg(not(loom))]
mod props;
