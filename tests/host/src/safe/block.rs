// SPDX-License-Identifier: GPL-2.0

//! As [`rust/block.rs`](../../../../rust/block.rs).

#[path = "../../../../rust/block/account.rs"]
pub(crate) mod account;
#[path = "../../../../rust/block/countdown.rs"]
mod countdown;

// Here, as they use what is meant for these files only.
#[cfg(loom)]
mod models;
