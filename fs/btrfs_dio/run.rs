// SPDX-License-Identifier: GPL-2.0

//! Runs: what is read of a device in one go.

use crate::{
    error::{
        Reason,
        Stop, //
    },
    fetch::{
        Fetches,
        Memory, //
    },
    few::Few,
    mirror,
    safe::{
        block::{
            account::{
                Charge,
                Why, //
            },
            bio::Mark,
        },
        btrfs::{
            chunk::Stripe,
            device::OpenDevice, //
        },
    },
    stripe, //
};
use kernel::{
    alloc::Flags,
    prelude::*,
    sizes::SZ_4K, //
};

/// How many runs, and spans, a list takes for which no room was made: enough for a window that is
/// looked at without locking it, wherever its chunk begins.
const FEW: usize = 4;

/// A stretch of memory that is read of a device. In bytes.
#[derive(Clone, Copy)]
pub(crate) struct Span {
    pub(crate) memory: Memory,
    pub(crate) len: usize,
    /// Number of the one that follows it on the device.
    next: Option<usize>,
}

/// A stretch of a device, which goes to one span of memory after the other. In bytes.
pub(crate) struct Run {
    pub(crate) device: OpenDevice,
    pub(crate) charge: Charge,
    /// Where on the device.
    pub(crate) physical: u64,
    pub(crate) len: usize,
    /// What tells the device from others, under the hold.
    pub(crate) id: usize,
    /// Logical address of what it begins with, and the number of the copy of that, counted from 1.
    pub(crate) logical: u64,
    pub(crate) copy: u32,
    /// Numbers of its first and last span.
    first: usize,
    last: usize,
}

impl Run {
    /// Returns where it ends on the device.
    pub(crate) fn end(&self) -> Option<u64> {
        // CAST: Widening.
        self.physical.checked_add(self.len as u64)
    }
}

/// What is read of which device: what it takes to read the same again, and to know whom to blame. In
/// bytes.
pub(crate) struct Spot {
    /// As those of its [`Run`].
    pub(crate) logical: u64,
    pub(crate) copy: u32,
    pub(crate) id: usize,
    physical: u64,
    len: usize,
    /// What has become of it.
    pub(crate) mark: Mark,
}

impl Spot {
    /// Returns its length, in bytes.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Returns whether another spot begins within this one.
    pub(crate) fn reaches(&self, other: &Self) -> bool {
        let skipped = other.physical.checked_sub(self.physical);
        // CAST: Widening.
        self.id == other.id && skipped.is_some_and(|skipped| skipped < self.len as u64)
    }
}

/// The places of a window on devices, one for each run.
pub(crate) struct Spots(Few<Spot>);

impl Spots {
    /// Makes an empty list, for what may be read anywhere.
    #[inline(always)]
    pub(crate) fn new() -> Self {
        Self(Few::new())
    }

    /// Notes the places of runs of which nothing has been read so far, if there are none yet.
    pub(crate) fn note(&mut self, runs: &Runs, gfp: Flags) -> Result<(), Stop> {
        self.0.reserve(runs.len(), gfp)?;
        for run in runs.as_slice() {
            let spot = Spot {
                logical: run.logical,
                copy: run.copy,
                id: run.id,
                physical: run.physical,
                len: run.len,
                mark: Mark::new(),
            };
            self.0.push(spot, gfp)?;
        }
        Ok(())
    }

    /// As [`Self::note`], but notes nothing if there is no memory for that. Does not sleep.
    pub(crate) fn note_if_cheap(&mut self, runs: &Runs) {
        if self.note(runs, GFP_NOWAIT).is_err() {
            *self = Self::new();
        }
    }

    /// Returns whether there are none.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.as_slice().is_empty()
    }

    /// Returns how much was read of a device, from a place on.
    pub(crate) fn from(&self, id: usize, physical: u64) -> Option<usize> {
        self.0.as_slice().iter().find_map(|spot| {
            let skipped = physical.checked_sub(spot.physical)?;
            let skipped = usize::try_from(skipped).ok()?;
            let left = spot.len.checked_sub(skipped)?;
            (spot.id == id && left > 0).then_some(left)
        })
    }

    /// Returns those that could not be read.
    pub(crate) fn failed(&self) -> impl Iterator<Item = (&Spot, Error)> {
        let spots = self.0.as_slice().iter();
        spots.filter_map(|spot| Some((spot, spot.mark.status().err()?)))
    }

    /// Forgets what has failed, which has been counted: it is not to be counted once more.
    pub(crate) fn counted(mut self) -> Self {
        for spot in self.0.as_mut_slice() {
            spot.mark = Mark::new();
        }
        self
    }

    /// Returns all of them, in the order of their runs.
    pub(crate) fn as_slice(&self) -> &[Spot] {
        self.0.as_slice()
    }

    /// Returns the mark of run number `nr`, if the places of the runs are known.
    pub(crate) fn mark(&self, nr: usize) -> Option<&Mark> {
        self.0.as_slice().get(nr).map(|spot| &spot.mark)
    }
}

/// All runs of a window.
pub(crate) struct Runs {
    runs: Few<Run>,
    spans: Few<Span>,
}

impl Runs {
    /// Makes an empty list, without room for more than one. To be made where it stays.
    #[inline(always)]
    pub(crate) fn new() -> Self {
        Self {
            runs: Few::new(),
            spans: Few::new(),
        }
    }

    /// Returns whether they read what was read at these spots, and nothing else. Any context.
    pub(crate) fn repeat(&self, spots: &Spots) -> bool {
        let new = self.runs.as_slice().iter().map(|run| run.len);
        let old = spots.0.as_slice().iter().map(|spot| spot.len);
        !self.leave(spots) && new.fold(0, usize::wrapping_add) == old.fold(0, usize::wrapping_add)
    }

