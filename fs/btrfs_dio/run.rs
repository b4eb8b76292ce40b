// SPDX-License-Identifier: GPL-2.0

//! From what a window fetches to runs: what is read of a device in one go.

use crate::{
    error::{
        Reason,
        Stop, //
    },
    fetch::{
        Fetch,
        Fetches,
        Memory, //
    },
    few::Few,
    mirror::{
        self,
        Candidate, //
    },
    safe::{
        block::account::{
            Account,
            Charge,
            Why, //
        },
        btrfs::{
            chunk::{
                ChunkMap,
                Profile,
                Shape,
                Stripe, //
            },
            device::{
                DeviceHold,
                OpenDevice, //
            },
            glance::Watch,
        },
        params::{
            self,
            ReadPolicy, //
        },
    },
    stripe::{
        self,
        Place,
        STRIPE_LEN, //
    },
    window::Attempt, //
};
use kernel::{
    alloc::Flags,
    prelude::*, //
};

/// How many runs are looked at for one that what comes next continues.
const RECENT: usize = 32;

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
    len: usize,
    /// What tells the device from others, under the hold.
    pub(crate) id: usize,
    /// Number of the copy it is of, or begins with, counted from 1.
    pub(crate) copy: u32,
    /// Numbers of its first and last span.
    first: usize,
    last: usize,
}

impl Run {
    /// Returns where it ends on the device.
    fn end(&self) -> Option<u64> {
        // CAST: Widening.
        self.physical.checked_add(self.len as u64)
    }
}

/// What was read of which devices: what it takes to read the same again. In bytes.
#[derive(Clone, Copy)]
struct Spot {
    id: usize,
    physical: u64,
    len: usize,
}

/// The places of a window on devices.
pub(crate) struct Spots(Few<Spot>);

impl Spots {
    /// Makes an empty list, for what may be read anywhere.
    pub(crate) fn new() -> Self {
        Self(Few::new())
    }

