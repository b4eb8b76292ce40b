// SPDX-License-Identifier: GPL-2.0

//! Blocks one after the other, each compared with the digest that is expected of it.
//!
//! Where several are hashed faster together than one by one, a block waits for others to come.

use super::hash::{
    Algorithm,
    TOGETHER, //
};
use core::marker::PhantomData;

/// Blocks of memory seen for as long as `'p`, compared in order with what is expected of them.
///
/// # Invariants
///
/// `count` is less than [`TOGETHER`]. The first `count` of `waiting` are blocks that come before all that
/// is yet to come, and are readable over their length.
pub(crate) struct Comparison<'e, 'p, E> {
    algorithm: Algorithm,
    block: usize,
    expected: &'e mut E,
    waiting: [*const u8; TOGETHER],
    count: usize,
    bad: u64,
    _memory: PhantomData<&'p ()>,
}

impl<'d, 'p, E: Iterator<Item = &'d [u8]>> Comparison<'_, 'p, E> {
    /// Begins to compare blocks of `block` bytes with the digests `expected`. A block for which there is
    /// none left does not have it.
    #[inline(always)]
    pub(crate) fn new(
        algorithm: Algorithm,
        block: usize,
        expected: &mut E,
    ) -> Comparison<'_, 'p, E> {
        // INVARIANT: None waits.
        Comparison {
            algorithm,
            block,
            expected,
            waiting: [core::ptr::null(); TOGETHER],
            count: 0,
            bad: 0,
            _memory: PhantomData,
        }
    }

    /// Returns the length of a block in bytes.
    pub(crate) fn block(&self) -> usize {
        self.block
    }

    /// Compares the next block, at `data`; it may have to wait.
    ///
    /// The memory may change meanwhile, as with [`Algorithm::hash_raw`].
    ///
    /// # Safety
    ///
    /// It must be readable for as many bytes as a block has: for `'p`, or until [`Self::settle`] is called
    /// after that.
    #[inline(always)]
    pub(crate) unsafe fn add(&mut self, data: *const u8) {
        if !self.algorithm.is_faster_together() {
            // SAFETY: By the contract.
            return unsafe { self.add_now(data) };
        }
        if let Some(free) = self.waiting.get_mut(self.count) {
            *free = data;
        }
        let count = self.count.saturating_add(1);
        if count < TOGETHER {
            // INVARIANT: The one more is readable by the contract.
            self.count = count;
            return;
        }
        // INVARIANT: None waits.
        self.count = 0;
        let (waiting, expected) = (&self.waiting, &mut *self.expected);
        // SAFETY: As many waited as there is room for: all but the last are readable by the type
        // invariants, and that by the contract.
        let bad = unsafe {
            self.algorithm
                .mismatches_together(waiting, self.block, expected)
        };
        self.bad = self.bad.saturating_add(bad);
    }

    /// Compares the next block, at `data`, at once. If it is the only one, and all of this is inlined, then
    /// nothing is left of what others would wait in.
    ///
    /// # Safety
    ///
    /// It must be readable for as many bytes as a block has.
    #[inline(always)]
    pub(crate) unsafe fn add_now(&mut self, data: *const u8) {
        let (algorithm, block) = (self.algorithm, self.block);
        // SAFETY: By the contract.
        self.add_by(|expected| unsafe { algorithm.matches_raw(data, block, expected) });
    }

    /// Compares the next block at once, which has the digest expected if `is_right` says so of that.
    #[inline(always)]
    pub(crate) fn add_by(&mut self, is_right: impl FnOnce(&'d [u8]) -> bool) {
        self.settle();
        let expected = self.expected.next().unwrap_or_default();
        self.bad = self.bad.saturating_add(u64::from(!is_right(expected)));
    }

    /// Compares what waits.
    #[inline(always)]
    pub(crate) fn settle(&mut self) {
        let (algorithm, block, waiting) = (self.algorithm, self.block, self.waiting);
        // INVARIANT: None waits.
        let count = core::mem::replace(&mut self.count, 0);
        for data in waiting.into_iter().take(count) {
            let expected = self.expected.next().unwrap_or_default();
            // SAFETY: It is readable by the type invariants.
            let is_right = unsafe { algorithm.matches_raw(data, block, expected) };
            self.bad = self.bad.saturating_add(u64::from(!is_right));
        }
    }

    /// Compares what waits, and returns how many blocks do not have the digest expected.
    #[inline(always)]
    pub(crate) fn mismatches(mut self) -> u64 {
        self.settle();
        self.bad
    }
}
