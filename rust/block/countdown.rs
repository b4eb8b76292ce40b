// SPDX-License-Identifier: GPL-2.0

//! When the last of a set of bios has ended, and the first error of them. Any context.
//!
//! Who has a count may touch what the countdown is of: the submitter, who has the one that it begins
//! with, and each bio. Who has counted down may not, unless it was the last; then it is theirs alone,
//! and all that the others have done before is seen.
//!
//! Without bindings: `tests/host/` goes through all orders in which this can happen.

use kernel::sync::atomic::{
    ordering::{
        Full,
        Relaxed, //
    },
    Atomic, //
};

/// A countdown.
///
/// # Invariants
///
/// `pending` is the number of counts that somebody has.
pub(in crate::safe) struct Countdown {
    pending: Atomic<i32>,
    /// The first error as an errno, 0 if there was none.
    error: Atomic<i32>,
}

impl Countdown {
    /// Begins with one count, which is the submitter's.
    #[inline(always)]
    pub(in crate::safe) fn new() -> Self {
        Self {
            pending: Atomic::new(1),
            error: Atomic::new(0),
        }
    }

    /// Gives a count to a bio, before that can end. To be called by who has one.
    #[inline(always)]
    pub(in crate::safe) fn add(&self) {
        self.pending.add(1, Relaxed);
    }

    /// Notes an error, as an errno, if it is the first. To be called by who has a count.
    pub(in crate::safe) fn fail(&self, error: i32) {
        let _ = self.error.cmpxchg(0, error, Relaxed);
    }

    /// Ends a bio, with an errno, or 0: has `give_back` give back what it has, and its count with it.
    /// Returns whether that was the last; if not, the countdown may be gone.
    #[inline(always)]
    pub(in crate::safe) fn end(&self, error: i32, give_back: impl FnOnce()) -> bool {
        if error != 0 {
            self.fail(error);
        }
        give_back();
        self.is_last()
    }

    /// Gives back a count, and returns whether that was the last; if not, the countdown may be gone.
    #[inline(always)]
    pub(in crate::safe) fn is_last(&self) -> bool {
        // INVARIANT: One less.
        // ORDERING: Full, so that all that others did before they counted down is seen through the
        // last of them.
        self.pending.fetch_sub(1, Full) == 1
    }

    /// Returns the first error as an errno, 0 if there was none. To be called by who was the last.
    pub(in crate::safe) fn error(&self) -> i32 {
        self.error.load(Relaxed)
    }
}
