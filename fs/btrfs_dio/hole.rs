// SPDX-License-Identifier: GPL-2.0

//! Holes, and space that has been allocated but not written: both read as zeros.

use crate::safe::vecs::{
    Cursor,
    Vecs, //
};

/// Sets `len` bytes from `cursor` on to 0. Any task context.
pub(crate) fn fill(memory: Vecs<'_>, cursor: &mut Cursor, len: usize) {
    memory.zero(cursor, len);
}
