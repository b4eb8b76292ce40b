// SPDX-License-Identifier: GPL-2.0

//! btrfs as the engine sees it.
//!
//! Lock order, outermost first: `i_rwsem` shared ([`inode::SharedInode`]), the extent bits
//! ([`extent_lock::ExtentLock`]), the hold on devices ([`device::DeviceHold`]). Each is a guard, and
//! what needs one takes it as an argument.

pub(crate) mod chunk;
pub(crate) mod csum_tree;
pub(crate) mod device;
mod extent;
pub(crate) mod extent_lock;
pub(crate) mod extent_map;
pub(crate) mod fs;
pub(crate) mod glance;
pub(crate) mod hook;
mod inline_header;
pub(crate) mod inline_item;
pub(crate) mod inode;
mod path;
pub(crate) mod repair;
mod shape;
