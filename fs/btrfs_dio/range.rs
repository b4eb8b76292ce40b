// SPDX-License-Identifier: GPL-2.0

//! Which blocks of the file a window consists of, and which bytes of them the caller wants.

use crate::error::Reason;

/// A window. In bytes.
///
/// ```text
///        start          pos                             pos + valid    pos + room
///          |--- head ---|-------------- valid ---------------|              |
///          |                |                |               |              |
///          +----------------+----------------+---------------+--------------+
///                  block            block           block            block
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Range {
    /// Offset in the file, a multiple of `block`.
    pub(crate) start: u64,
    /// Length, a multiple of `block`, not 0.
    pub(crate) len: usize,
    /// How much of the first block lies before what the caller wants; less than `block`.
    pub(crate) head: usize,
    /// How much the caller gets: up to the end of the file, at most.
    pub(crate) valid: usize,
    /// How much memory of the caller there is for the window, at least `valid`.
    pub(crate) room: usize,
    /// Where in the caller's memory what the caller gets begins.
    pub(crate) base: usize,
    /// Size of a block, a power of two.
    pub(crate) block: usize,
}

/// Part of a stretch of a window that the caller wants. In bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Part {
    /// Offset in the stretch.
    pub(crate) skip: usize,
    /// Offset in the caller's memory.
    pub(crate) to: usize,
    /// Length.
    pub(crate) len: usize,
}

/// Returns where the blocks begin that the `len` bytes from `pos` on are in, and how long they are
/// together. `None` if there is no such offset. `block` is a power of two.
pub(crate) fn whole_blocks(pos: u64, len: usize, block: usize) -> Option<(u64, usize)> {
    let mask = block.wrapping_sub(1);
    // CAST: Widening, and back: less than `block`.
    let head = (pos & mask as u64) as usize;
    let end = head.checked_add(len)?.checked_add(mask)?;
    let len = end & !mask;
    let start = pos.wrapping_sub(head as u64);
    start.checked_add(len as u64)?;
    Some((start, len))
}

impl Range {
    /// Makes a window of the `valid` bytes from `pos` on, for which there are `room` bytes of
    /// memory. `Unaligned` if there is nothing to read, less room than that, or no such offset.
    pub(crate) fn new(pos: u64, valid: usize, room: usize, block: usize) -> Result<Self, Reason> {
        if valid == 0 || room < valid || !block.is_power_of_two() {
            return Err(Reason::Unaligned);
        }
        let (start, len) = whole_blocks(pos, valid, block).ok_or(Reason::Unaligned)?;
        Ok(Self {
            start,
            len,
            // CAST: Less than `block`.
            head: pos.wrapping_sub(start) as usize,
            valid,
            room,
            base: 0,
            block,
        })
    }

    /// Returns which offset in the file is `at` bytes from the beginning.
    pub(crate) fn at_offset(&self, at: usize) -> u64 {
        // CAST: Widening. Does not overflow within the window.
        self.start.saturating_add(at as u64)
    }

    /// Returns the same window, for memory that begins at `base`.
    pub(crate) fn at(self, base: usize) -> Self {
        Self { base, ..self }
    }

    /// Returns the window that ends after the first `len` bytes, whole blocks, of this one.
    pub(crate) fn cut(self, len: usize) -> Self {
        let len = len.min(self.len);
        Self {
            len,
            valid: len.saturating_sub(self.head).min(self.valid),
            ..self
        }
    }

    /// Returns the window of the first `valid` bytes, not 0, of those that the caller gets.
    pub(crate) fn up_to(&self, valid: usize) -> Result<Self, Reason> {
        let pos = self.at_offset(self.head);
        let window = Self::new(pos, valid.min(self.valid), self.room, self.block)?;
        Ok(window.at(self.base))
    }

    /// Returns what is left of the window once the caller has got `done` bytes.
    pub(crate) fn from(&self, done: usize) -> Result<Self, Reason> {
        let pos = self.at_offset(self.head.saturating_add(done));
        let left = |all: usize| all.saturating_sub(done);
        let rest = Self::new(pos, left(self.valid), left(self.room), self.block)?;
        Ok(rest.at(self.base.saturating_add(done)))
    }

    /// Returns what the caller wants of the `len` bytes at offset `at`, if anything.
    pub(crate) fn wanted(&self, at: usize, len: usize) -> Option<Part> {
        let from = at.max(self.head);
        let until = at
            .saturating_add(len)
            .min(self.head.saturating_add(self.valid));
        let len = until.checked_sub(from).filter(|len| *len > 0)?;
        Some(Part {
            skip: from.saturating_sub(at),
            to: from.saturating_sub(self.head).saturating_add(self.base),
            len,
        })
    }

    /// Returns how many of the `len` bytes at offset `at`, both in whole blocks, can be read into
    /// the caller's memory, and where in it: whole blocks, and none if the first does not fit.
    ///
    /// What lies behind the end of the file in the last block goes along, if there is room.
    pub(crate) fn direct(&self, at: usize, len: usize) -> Option<(usize, usize)> {
        let to = at.checked_sub(self.head)?;
        let room = self.room.checked_sub(to)?;
        let whole = room.saturating_sub(room.checked_rem(self.block)?);
        let len = len.min(whole);
        (len > 0).then_some((to.saturating_add(self.base), len))
    }
}
