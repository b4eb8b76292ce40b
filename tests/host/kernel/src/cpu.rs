// SPDX-License-Identifier: GPL-2.0

//! Processors.

use core::cell::Cell;

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
    CURRENT.with(|current| current.set(cpu));
}
