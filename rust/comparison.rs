// SPDX-License-Identifier: GPL-2.0

//! Blocks one after the other, each compared with the digest that is expected of it.
//!
//! CRC-32C of several is faster together than one by one: for that, a block waits for others to come.

use super::hash::{
    self,
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
        let (algorithm, block) = (self.algorithm, self.block);
        if algorithm != Algorithm::Crc32c {
            // SAFETY: By the contract.
            return self.add_by(|expected| unsafe { algorithm.matches_raw(data, block, expected) });
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
        // SAFETY: As many waited as there is room for: all but the last are readable by the type
        // invariants, and that by the contract.
        let bad = unsafe { hash::crc32c_mismatches(&self.waiting, block, self.expected) };
        self.bad = self.bad.saturating_add(bad);
    }

    /// Compares the next block at once, which has the digest expected if `is_right` says so of that.
    #[inline(always)]
    pub(crate) fn add_by(&mut self, is_right: impl FnOnce(&'d [u8]) -> bool) {
        self.settle();
        self.note(is_right);
    }

    /// Notes whether a block has the next digest.
    #[inline(always)]
    fn note(&mut self, is_right: impl FnOnce(&'d [u8]) -> bool) {
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
            // SAFETY: It is readable by the type invariants.
            self.note(|expected| unsafe { algorithm.matches_raw(data, block, expected) });
        }
    }

    /// Compares what waits, and returns how many blocks do not have the digest expected.
    #[inline(always)]
    pub(crate) fn mismatches(mut self) -> u64 {
        self.settle();
        self.bad
    }
}
