// SPDX-License-Identifier: GPL-2.0

//! Processors.

use core::{
    cell::Cell,
    sync::atomic::{AtomicU32, Ordering::Relaxed},
};

/// How many processors there can be at most.
pub const MOST: u32 = 16;

/// How many there are.
static COUNT: AtomicU32 = AtomicU32::new(1);

#[cfg(not(loom))]
std::thread_local! {
    static CURRENT: Cell<u32> = const { Cell::new(0) };
}

#[cfg(loom)]
loom::thread_local! {
    static CURRENT: Cell<u32> = Cell::new(0);
}

/// The number of a processor.
pub struct CpuId(u32);

impl CpuId {
    /// Returns the one this thread is on: number 0, if [`run_on`] has not said otherwise.
    pub fn current() -> Self {
        Self(CURRENT.with(Cell::get))
    }
}

impl From<CpuId> for u32 {
    fn from(id: CpuId) -> Self {
        id.0
    }
}

/// Has this thread run on a processor from now on.
pub fn run_on(cpu: u32) {
    assert!(cpu < nr_cpu_ids());
    CURRENT.with(|current| current.set(cpu));
}

/// Returns how many processors there are.
pub fn nr_cpu_ids() -> u32 {
    COUNT.load(Relaxed)
}

/// Has there be so many processors from now on, for all threads.
pub fn have(cpus: u32) {
    assert!((1..=MOST).contains(&cpus));
    COUNT.store(cpus, Relaxed);
}
