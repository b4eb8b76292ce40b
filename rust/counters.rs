// SPDX-License-Identifier: GPL-2.0

//! Event counters of the module, one set per CPU.
//!
//! Totals since the module was loaded. Any context.

use crate::bindings;

/// Number of counters there are.
pub(crate) const COUNT: u32 = bindings::BDIO_COUNTERS;

/// Adds `value` to counter `nr`; a counter that does not exist is ignored.
#[inline]
pub(crate) fn add(nr: u32, value: u64) {
    if nr < COUNT {
        // SAFETY: `nr` is within the array, the only precondition.
        unsafe { bindings::bdio_counter_add(nr, value) }
    }
}

/// Returns the sum of counter `nr` over all CPUs, 0 for a counter that does not exist.
///
/// Not a snapshot: counters that move meanwhile may or may not be seen.
pub(crate) fn sum(nr: u32) -> u64 {
    if nr >= COUNT {
        return 0;
    }
    // SAFETY: `nr` is within the array, the only precondition.
    unsafe { bindings::bdio_counter_sum(nr) }
}
