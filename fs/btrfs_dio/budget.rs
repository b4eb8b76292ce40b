// SPDX-License-Identifier: GPL-2.0

//! How much private memory reads may have in flight, in all.
//!
//! Memory is asked for while a window is planned. Who does not get it lets go of all locks, waits
//! for as much as a window can need, and plans again with that in hand; so nobody waits for memory
//! while holding what others need to give theirs back.

use crate::{
    safe::patience::Patience,
    stats, //
};
use kernel::{
    new_condvar,
    new_spinlock,
    prelude::*,
    sync::{
        Arc,
        CondVar,
        CondVarTimeoutResult,
        SpinLock, //
    },
    time::msecs_to_jiffies, //
};

/// Bytes that a window may have of it; a single extent never needs as much.
pub(crate) const WINDOW: usize = 2 << 20;
/// Bytes that all windows may have.
const TOTAL: usize = 64 << 20;

/// How long to wait for it, in milliseconds.
const PATIENCE: u32 = 5000;

/// The memory there is.
#[pin_data]
pub(crate) struct Budget {
    /// Bytes in use.
    #[pin]
    used: SpinLock<usize>,
    #[pin]
    freed: CondVar,
}

impl Budget {
    /// Makes a budget of which nothing is used. `ENOMEM`.
    pub(crate) fn new() -> Result<Arc<Self>> {
        Arc::pin_init(
            pin_init!(Self {
                used <- new_spinlock!(0),
                freed <- new_condvar!(),
            }),
            GFP_KERNEL,
        )
    }
}

/// A share of a budget, given back when this is dropped. In bytes.
pub(crate) struct Share {
    budget: Arc<Budget>,
    taken: usize,
    spent: usize,
}

impl Share {
    /// Makes an empty share. Any context.
    pub(crate) fn empty(budget: &Arc<Budget>) -> Self {
        Self {
            budget: budget.clone(),
            taken: 0,
            spent: 0,
        }
    }

    /// Takes as much as a window can need, waiting a while for it; or fails, with `EAGAIN` if
    /// `patience` says so, else with `ENOMEM`. Task context; nothing may be held that others need to
    /// give back theirs.
    ///
    /// Not for ever: those who have it may wait for a device that is made of a file which this task
    /// is to read.
    pub(crate) fn window(budget: &Arc<Budget>, patience: Patience) -> Result<Self> {
        let mut share = Self::empty(budget);
        let mut left = msecs_to_jiffies(PATIENCE);
        let mut used = budget.used.lock();
        loop {
            if let Some(sum) = used.checked_add(WINDOW).filter(|sum| *sum <= TOTAL) {
                *used = sum;
                stats::private_memory(sum);
                share.taken = WINDOW;
                break;
            }
            if patience == Patience::Nowait {
                return Err(EAGAIN);
            }
            // Or until the task is told something.
            left = match budget.freed.wait_interruptible_timeout(&mut used, left) {
                CondVarTimeoutResult::Woken { jiffies } if jiffies > 0 => jiffies,
                _ => return Err(ENOMEM),
            };
        }
        drop(used);
        Ok(share)
    }

    /// Spends some, taking more if need be, and returns whether there was enough. Any task context.
    pub(crate) fn spend(&mut self, bytes: usize) -> bool {
        let spent = self.spent.saturating_add(bytes);
        if let Some(more) = spent.checked_sub(self.taken).filter(|more| *more > 0) {
            let mut used = self.budget.used.lock();
            let Some(sum) = used.checked_add(more).filter(|sum| *sum <= TOTAL) else {
                return false;
            };
            *used = sum;
            stats::private_memory(sum);
            self.taken = spent;
        }
        self.spent = spent;
        true
    }

    /// Returns whether a window may spend that much more.
    pub(crate) fn allows(&self, bytes: usize) -> bool {
        self.spent.saturating_add(bytes) <= WINDOW
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        if self.taken == 0 {
            return;
        }
        let mut used = self.budget.used.lock();
        *used = used.saturating_sub(self.taken);
        stats::private_memory(*used);
        drop(used);
        self.budget.freed.notify_all();
    }
}
