// SPDX-License-Identifier: GPL-2.0

//! A workqueue of our own.
//!
//! C header: [`include/linux/workqueue.h`](srctree/include/linux/workqueue.h)

use crate::{
    bindings,
    safe::{
        bell::Bell,
        memalloc::Inherited, //
    },
};
use core::ptr::NonNull;
use kernel::{
    bindings as kbindings,
    container_of,
    prelude::*,
    types::Opaque, //
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

    /// Has a worker call `f`, and returns what that returns.
    ///
    /// Task context, sleeps; not from work of this queue.
    pub(crate) fn run<R: Send>(&self, f: impl FnOnce() -> R + Send) -> Option<R> {
        pin_init::stack_pin_init!(let done = Bell::new());
        let mut errand = Errand {
            work: Opaque::uninit(),
            scopes: Inherited::of_this_task(),
            done: &done,
            f: Some(f),
            result: None,
        };
        let errand = &raw mut errand;
        // SAFETY: The errand stays where it is, and nobody touches it but the worker from when its
        // work is queued until that has been waited for.
        unsafe {
            let work = Opaque::cast_into(&raw const (*errand).work);
            bindings::bdio_init_work_on_stack(work, Some(run_errand_of(&*errand)));
            self.queue(work);
            // The worker may wait for a device, and flushing is not how to wait for one.
            done.wait();
            kbindings::flush_work(work);
            bindings::bdio_destroy_work_on_stack(work);
            (*errand).result.take()
        }
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

/// Something a worker is sent to do.
struct Errand<'e, F, R> {
    work: Opaque<kbindings::work_struct>,
    /// Of the task that waits for it.
    scopes: Inherited,
    /// Rung when there is a result.
    done: &'e Bell,
    f: Option<F>,
    result: Option<R>,
}

/// The function of work.
type Work = unsafe extern "C" fn(*mut kbindings::work_struct);

/// Returns the function of the work of an errand of this type.
fn run_errand_of<F: FnOnce() -> R + Send, R: Send>(_: &Errand<'_, F, R>) -> Work {
    run_errand::<F, R>
}

/// The work of an errand. Task context.
///
/// # Safety
///
/// Only for a workqueue to call, with the work of an `Errand<'_, F, R>` whose owner waits for it.
unsafe extern "C" fn run_errand<F: FnOnce() -> R + Send, R: Send>(
    work: *mut kbindings::work_struct,
) {
    // SAFETY: The work lies in an errand, which is there, and the worker's alone, until this returns.
    unsafe {
        let errand = container_of!(Opaque::cast_from(work), Errand<'_, F, R>, work).cast_mut();
        let _scope = (*errand).scopes.enter();
        if let Some(f) = (*errand).f.take() {
            (*errand).result = Some(f());
        }
        (*errand).done.ring();
    }
}

impl Drop for Queue {
    fn drop(&mut self) {
        // SAFETY: By the type invariants ours. Waits for work that is queued or running.
        unsafe { kbindings::destroy_workqueue(self.queue.as_ptr()) }
    }
}
