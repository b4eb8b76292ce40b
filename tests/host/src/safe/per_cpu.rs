// SPDX-License-Identifier: GPL-2.0

//! As [`rust/per_cpu.rs`](../../../../rust/per_cpu.rs), of memory that is never given back.

use kernel::{
    cpu::{nr_cpu_ids, CpuId, MOST},
    prelude::*,
    sync::atomic::{Atomic, Relaxed},
};
use std::sync::OnceLock;

pub(in crate::safe) struct PerCpu<T: Send + Sync + 'static, const N: usize>(OnceLock<Vec<T>>);

impl<T: Send + Sync + 'static, const N: usize> PerCpu<T, N> {
    pub(in crate::safe) const fn new() -> Self {
        Self(OnceLock::new())
    }

    /// # Safety
    ///
    /// None: the memory stays.
    pub(in crate::safe) unsafe fn allocate(
        &'static self,
        make: impl Fn() -> T,
    ) -> Result<Area<T, N>> {
        let all = N * MOST as usize;
        self.0.get_or_init(|| (0..all).map(|_| make()).collect());
        Ok(Area(self))
    }

    fn of(&'static self, cpu: u32, nr: usize) -> Option<&'static T> {
        (nr < N).then_some(())?;
        self.0.get()?.get(cpu as usize * N + nr)
    }

    pub(in crate::safe) fn this(&'static self, nr: usize) -> Option<&'static T> {
        self.of(CpuId::current().into(), nr)
    }

    pub(in crate::safe) fn sum(
        &'static self,
        nr: usize,
        field: impl Fn(&'static T) -> &'static Atomic<u64>,
    ) -> u64 {
        (0..nr_cpu_ids())
            .filter_map(|cpu| self.of(cpu, nr))
            .fold(0, |sum, value| sum.wrapping_add(field(value).load(Relaxed)))
    }
}

pub(in crate::safe) struct Area<T: Send + Sync + 'static, const N: usize>(&'static PerCpu<T, N>);
