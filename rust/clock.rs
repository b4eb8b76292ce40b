// SPDX-License-Identifier: GPL-2.0

//! The time.
//!
//! C headers: [`include/linux/jiffies.h`](srctree/include/linux/jiffies.h),
//! [`include/linux/timekeeping.h`](srctree/include/linux/timekeeping.h)

use crate::bindings;
use kernel::bindings as kbindings;

/// Returns the number of the current jiffy, which wraps. Any context.
pub(in crate::safe) fn jiffies() -> u64 {
    // SAFETY: The function only reads a variable.
    // CAST: Widening.
    unsafe { bindings::bdio_jiffies() as u64 }
}

/// Returns the milliseconds since the machine was booted, less the time it was suspended. Any context
/// but NMI.
pub(crate) fn milliseconds() -> u64 {
    const NSEC_PER_MSEC: u64 = 1_000_000;
    // SAFETY: It may be called in any context but NMI.
    let nanoseconds = unsafe { kbindings::ktime_get() };
    u64::try_from(nanoseconds).unwrap_or(0) / NSEC_PER_MSEC
}
