// SPDX-License-Identifier: GPL-2.0

//! What outlives the calls that use it: counted, and waited for.
//!
//! C header: [`include/linux/percpu-refcount.h`](srctree/include/linux/percpu-refcount.h)

use crate::bindings;
use core::{
    ops::Deref,
    ptr::NonNull, //
};
use kernel::{
    bindings as kbindings,
    container_of,
    error::to_result,
    prelude::*,
    types::Opaque, //
};

/// A value that may be used from beyond the calls it was lent to, by those with a [`Passage`]; when
/// it is dropped, they are waited for.
///
/// # Invariants
///
/// `count` is initialised, holds one count for each passage and, until it is killed on drop, one
/// of its own. `empty` is initialised, and completed when there is none any more.
#[pin_data(PinnedDrop)]
pub(crate) struct Drain<T: Send + Sync + 'static> {
    #[pin]
    count: Opaque<kbindings::percpu_ref>,
    #[pin]
    empty: Opaque<kbindings::completion>,
    #[pin]
    value: T,
}

// SAFETY: A per-CPU reference count and a completion may be used by any task.
unsafe impl<T: Send + Sync + 'static> Send for Drain<T> {}
// SAFETY: As above.
unsafe impl<T: Send + Sync + 'static> Sync for Drain<T> {}

impl<T: Send + Sync + 'static> Drain<T> {
    /// Makes a drain around a value. May sleep.
    pub(crate) fn new(value: impl PinInit<T, Error>) -> impl PinInit<Self, Error> {
        try_pin_init!(Self {
            value <- value,
            empty <- Opaque::ffi_init(|empty: *mut kbindings::completion| {
                // SAFETY: Memory for a completion.
                unsafe { kbindings::init_completion(empty) }
            }),
            // Last: what fails after it would leave it behind.
            count <- Opaque::try_ffi_init(|count: *mut kbindings::percpu_ref| {
                // SAFETY: Memory for a reference count, which `empty` lies beside when it is
                // released, as all of it is pinned.
                to_result(unsafe {
                    kbindings::percpu_ref_init(count, Some(released::<T>), 0, kbindings::GFP_KERNEL)
                })
            }),
        })
    }

    /// Lets somebody use the value until the passage is dropped. Any context.
    pub(crate) fn enter(&self) -> Passage<T> {
        // SAFETY: By the type invariants the count is initialised; it has not been killed, since
        // that takes an exclusive reference.
        unsafe { bindings::bdio_ref_get(self.count.get()) };
        // INVARIANT: Just counted.
        Passage {
            drain: NonNull::from(self),
        }
    }
}

impl<T: Send + Sync + 'static> Deref for Drain<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}

#[pinned_drop]
impl<T: Send + Sync + 'static> PinnedDrop for Drain<T> {
    fn drop(self: Pin<&mut Self>) {
        // The device of a read may be suspended. A task that is idle is not taken for a hung one.
        // SAFETY: By the type invariants both are initialised. The completion comes when the last
        // passage has been dropped.
        unsafe {
            kbindings::percpu_ref_kill_and_confirm(self.count.get(), None);
            bindings::bdio_wait_idle(self.empty.get());
            kbindings::percpu_ref_exit(self.count.get());
        }
    }
}

/// Called when the last count has been given back. Any context.
///
/// # Safety
///
/// Only for the reference count of a `Drain<T>` to call.
unsafe extern "C" fn released<T: Send + Sync + 'static>(count: *mut kbindings::percpu_ref) {
    // SAFETY: `count` lies in a drain, whose drop waits for this; it touches nothing of it after
    // the completion.
    unsafe {
        let drain = container_of!(Opaque::cast_from(count), Drain<T>, count);
        kbindings::complete(Opaque::cast_into(&raw const (*drain).empty));
    }
}

/// Leave to use the value of a [`Drain`].
///
/// # Invariants
///
/// `drain` is a drain with a count of ours.
pub(crate) struct Passage<T: Send + Sync + 'static> {
    drain: NonNull<Drain<T>>,
}

// SAFETY: The value is `Sync`, and the count may be given back by any task.
unsafe impl<T: Send + Sync + 'static> Send for Passage<T> {}
// SAFETY: As above.
unsafe impl<T: Send + Sync + 'static> Sync for Passage<T> {}

impl<T: Send + Sync + 'static> Deref for Passage<T> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: By the type invariants the drain is there until our count is given back.
        unsafe { &self.drain.as_ref().value }
    }
}

impl<T: Send + Sync + 'static> Drop for Passage<T> {
    fn drop(&mut self) {
        // SAFETY: By the type invariants the count is ours.
        unsafe { bindings::bdio_ref_put(self.drain.as_ref().count.get()) }
    }
}
