// SPDX-License-Identifier: GPL-2.0

//! Atomics with the interface of the kernel's.
//!
//! They behave as C11 has it, which lets less be relied on than the kernel's memory model does, and
//! has no dependencies: code that is right here is right there. `Full` is no more than acquire and
//! release to loom.

pub mod ordering;

pub use ordering::{Acquire, Full, Relaxed, Release};

#[cfg(not(loom))]
use core::sync::atomic::AtomicU64;

/// What can be atomic.
pub trait AtomicType: Copy + Send + Sync + 'static {
    /// Widens it.
    fn widen(self) -> u64;

    /// Undoes that, of what is beyond its width nothing is left.
    fn narrow(bits: u64) -> Self;
}

macro_rules! integers {
    ($($int:ty)*) => {$(
        impl AtomicType for $int {
            fn widen(self) -> u64 {
                self as u64
            }

            fn narrow(bits: u64) -> Self {
                bits as Self
            }
        }
    )*};
}

integers!(i32 i64 isize u32 u64 usize);

/// Memory that threads share.
pub struct Atomic<T: AtomicType> {
    /// What it had first. What it has is kept as the difference to that, so that the memory of a model,
    /// which has to be made before, can begin with 0.
    first: T,
    #[cfg(not(loom))]
    moved: AtomicU64,
    #[cfg(loom)]
    moved: super::model::Slot,
}

impl<T: AtomicType> Atomic<T> {
    /// Makes one.
    pub const fn new(first: T) -> Self {
        Self {
            first,
            #[cfg(not(loom))]
            moved: AtomicU64::new(0),
            #[cfg(loom)]
            moved: super::model::Slot::new(),
        }
    }

    fn value(&self, moved: u64) -> T {
        let bits = self.first.widen().wrapping_add(moved);
        let value = T::narrow(bits);
        assert_eq!(value.widen(), bits, "an atomic has overflowed");
        value
    }

    fn moved(&self, value: T) -> u64 {
        value.widen().wrapping_sub(self.first.widen())
    }

    #[cfg(not(loom))]
    fn cell(&self) -> &AtomicU64 {
        &self.moved
    }

    #[cfg(loom)]
    fn cell(&self) -> std::rc::Rc<loom::sync::atomic::AtomicU64> {
        self.moved.cell()
    }

    /// Loads.
    pub fn load<O: ordering::AcquireOrRelaxed>(&self, _: O) -> T {
        self.value(self.cell().load(O::ORDER))
    }

    /// Stores.
    pub fn store<O: ordering::ReleaseOrRelaxed>(&self, value: T, _: O) {
        self.cell().store(self.moved(value), O::ORDER);
    }

    /// Exchanges `old` for `new`, if it is there; with no order at all if not.
    pub fn cmpxchg<O: ordering::Ordering>(&self, old: T, new: T, _: O) -> Result<T, T> {
        let relaxed = core::sync::atomic::Ordering::Relaxed;
        self.cell()
            .compare_exchange(self.moved(old), self.moved(new), O::ORDER, relaxed)
            .map(|moved| self.value(moved))
            .map_err(|moved| self.value(moved))
    }

    /// Adds.
    pub fn add(&self, value: T, _: Relaxed) {
        self.fetch_add(value, Relaxed);
    }

    /// Adds, and returns what was there.
    pub fn fetch_add<O: ordering::Ordering>(&self, value: T, _: O) -> T {
        self.value(self.cell().fetch_add(value.widen(), O::ORDER))
    }

    /// Subtracts, and returns what was there.
    pub fn fetch_sub<O: ordering::Ordering>(&self, value: T, _: O) -> T {
        self.value(self.cell().fetch_sub(value.widen(), O::ORDER))
    }
}
