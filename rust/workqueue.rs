// SPDX-License-Identifier: GPL-2.0

//! A workqueue of our own.
//!
//! C header: [`include/linux/workqueue.h`](srctree/include/linux/workqueue.h)

use crate::bindings;
use core::ptr::NonNull;
use kernel::{
    bindings as kbindings,
    prelude::*, //
};

/// A queue whose work gets on when memory is short.
///
/// # Invariants
///
/// `queue` is a workqueue of ours.
pub(crate) struct Queue {
    queue: NonNull<kbindings::workqueue_struct>,
}

// SAFETY: A workqueue may be used by any task.
unsafe impl Send for Queue {}
// SAFETY: As above.
unsafe impl Sync for Queue {}

impl Queue {
    /// Makes a queue whose work runs on the CPU that queued it. `ENOMEM`. May sleep.
    pub(crate) fn new(name: &CStr) -> Result<Self> {
        // SAFETY: A string that ends.
        Self::wrap(unsafe { bindings::bdio_alloc_workqueue(name.as_char_ptr()) })
    }

    /// Makes a queue whose work runs on whatever CPU has time for it. `ENOMEM`. May sleep.
    pub(crate) fn unbound(name: &CStr) -> Result<Self> {
        // SAFETY: A string that ends.
        Self::wrap(unsafe { bindings::bdio_alloc_unbound_workqueue(name.as_char_ptr()) })
    }

    fn wrap(queue: *mut kbindings::workqueue_struct) -> Result<Self> {
        // INVARIANT: Ours.
        Ok(Self {
            queue: NonNull::new(queue).ok_or(ENOMEM)?,
        })
    }

    /// Queues work. Any context.
    ///
    /// # Safety
    ///
    /// `work` must be initialised, and stay where it is until its function runs.
    pub(super) unsafe fn queue(&self, work: *mut kbindings::work_struct) {
        // SAFETY: By the type invariants and the contract of this function.
        unsafe { bindings::bdio_queue_work(self.queue.as_ptr(), work) };
    }
}

impl Drop for Queue {
    fn drop(&mut self) {
        // SAFETY: By the type invariants ours. Waits for work that is queued or running.
        unsafe { kbindings::destroy_workqueue(self.queue.as_ptr()) }
    }
}
