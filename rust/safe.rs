// SPDX-License-Identifier: GPL-2.0

//! The safe abstractions that the engine is written against.
//!
//! All `unsafe` code of the module lives below this file, each piece with its proof. A type here
//! either owns what it names or borrows it for a lifetime; what may be done only under a lock is a
//! method of that lock's guard, or takes the guard as an argument.

pub(crate) mod bell;
pub(crate) mod block;
pub(crate) mod btrfs;
pub(crate) mod clock;
pub(crate) mod comparison;
pub(crate) mod counters;
pub(crate) mod debugfs;
pub(crate) mod decode;
pub(crate) mod drain;
pub(crate) mod hash;
pub(crate) mod layout;
pub(crate) mod memalloc;
pub(crate) mod owner;
pub(crate) mod parallel;
pub(crate) mod params;
pub(crate) mod patience;
pub(crate) mod per_cpu;
pub(crate) mod private;
pub(crate) mod quiescence;
pub(crate) mod read;
pub(crate) mod shrinker;
pub(crate) mod task;
pub(crate) mod trace;
pub(crate) mod user_pages;
pub(crate) mod vecs;
pub(crate) mod workqueue;
