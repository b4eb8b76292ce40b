// SPDX-License-Identifier: GPL-2.0

//! Block I/O: pools of bios, bios under construction, and sets of bios in flight.

pub(crate) mod account;
pub(crate) mod batch;
pub(crate) mod bio;
mod countdown;
pub(crate) mod flight;
pub(crate) mod plug;
pub(crate) mod pool;
pub(crate) mod rebuild;
