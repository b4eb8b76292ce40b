// SPDX-License-Identifier: GPL-2.0

//! The current task.
//!
//! Not through the abstraction of the kernel crate: bindgen drops the alignment of a structure that
//! is empty, such as `struct sched_statistics` without `CONFIG_SCHEDSTATS`, so what comes after it
//! in `struct task_struct` is not where Rust believes it to be.

use crate::bindings;

/// Returns the pid of the current task, as the initial namespace knows it. Any context.
pub(crate) fn current_pid() -> i32 {
    // SAFETY: It only reads a field of the current task.
    unsafe { bindings::bdio_current_pid() }
}

/// Returns whether the current task is a worker of io_uring, which is there to wait. Any context.
pub(crate) fn is_io_worker() -> bool {
    // SAFETY: It only reads a field of the current task.
    unsafe { bindings::bdio_is_io_worker() }
}
