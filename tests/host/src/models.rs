// SPDX-License-Identifier: GPL-2.0

//! What contexts do to each other that share more than bios.

mod checksum_cache;
