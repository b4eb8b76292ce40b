// SPDX-License-Identifier: GPL-2.0

//! Work that several CPUs share, and that is done when the call returns.
//!
//! C header: [`include/linux/workqueue.h`](srctree/include/linux/workqueue.h)

use super::{
    memalloc::Inherited,
    workqueue::Queue, //
};
use crate::bindings;
use core::mem::MaybeUninit;
use kernel::{
    bindings as kbindings,
    container_of,
    sync::atomic::{
        ordering::Relaxed,
        Atomic, //
    },
    types::Opaque, //
};

/// How many workers help a task at most: as many as there is room for on its stack.
pub(crate) const MOST: usize = 7;

/// What there is to do, and how far it has got.
struct Job<'a> {
    /// Of the task whose job it is.
    scopes: Inherited,
    next: Atomic<usize>,
    count: usize,
    f: &'a (dyn Fn(usize) + Sync),
}

impl Job<'_> {
    /// Does what is left, one after the other, along with the others.
    fn work(&self) {
        loop {
            let n = self.next.fetch_add(1, Relaxed);
            if n >= self.count {
                return;
            }
            (self.f)(n);
        }
    }
}

/// A worker that helps with a job.
///
/// # Invariants
///
/// Once `work` is initialised `job` is valid until [`for_each`] has cancelled the work.
struct Helper {
    work: Opaque<kbindings::work_struct>,
    job: *const Job<'static>,
}

/// Returns how many CPUs there are now.
fn cpus() -> usize {
    // CAST: Widening.
    // SAFETY: It only looks at a number.
    unsafe { bindings::bdio_online_cpus() as usize }
}

/// Returns whether there is no other CPU that could help.
pub(crate) fn is_alone() -> bool {
    cpus() <= 1
}

/// Calls `f` with each number below `count`, once, in no particular order; by this task and, if
/// there are other CPUs, by workers of `queue`. All calls have returned when this does.
///
/// Task context, sleeps; not from work of `queue`. Numbers must not approach `usize::MAX`.
pub(crate) fn for_each(queue: &Queue, count: usize, f: &(dyn Fn(usize) + Sync)) {
    let job = Job {
        scopes: Inherited::of_this_task(),
        next: Atomic::new(0),
        count,
        f,
    };
    let wanted = cpus().min(count).saturating_sub(1).min(MOST);
    // Not moved once work in it is queued: it is only borrowed from there on.
    let mut room = [const { MaybeUninit::<Helper>::uninit() }; MOST];
    let (helpers, _) = room.split_at_mut(wanted);
    for helper in &mut *helpers {
        let helper = helper.write(Helper {
            work: Opaque::uninit(),
            job: (&raw const job).cast(),
        });
        // SAFETY: Memory of ours, which stays where it is until the work has been cancelled below;
        // and so does the job.
        unsafe {
            let work = helper.work.get();
            bindings::bdio_init_work_on_stack(work, Some(help));
            queue.queue(work);
        }
    }
    job.work();
    for helper in helpers {
        // SAFETY: Initialised above. Work that has not begun never will, and work that has is
        // waited for: there is nothing left to do, so that is not for long.
        unsafe {
            let work = helper.assume_init_ref().work.get();
            kbindings::cancel_work_sync(work);
            bindings::bdio_destroy_work_on_stack(work);
        }
    }
}

/// The work of a helper.
///
/// # Safety
///
/// Only for a workqueue to call, with the work of a [`Helper`].
unsafe extern "C" fn help(work: *mut kbindings::work_struct) {
    // SAFETY: The work lies in a helper, which is there, and its job, until the work has ended.
    unsafe {
        let helper = container_of!(Opaque::cast_from(work), Helper, work);
        let _scope = (*(*helper).job).scopes.enter();
        (*(*helper).job).work();
    }
}
