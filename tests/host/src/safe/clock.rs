// SPDX-License-Identifier: GPL-2.0

//! As [`rust/clock.rs`](../../../../rust/clock.rs); time stands still unless it is set.

use core::sync::atomic::{AtomicU64, Ordering::Relaxed};

static NOW: AtomicU64 = AtomicU64::new(1);

pub(in crate::safe) fn jiffies() -> u64 {
    NOW.load(Relaxed)
}

/// Sets the time, for all threads.
pub(in crate::safe) fn set(jiffies: u64) {
    NOW.store(jiffies, Relaxed);
}