    /// Returns how much was read of a device, from a place on.
    fn from(&self, id: usize, physical: u64) -> Option<usize> {
        self.0.as_slice().iter().find_map(|spot| {
            let skipped = physical.checked_sub(spot.physical)?;
            let skipped = usize::try_from(skipped).ok()?;
            let left = spot.len.checked_sub(skipped)?;
            (spot.id == id && left > 0).then_some(left)
        })
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

    /// Empties the list, and makes room for what a window fetches.
    pub(crate) fn reset(&mut self, fetches: &Fetches, gfp: Flags) -> Result<(), Stop> {
        let spans = fetches.list().iter().fold(0u64, |sum, fetch| {
            // CAST: Widening.
            let last = fetch
                .logical
                .saturating_add(fetch.len as u64)
                .saturating_sub(1);
            let stripes = (last / STRIPE_LEN).saturating_sub(fetch.logical / STRIPE_LEN);
            // A long one may be cut once more for each share.
            let most = stripes.saturating_add(1);
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

    /// Returns the places of all runs; none, if there is no memory to note them in. Any context.
    pub(crate) fn spots(&self) -> Spots {
        let mut spots = Spots::new();
        for run in self.runs.as_slice() {
            let spot = Spot {
                id: run.id,
                physical: run.physical,
                len: run.len,
            };
            if spots.0.push(spot, GFP_NOWAIT).is_err() {
                return Spots::new();
            }
        }
        spots
    }

    /// Adds memory to run number `nr`, for what follows it on the device.
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
        self.spans.push(Span { memory, len, next }, GFP_NOWAIT)?;
        Ok(())
    }

    /// Adds a run of one span, of copy number `copy`, counted from 1. `Absent` if the device is not
    /// there.
    pub(crate) fn push(
        &mut self,
        stripe: &Stripe<'_>,
        copy: u32,
        memory: Memory,
        len: usize,
        why: Why,
    ) -> Result<(), Stop> {
        let account = stripe.device.account().ok_or(Stop::Absent)?;
        let device = stripe.device.open().ok_or(Stop::Absent)?;
        let span = self.spans.as_slice().len();
        self.spans.push(
            Span {
                memory,
                len,
                next: None,
            },
            GFP_NOWAIT,
        )?;
        self.runs.push(
            Run {
                device,
                charge: account.charge(len, why),
                physical: stripe.physical,
                len,
                id: stripe.device.id(),
                copy,
                first: span,
                last: span,
            },
            GFP_NOWAIT,
        )?;
        Ok(())
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

/// Finds the runs of what a window fetches, with a hold on the devices. They are the right ones if
/// the extents are current afterwards. Does not sleep: `runs`, which is empty, is to have room for
/// them.
pub(crate) fn find(
    fetches: &Fetches,
    watch: &Watch,
    hold: &DeviceHold<'_>,
    attempt: &Attempt,
    runs: &mut Runs,
) -> Result<(), Stop> {
    let mut finder = Finder {
        watch,
        hold,
        attempt,
        policy: params::read_policy(),
        chunk: None,
        runs,
    };
    for fetch in fetches.list() {
        finder.fetch(fetch)?;
    }
    Ok(())
}

/// Finds runs.
struct Finder<'h, 'r> {
    watch: &'h Watch,
    hold: &'h DeviceHold<'h>,
    attempt: &'h Attempt,
    policy: ReadPolicy,
    /// The chunk that was used last.
    chunk: Option<(ChunkMap<'h>, Shape)>,
    runs: &'r mut Runs,
}

impl<'h> Finder<'h, '_> {
    /// Adds what a fetch takes.
    fn fetch(&mut self, fetch: &Fetch) -> Result<(), Stop> {
        let mut done = 0usize;
        while done < fetch.len {
            // CAST: Widening.
            let address = fetch
                .logical
                .checked_add(done as u64)
                .ok_or(Reason::Mapping)?;
            let left = fetch.len.saturating_sub(done);
            let (map, shape) = match self.chunk.take().filter(|(_, s)| s.contains(address)) {
                Some(known) => known,
                None => {
                    let map = ChunkMap::get(self.watch, self.hold, address);
                    let map = map.map_err(Stop::from_mapping)?;
                    let shape = map.shape();
                    (map, shape)
                }
            };
            // CAST: Widening, and back: at most `left`.
            let place = stripe::place(&shape, address, left as u64)?;
            let share = mirror::share(fetch.len, sharers(&shape));
            let memory = fetch.memory.forward(done);
            let len = self.place(&map, &place, address, memory, share)?;
            self.chunk = Some((map, shape));
            done = done.saturating_add(len);
        }
        Ok(())
    }

    /// Adds a place, or the beginning of it, and returns how much of it. `share` is how much to read
    /// of each copy at least if all are idle, if it is worth while to read several.
    fn place(
        &mut self,
        map: &ChunkMap<'h>,
        place: &Place,
        address: u64,
        memory: Memory,
        share: Option<usize>,
    ) -> Result<usize, Stop> {
        if self.attempt.failed.is_some() {
            return self.alone(map, place, address, memory);
        }
        // CAST: As above.
        let all = place.len as usize;
        if let Some((n, len)) = self.again(map, place) {
            return self.push(map, place, n, memory, all.min(len), Why::Again);
        }
        let share = share.filter(|_| place.copies > 1 && self.policy == ReadPolicy::Spread);
        if let Some(nr) = self.continued(map, place) {
            let run_len = self.runs.runs.as_slice().get(nr).map_or(0, |run| run.len);
            let room = match share {
                Some(share) if self.idle(map, place) => share.saturating_sub(run_len),
                _ => all,
            };
            if room > 0 {
                let len = all.min(room);
                self.runs.extend(nr, memory, len)?;
                let run = self.runs.runs.as_slice().get(nr);
                return self.fits(run, memory).then_some(len).ok_or(Stop::Misfit);
            }
        }
        let (n, why) = self.choose(map, place, address);
        let len = match share {
            Some(share) if self.idle(map, place) => all.min(share),
            _ => all,
        };
        self.push(map, place, n, memory, len, why)
    }

    /// Adds a place, or the beginning of it that is in one stripe's length, as a run of its own, so
    /// that it is known what became of it; or not, if no device that is there has it. Returns how
    /// much of it.
    fn alone(
        &mut self,
        map: &ChunkMap<'h>,
        place: &Place,
        address: u64,
        memory: Memory,
    ) -> Result<usize, Stop> {
        let stripe = STRIPE_LEN.saturating_sub(address % STRIPE_LEN);
        // CAST: At most the length of a stripe.
        let len = place.len.min(stripe) as usize;
        let again = self.again(map, place).map(|(n, _)| (n, Why::Again));
        let (n, why) = again.unwrap_or_else(|| self.choose(map, place, address));
        match self.push(map, place, n, memory, len, why) {
            Err(Stop::Absent) => Ok(len),
            pushed => pushed,
        }
    }

    /// Adds a run of copy number `n`, and returns its length.
    fn push(
        &mut self,
        map: &ChunkMap<'h>,
        place: &Place,
        n: u32,
        memory: Memory,
        len: usize,
        why: Why,
    ) -> Result<usize, Stop> {
        let stripe = nth(map, place, n).ok_or(Reason::Mapping)?;
        let copy = n.saturating_add(1);
        self.runs.push(&stripe, copy, memory, len, why)?;
        let last = self.runs.runs.as_slice().last();
        self.fits(last, memory).then_some(len).ok_or(Stop::Misfit)
    }

    /// Returns whether the device of a run can write to memory.
    fn fits(&self, run: Option<&Run>, memory: Memory) -> bool {
        let mask = run.map_or(0, |run| run.device.memory_mask());
        matches!(memory, Memory::Private { .. }) || self.attempt.manner.alignment & mask == 0
    }

    /// Returns the number of the copy that the place was read of before, and how much of it, if it
    /// was.
    fn again(&self, map: &ChunkMap<'h>, place: &Place) -> Option<(u32, usize)> {
        let before = &self.attempt.spots;
        if place.copies <= 1 || before.0.as_slice().is_empty() {
            return None;
        }
        (0..place.copies).find_map(|n| {
            let stripe = nth(map, place, n)?;
            Some((n, before.from(stripe.device.id(), stripe.physical)?))
        })
    }

    /// Returns the number of the run that ends where, on a device, a copy of the place begins.
    fn continued(&self, map: &ChunkMap<'h>, place: &Place) -> Option<usize> {
        let runs = self.runs.runs.as_slice();
        if runs.is_empty() {
            return None;
        }
        // Who spreads may stay with any copy.
        let fixed = match self.policy {
            ReadPolicy::Fs => Some(self.by_pid(map, place)),
            ReadPolicy::Spread => None,
        };
        let copies = || (0..place.copies).filter(move |n| fixed.is_none_or(|fixed| fixed == *n));
        let mut recent = runs.iter().enumerate().rev().take(RECENT);
        recent.find_map(|(nr, run)| {
            let copy = copies().filter_map(|n| nth(map, place, n));
            let mut same = copy.filter(|stripe| {
                stripe.device.id() == run.id && Some(stripe.physical) == run.end()
            });
            same.next().map(|_| nr)
        })
    }

    /// Returns whether there is a copy on a device that has nothing to do.
    fn idle(&self, map: &ChunkMap<'h>, place: &Place) -> bool {
        (0..place.copies).any(|n| {
            let candidate = self.candidate(map, place, n);
            candidate == Candidate::Good { in_flight: 0 }
        })
    }

    /// Chooses the number of the copy to read.
    fn choose(&self, map: &ChunkMap<'h>, place: &Place, address: u64) -> (u32, Why) {
        if place.copies <= 1 {
            return (0, Why::Only);
        }
        match self.policy {
            ReadPolicy::Fs => (self.by_pid(map, place), Why::Policy),
            ReadPolicy::Spread => {
                mirror::spread(address, place.copies, |n| self.candidate(map, place, n))
            }
        }
    }

    /// Chooses the copy that the filesystem would read.
    fn by_pid(&self, map: &ChunkMap<'h>, place: &Place) -> u32 {
        let pid = self.attempt.manner.pid;
        mirror::by_pid(pid, place.copies, |n| self.candidate(map, place, n))
    }

    /// Returns what copy number `n` is like.
    fn candidate(&self, map: &ChunkMap<'h>, place: &Place, n: u32) -> Candidate {
        let Some(stripe) = nth(map, place, n) else {
            return Candidate::Missing;
        };
        if !stripe.device.is_present() {
            return Candidate::Missing;
        }
        if stripe.device.is_avoided(self.hold) {
            return Candidate::Avoided;
        }
        let in_flight = match self.policy {
            ReadPolicy::Fs => 0,
            // What is not known may be much.
            ReadPolicy::Spread => {
                let account = stripe.device.account();
                account.and_then(Account::in_flight).unwrap_or(u64::MAX)
            }
        };
        Candidate::Good { in_flight }
    }
}

/// Returns where copy number `n` of a place is.
fn nth<'h>(map: &ChunkMap<'h>, place: &Place, n: u32) -> Option<Stripe<'h>> {
    let stripe = map.stripe(place.first.checked_add(n)?)?;
    Some(Stripe {
        physical: stripe.physical.checked_add(place.offset)?,
        ..stripe
    })
}

/// Returns among how many devices a long read of a chunk can be divided.
fn sharers(shape: &Shape) -> u32 {
    match shape.profile {
        Profile::Raid1 | Profile::Raid10 => shape.stripes,
        _ => 1,
    }
}
