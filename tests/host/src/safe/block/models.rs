// SPDX-License-Identifier: GPL-2.0

//! Bios that end at the same time.

mod account;
mod countdown;
