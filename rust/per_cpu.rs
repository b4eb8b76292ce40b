// SPDX-License-Identifier: GPL-2.0

//! Values of which each CPU has its own.
//!
//! C header: [`include/linux/percpu.h`](srctree/include/linux/percpu.h)

use crate::bindings;
use core::{
    ffi::c_void,
    marker::PhantomData,
    mem::align_of, //
};
use kernel::{
    cpu::nr_cpu_ids,
    prelude::*,
    sync::atomic::{
        Atomic,
        Full,
        Relaxed,
        Release, //
    },
};

/// `N` values for each possible CPU, as long as there is an [`Area`].
///
/// Meant for a `static`. Without an area there are no values.
///
/// # Invariants
///
/// `area` is 0 or the per-CPU address of `N` initialised values for each possible CPU.
pub(in crate::safe) struct PerCpu<T: Send + Sync + 'static, const N: usize> {
    area: Atomic<usize>,
    _values: PhantomData<T>,
}

impl<T: Send + Sync + 'static, const N: usize> PerCpu<T, N> {
    /// Makes one without an area.
    pub(in crate::safe) const fn new() -> Self {
        // INVARIANT: No area.
        Self {
            area: Atomic::new(0),
            _values: PhantomData,
        }
    }

    /// Allocates an area of values that `make` makes. May sleep; fails with `ENOMEM`, or with
    /// `EBUSY` if there is an area.
    ///
    /// Values that are never dropped must need no drop.
    ///
    /// # Safety
    ///
    /// The area may be dropped only after all references to values have gone.
    pub(in crate::safe) unsafe fn allocate(
        &'static self,
        make: impl Fn() -> T,
    ) -> Result<Area<T, N>> {
        const { assert!(!core::mem::needs_drop::<T>()) };
        // SAFETY: The function has no preconditions, and the size is that of an array.
        let area = unsafe { bindings::bdio_per_cpu_alloc(size_of::<[T; N]>(), align_of::<T>()) };
        if area.is_null() {
            return Err(ENOMEM);
        }
        for cpu in 0..nr_cpu_ids() {
            // SAFETY: `area` was just allocated.
            let values = unsafe { bindings::bdio_per_cpu_of(area, cpu) }.cast::<T>();
            if values.is_null() {
                continue;
            }
            for nr in 0..N {
                // SAFETY: The CPU is possible, so it has memory for `N` values, which is ours.
                unsafe { values.add(nr).write(make()) };
            }
        }
        // INVARIANT: All values have just been initialised. CAST: An address.
        match self.area.cmpxchg(0, area as usize, Full) {
            Ok(_) => Ok(Area(self)),
            Err(_) => {
                // SAFETY: Allocated above, and nobody has seen it.
                unsafe { bindings::bdio_per_cpu_free(area) };
                Err(EBUSY)
            }
        }
    }

    /// Returns the per-CPU address of the first value; null without an area.
    fn area(&self) -> *mut c_void {
        // What is found there depends on the address. CAST: As it was stored.
        self.area.load(Relaxed) as *mut c_void
    }

    /// Returns value number `nr` of this CPU, or of the CPU that the task was on a moment ago.
    ///
    /// Returns `None` if there is no such value. Any context.
    pub(in crate::safe) fn this(&self, nr: usize) -> Option<&'static T> {
        let area = self.area();
        if nr >= N || area.is_null() {
            return None;
        }
        // SAFETY: By the type invariants this CPU has `N` initialised values there. They stay as
        // long as there are references, as `allocate()` demands.
        unsafe { Some(&*bindings::bdio_per_cpu_this(area).cast::<T>().add(nr)) }
    }

    /// Returns the sum over all possible CPUs of a field of value number `nr`; 0 without an area.
    ///
    /// Not a snapshot. Any context.
    pub(in crate::safe) fn sum(
        &self,
        nr: usize,
        field: impl FnOnce(&'static T) -> &'static Atomic<u64>,
    ) -> u64 {
        let Some(value) = self.this(nr) else {
            return 0;
        };
        let field: *const Atomic<u64> = field(value);
        let within = field.addr().wrapping_sub((&raw const *value).addr());
        if within > size_of::<T>().saturating_sub(size_of::<u64>()) {
            return 0;
        }
        let value = self.area().cast::<T>().wrapping_add(nr);
        // SAFETY: `within` is where an integer of a value is. So by the type invariants each
        // possible CPU has an integer at this per-CPU address, which C only reads.
        unsafe { bindings::bdio_per_cpu_sum(value.wrapping_byte_add(within).cast()) }
    }
}

/// The values of a [`PerCpu`], which go when this is dropped.
pub(in crate::safe) struct Area<T: Send + Sync + 'static, const N: usize>(&'static PerCpu<T, N>);

impl<T: Send + Sync + 'static, const N: usize> Drop for Area<T, N> {
    fn drop(&mut self) {
        let area = self.0.area();
        // INVARIANT: No area.
        self.0.area.store(0, Release);
        // SAFETY: By the type invariants it was allocated, and whoever made this has promised that
        // nobody uses it any more.
        unsafe { bindings::bdio_per_cpu_free(area) }
    }
}
