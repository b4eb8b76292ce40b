// SPDX-License-Identifier: GPL-2.0

//! Stands in for the kernel's `kernel` crate.
//!
//! It has what the files of the module import that are tested on the host, under the same names and
//! with the same meaning. Atomics are those of `std`, or, with `--cfg loom`, such that
//! [`loom`](https://docs.rs/loom) tries all values they may return.

pub mod alloc;
pub mod bindings;
pub mod cpu;
pub mod error;
pub mod page;
pub mod sync;

/// What the kernel's prelude has.
pub mod prelude {
    pub use crate::{
        alloc::{flags::*, KVVec},
        error::{code::*, Error, Result},
    };
}
