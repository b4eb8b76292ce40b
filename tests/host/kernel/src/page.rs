// SPDX-License-Identifier: GPL-2.0

//! Pages.

/// Size of a page in bytes.
pub const PAGE_SIZE: usize = 4096;
