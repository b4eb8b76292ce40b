// SPDX-License-Identifier: GPL-2.0

//! The time, as coarse as timer interrupts are.
//!
//! C header: [`include/linux/jiffies.h`](srctree/include/linux/jiffies.h)

use crate::bindings;

/// Returns the number of the current jiffy, which wraps. Any context.
pub(in crate::safe) fn jiffies() -> u64 {
    // SAFETY: The function only reads a variable.
    // CAST: Widening.
    unsafe { bindings::bdio_jiffies() as u64 }
}
