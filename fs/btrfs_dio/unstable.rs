// SPDX-License-Identifier: GPL-2.0

//! Files that are read into memory which other threads write to at the same time.
//!
//! Data that is read in place and does not match its checksum is read again, into private memory. A
//! program that writes to its buffer while it is read into would have every block read twice. So for
//! [`BOUNCED`] milliseconds after a read has found such a buffer, all reads of that file go through
//! private memory. Those reads cannot see whether the buffer still changes; afterwards, the next
//! read in place finds out.
//!
//! A slot of the table is one word: a tag of the file, and the time. Files share slots and, rarely,
//! tags. Then a file is read in place too early, or another one goes through private memory for no
//! reason: both cost time only. Any context, never waits.

use crate::safe::btrfs::inode::InodeId;
use kernel::sync::atomic::{
    Atomic,
    Relaxed, //
};

/// How long a file is read through private memory, in milliseconds.
pub(crate) const BOUNCED: u32 = 5000;

/// How many files there is room for, a power of two.
const SLOTS: usize = 64;

/// Marks a word that has a time in its lower half.
const TIMED: u64 = 1 << 32;

/// Returns the lower half of a word, or of a time.
fn low(word: u64) -> u32 {
    // CAST: The half that is wanted.
    word as u32
}

/// Returns whether so little time has passed since `then` that reads still are bounced.
///
/// The time of another CPU may be ahead of `now`. After 2^32 milliseconds, a forgotten note counts once
/// more for a while.
fn is_recent(then: u32, now: u32) -> bool {
    now.wrapping_sub(then).wrapping_add(BOUNCED) < 2 * BOUNCED
}

/// The files whose buffers were seen to change.
// Not beside what is written for each read.
#[repr(align(64))]
pub(crate) struct Unstable {
    /// The time of the latest note with [`TIMED`] set; 0 if there is no recent note.
    latest: Atomic<u64>,
    /// For each note the tag of the file, and the time in the lower half; 0 if there is none.
    slots: [Atomic<u64>; SLOTS],
}

impl Unstable {
    /// Makes a table without any file.
    pub(crate) fn new() -> Self {
        Self {
            latest: Atomic::new(0),
            slots: [const { Atomic::new(0) }; SLOTS],
        }
    }

    /// Returns the slot of a file and, in the upper half, its tag, which is not 0.
    fn slot(&self, file: InodeId) -> Option<(&Atomic<u64>, u64)> {
        // CAST: Widening.
        let hash = (file.0 as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let tag = hash & !u64::from(u32::MAX) | TIMED;
        // The lowest bits of an address, and so those of the product, say nothing.
        // CAST: Any of the others do.
        let slot = self.slots.get((hash >> 26) as usize % SLOTS)?;
        Some((slot, tag))
    }

    /// Notes that the buffer of a read of `file` has changed, `now` in milliseconds.
    pub(crate) fn note(&self, file: InodeId, now: u64) {
        let Some((slot, tag)) = self.slot(file) else {
            return;
        };
        let time = u64::from(low(now));
        slot.store(tag | time, Relaxed);
        self.latest.store(TIMED | time, Relaxed);
    }

    /// Returns whether there may be recent notes.
    #[inline]
    pub(crate) fn is_noted(&self) -> bool {
        self.latest.load(Relaxed) != 0
    }

    /// Returns whether reads of `file` are to go through private memory. Asks for the time, in
    /// milliseconds, only if there are notes.
    pub(crate) fn holds(&self, file: InodeId, now: impl FnOnce() -> u64) -> bool {
        let latest = self.latest.load(Relaxed);
        latest != 0 && self.look_up(file, latest, low(now()))
    }

    #[cold]
    fn look_up(&self, file: InodeId, latest: u64, now: u32) -> bool {
        if !is_recent(low(latest), now) {
            // Fails if there is a new note.
            let _ = self.latest.cmpxchg(latest, 0, Relaxed);
            return false;
        }
        self.slot(file).is_some_and(|(slot, tag)| {
            let word = slot.load(Relaxed);
            word & !u64::from(u32::MAX) == tag && is_recent(low(word), now)
        })
    }
}
