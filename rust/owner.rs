// SPDX-License-Identifier: GPL-2.0

//! The task that asked for a read: a worker that does something for it charges that to it.
//!
//! C headers: [`include/linux/blk-cgroup.h`](srctree/include/linux/blk-cgroup.h),
//! [`include/linux/memcontrol.h`](srctree/include/linux/memcontrol.h)

use crate::bindings;
use core::{
    mem::MaybeUninit,
    ptr::NonNull, //
};
use kernel::{
    bindings as kbindings,
    types::NotThreadSafe, //
};

/// Tells apart the owners of requests that compete: a number for each I/O cgroup and user.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Owner(pub(crate) u64);

impl Owner {
    /// Returns the owner of the requests of the current task. Task context.
    pub(crate) fn current() -> Self {
        // SAFETY: It only looks at the current task.
        Self(unsafe { bindings::bdio_current_owner() })
    }
}

/// Returns whether the current task must not be made to wait for what other readers hold.
///
/// Those may wait for this task: it may be the worker of a loop device that they read. Task context.
/// Rule: `PF_LOCAL_THROTTLE`, include/linux/sched.h.
pub(crate) fn must_not_wait() -> bool {
    // SAFETY: It only looks at the current task.
    unsafe { bindings::bdio_current_must_not_wait() }
}

/// A reference to the task that asked for a read.
///
/// # Invariants
///
/// `task` is a task that a reference of ours keeps.
pub(crate) struct Requester {
    task: NonNull<kbindings::task_struct>,
}

// SAFETY: A reference to a task may be used and given back by any task, in any context.
unsafe impl Send for Requester {}
// SAFETY: As above.
unsafe impl Sync for Requester {}

impl Requester {
    /// Takes a reference to the current task. Task context.
    pub(crate) fn current() -> Self {
        // SAFETY: The current task is not null, and there as long as it runs.
        unsafe { Self::of(NonNull::new_unchecked(bindings::bdio_current())) }
    }

    /// Takes a reference to a task.
    ///
    /// # Safety
    ///
    /// The task must be there.
    unsafe fn of(task: NonNull<kbindings::task_struct>) -> Self {
        // SAFETY: By the contract.
        unsafe { bindings::bdio_task_get(task.as_ptr()) };
        // INVARIANT: The reference is ours.
        Self { task }
    }

    /// Returns the owner of the requests of the task. Any context.
    pub(crate) fn owner(&self) -> Owner {
        // SAFETY: By the type invariants the task is there.
        Owner(unsafe { bindings::bdio_task_owner(self.task.as_ptr()) })
    }

    /// Charges the I/O and the memory of the current worker to the task, until the scope ends.
    ///
    /// Only for a kernel thread that works for nobody else meanwhile. Task context.
    pub(crate) fn work_for(&self) -> WorkFor {
        let mut saved = MaybeUninit::<bindings::bdio_work_for>::zeroed();
        // SAFETY: By the type invariants the task is there. `saved` is memory for the state.
        unsafe { bindings::bdio_work_for_begin(self.task.as_ptr(), saved.as_mut_ptr()) };
        WorkFor {
            // SAFETY: As above.
            requester: unsafe { Self::of(self.task) },
            // SAFETY: Zeros are a valid state, and the function has filled in what it needs.
            // INVARIANT: Filled in by the matching begin.
            saved: unsafe { saved.assume_init() },
            _not_send: NotThreadSafe,
        }
    }
}

impl Drop for Requester {
    fn drop(&mut self) {
        // SAFETY: By the type invariants the reference is ours.
        unsafe { bindings::bdio_task_put(self.task.as_ptr()) }
    }
}

/// While it lives, the current worker works for a task.
///
/// # Invariants
///
/// `saved` comes from `bdio_work_for_begin()` for the task of `requester`, called by this thread.
#[must_use = "the scope ends when this is dropped"]
pub(crate) struct WorkFor {
    requester: Requester,
    saved: bindings::bdio_work_for,
    _not_send: NotThreadSafe,
}

impl Drop for WorkFor {
    fn drop(&mut self) {
        // SAFETY: By the type invariants, and the type is not `Send`: the same thread.
        unsafe { bindings::bdio_work_for_end(self.requester.task.as_ptr(), &self.saved) }
    }
}
