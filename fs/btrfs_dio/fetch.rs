// SPDX-License-Identifier: GPL-2.0

//! What a window reads from devices, and into which memory.

use crate::{
    budget::{
        Budgets,
        Credit,
        Reservation, //
    },
    checksum::{
        Expected,
        Lookup, //
    },
    error::Stop,
    few::Few,
    safe::{
        btrfs::{
            extent_map::Space,
            fs::FsId, //
        },
        owner::Owner,
        patience::Patience,
        private::{
            Filled,
            PrivateBuffer, //
        },
        user_pages::UserPages,
        vecs::Vecs, //
    },
};
use kernel::prelude::*;

/// Where bytes from a device go to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Memory {
    /// To the caller's memory, at this offset of it.
    Caller {
        /// In bytes.
        at: usize,
    },
    /// To private memory: the buffer of this number, at this offset of it.
    Private {
        /// Index in [`Fetches`].
        buffer: usize,
        /// In bytes.
        at: usize,
    },
}

impl Memory {
    /// Returns whether the `len` bytes from here on include what begins at `other`.
    pub(crate) fn reaches(self, len: usize, other: Self) -> bool {
        let skipped = match (self, other) {
            (Self::Caller { at }, Self::Caller { at: other }) => other.checked_sub(at),
            (
                Self::Private { buffer, at },
                Self::Private {
                    buffer: b,
                    at: other,
                },
            ) => other.checked_sub(at).filter(|_| buffer == b),
            _ => None,
        };
        skipped.is_some_and(|skipped| skipped < len)
    }

    /// Returns the offset in the caller's memory, or in the private buffer. In bytes.
    pub(crate) fn at(self) -> usize {
        let (Self::Caller { at } | Self::Private { at, .. }) = self;
        at
    }

    /// Returns the place `bytes` further on.
    pub(crate) fn forward(self, bytes: usize) -> Self {
        match self {
            Self::Caller { at } => Self::Caller {
                at: at.saturating_add(bytes),
            },
            Self::Private { buffer, at } => Self::Private {
                buffer,
                at: at.saturating_add(bytes),
            },
        }
    }
}

/// Blocks that lie together in the logical address space, and go to memory that does as well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Fetch {
    /// Logical address of the first byte.
    pub(crate) logical: u64,
    /// Length in bytes, a multiple of the block size, not 0.
    pub(crate) len: usize,
    /// Where it goes to.
    pub(crate) memory: Memory,
    /// Offset in the file of the first byte, or of what the file has of it, in bytes.
    pub(crate) file: u64,
    /// How much of the file, from there on, is in it, in bytes: whole blocks.
    pub(crate) within: usize,
}

impl Fetch {
    /// Returns where in the file a block is, as long as which is locked, and there, nobody else is
    /// given the space of what is `skipped` bytes behind the beginning; and what is there is that, if
    /// it is plain data. In bytes.
    pub(crate) fn kept_at(&self, skipped: usize, block: usize) -> u64 {
        let skipped = skipped.min(self.within.saturating_sub(block));
        // CAST: Widening.
        self.file.saturating_add(skipped as u64)
    }
}

/// All that a window reads from devices.
pub(crate) struct Fetches {
    list: Few<Fetch>,
    buffers: Few<PrivateBuffer>,
    /// The checksums they must have, in the same order, if they have any.
    pub(crate) expected: Option<Expected>,
    /// The bounce memory that the buffers are made of.
    reserved: Option<Reservation>,
    /// Whose it is; of the current task, if not said.
    owner: Option<Owner>,
    credit: Credit,
    patience: Patience,
}

impl Fetches {
    /// Makes an empty list.
    #[inline(always)]
    pub(crate) fn new() -> Self {
        Self {
            list: Few::new(),
            buffers: Few::new(),
            expected: None,
            reserved: None,
            owner: None,
            credit: Credit::None,
            patience: Patience::Wait,
        }
    }

    /// Sets how the list is filled, and what bounce memory has been taken for it beforehand.
    pub(crate) fn prepare(
        &mut self,
        reserved: Option<Reservation>,
        credit: Credit,
        owner: Option<Owner>,
        patience: Patience,
    ) {
        self.reserved = reserved;
        self.credit = credit;
        self.owner = owner;
        self.patience = patience;
    }

    /// Adds what is in `space`.
    pub(crate) fn add(
        &mut self,
        lookup: &Lookup<'_, '_>,
        space: &Space,
        fetch: Fetch,
    ) -> Result<(), Stop> {
        if let Some(expected) = &mut self.expected {
            expected.look_up(lookup, space, fetch.logical, fetch.len)?;
        }
        self.add_known(fetch)
    }

    /// Adds what checksums have been looked up of.
    pub(crate) fn add_known(&mut self, fetch: Fetch) -> Result<(), Stop> {
        self.list.push(fetch, self.patience.gfp())?;
        Ok(())
    }

    /// Allocates a private buffer of `len` bytes, and returns its number; `None` if the window has
    /// had as much bounce memory as a window may have.
    pub(crate) fn buffer(
        &mut self,
        budgets: &Budgets,
        fs: FsId,
        len: usize,
    ) -> Result<Option<usize>, Stop> {
        let reserved = match &mut self.reserved {
            Some(reserved) => reserved,
            none => {
                let owner = self.owner.unwrap_or_else(Owner::current);
                none.insert(Reservation::empty(budgets.of(fs)?, owner, self.credit))
            }
        };
        if !reserved.allows(len) {
            return Ok(None);
        }
        if !reserved.spend(len) {
            return Err(Stop::Budget(reserved.spent().saturating_add(len)));
        }
        let buffer = PrivateBuffer::new(len, self.patience).map_err(Stop::from_mapping)?;
        self.buffers.push(buffer, self.patience.gfp())?;
        Ok(self.buffers.as_slice().len().checked_sub(1))
    }

    /// Frees all buffers, and returns the memory that was reserved, for another window.
    pub(crate) fn take_reserved(&mut self) -> Option<Reservation> {
        let mut reserved = self.reserved.take()?;
        self.buffers = Few::new();
        reserved.restart();
        Some(reserved)
    }

    /// Returns the list.
    pub(crate) fn list(&self) -> &[Fetch] {
        self.list.as_slice()
    }

    /// Returns whether all of it goes to the caller's memory.
    pub(crate) fn are_direct(&self) -> bool {
        self.buffers.as_slice().is_empty() && self.reserved.is_none()
    }

    /// Returns the memory that something goes to, if there is such.
    pub(crate) fn vecs<'p>(&'p self, memory: Memory, pages: &'p UserPages<'_>) -> Option<Vecs<'p>> {
        match memory {
            Memory::Caller { .. } => Some(pages.vecs()),
            Memory::Private { buffer, .. } => self.private(buffer).map(PrivateBuffer::vecs),
        }
    }

    /// Returns the private buffer of this number.
    pub(crate) fn private(&self, number: usize) -> Option<&PrivateBuffer> {
        self.buffers.as_slice().get(number)
    }

    /// Returns the private buffers, now that all has arrived in them, and the checksums.
    pub(crate) fn arrived(&mut self) -> (Filled<'_>, Option<&Expected>) {
        (
            Filled::new(self.buffers.as_mut_slice()),
            self.expected.as_ref(),
        )
    }
}
