// SPDX-License-Identifier: GPL-2.0

//! Generated bindings of btrfs and of our C helpers.
//!
//! This module may not be used outside [`crate::safe`]: whatever the engine needs is abstracted
//! there. Types of the core kernel are those of the kernel crate, so that the two unify.

#![allow(
    clippy::all,
    clippy::cast_lossless,
    clippy::ptr_as_ptr,
    clippy::ref_as_ptr,
    clippy::undocumented_unsafe_blocks,
    dead_code,
    missing_docs,
    non_camel_case_types,
    non_snake_case,
    non_upper_case_globals,
    unreachable_pub,
    unsafe_op_in_unsafe_fn,
    improper_ctypes,
    unnecessary_transmutes
)]

use kernel::{
    bindings::*,
    ffi, //
};
use pin_init::MaybeZeroable;

/// Stand-ins for the packed types that bindgen is told to leave out: only pointed to.
#[repr(C)]
pub struct btrfs_balance_control {
    _opaque: [u8; 0],
}

include!(concat!(
    env!("BTRFS_DIO_OBJ"),
    "/rust/bindings/bindings_generated.rs"
));