    /// Returns whether any of them is at none of these spots. Any context.
    pub(crate) fn leave(&self, spots: &Spots) -> bool {
        let mut runs = self.runs.as_slice().iter();
        runs.any(|run| spots.from(run.id, run.physical).is_none())
    }

    /// Empties the list, and makes room for what a window fetches, if each fetch is cut `cuts` times
    /// more often than is usual.
    ///
    /// That is 0, unless there was no room: chunks may begin and end anywhere.
    pub(crate) fn reset(&mut self, fetches: &Fetches, cuts: u64, gfp: Flags) -> Result<(), Stop> {
        let spans = fetches.list().iter().fold(0u64, |sum, fetch| {
            // CAST: Widening.
            let usual = stripe::usual_places(fetch.logical, fetch.len as u64);
            // CAST: Widening. No place is shorter than a block, nor a block than 4 KiB.
            let blocks = (fetch.len / SZ_4K) as u64;
            let most = usual.saturating_add(cuts.min(blocks));
            // A long one may be cut once more for each share.
            let most = match mirror::share(fetch.len, u32::MAX) {
                Some(_) => most.saturating_mul(2),
                None => most,
            };
            sum.saturating_add(most)
        });
        let spans = usize::try_from(spans).map_err(|_| Reason::Mapping)?;
        *self = Self::with_room(spans, gfp)?;
        Ok(())
    }

    /// Makes an empty list with room for `count` runs of one span.
    pub(crate) fn with_room(count: usize, gfp: Flags) -> Result<Self, Stop> {
        Ok(Self {
            runs: Few::with_room(count, gfp)?,
            spans: Few::with_room(count, gfp)?,
        })
    }

    /// Returns how many there are.
    pub(crate) fn len(&self) -> usize {
        self.runs.as_slice().len()
    }

    /// Returns all of them.
    pub(crate) fn as_slice(&self) -> &[Run] {
        self.runs.as_slice()
    }

    /// Returns the run that reads what begins at this place in memory, and its number.
    pub(crate) fn reading(&self, memory: Memory) -> Option<(usize, &Run)> {
        let mut runs = self.runs.as_slice().iter().enumerate();
        runs.find(|(_, run)| {
            let mut spans = Spans(self.spans.as_slice()).of(run);
            spans.any(|span| span.memory.reaches(span.len, memory))
        })
    }

    /// Returns whether there are none.
    pub(crate) fn is_empty(&self) -> bool {
        self.runs.as_slice().is_empty()
    }

    /// Returns the runs, to be taken charges from.
    pub(crate) fn as_mut_slice(&mut self) -> (&mut [Run], Spans<'_>) {
        (self.runs.as_mut_slice(), Spans(self.spans.as_slice()))
    }

    /// Adds memory to run number `nr`, for what follows it on the device. `NoRoom` if the list is full.
    /// Does not sleep.
    pub(crate) fn extend(&mut self, nr: usize, memory: Memory, len: usize) -> Result<(), Stop> {
        let new = self.spans.as_slice().len();
        let run = self.runs.as_mut_slice().get_mut(nr);
        let run = run.ok_or(Reason::Mapping)?;
        run.len = run.len.saturating_add(len);
        run.charge.grow(len);
        let last = self.spans.as_mut_slice().get_mut(run.last);
        let last = last.ok_or(Reason::Mapping)?;
        if last.memory.forward(last.len) == memory {
            last.len = last.len.saturating_add(len);
            return Ok(());
        }
        last.next = Some(new);
        run.last = new;
        let next = None;
        let pushed = self.spans.push_within(Span { memory, len, next }, FEW);
        pushed.map_err(|_| Stop::NoRoom)
    }

    /// Adds a run of one span, of what is at a logical address, and of the copy of this number, counted
    /// from 1. `Absent` if the device is not there, `NoRoom` if the list is full. Does not sleep.
    pub(crate) fn push(
        &mut self,
        stripe: &Stripe<'_>,
        (logical, copy): (u64, u32),
        memory: Memory,
        len: usize,
        why: Why,
    ) -> Result<(), Stop> {
        let account = stripe.device.account().ok_or(Stop::Absent)?;
        let device = stripe.device.open().ok_or(Stop::Absent)?;
        let span = self.spans.as_slice().len();
        let pushed = self.spans.push_within(
            Span {
                memory,
                len,
                next: None,
            },
            FEW,
        );
        pushed.map_err(|_| Stop::NoRoom)?;
        let pushed = self.runs.push_within(
            Run {
                device,
                charge: account.charge(len, why),
                physical: stripe.physical,
                len,
                id: stripe.device.id(),
                logical,
                copy,
                first: span,
                last: span,
            },
            FEW,
        );
        pushed.map_err(|_| Stop::NoRoom)
    }
}

/// The spans of all runs.
#[derive(Clone, Copy)]
pub(crate) struct Spans<'r>(&'r [Span]);

impl<'r> Spans<'r> {
    /// Returns the span of a run, if there is only one.
    pub(crate) fn only(self, run: &Run) -> Option<&'r Span> {
        self.0.get(run.first).filter(|span| span.next.is_none())
    }

    /// Returns those of a run, in the order they are in on the device.
    pub(crate) fn of(self, run: &Run) -> impl Iterator<Item = &'r Span> + Clone {
        let first = self.0.get(run.first);
        core::iter::successors(first, move |span| self.0.get(span.next?))
    }
}
