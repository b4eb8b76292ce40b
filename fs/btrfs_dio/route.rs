// SPDX-License-Identifier: GPL-2.0

//! From what a window fetches to [`run`](crate::run)s: where on devices it is, and which copy of it
//! is read.

use crate::{
    attempt::Attempt,
    error::{
        Reason,
        Stop, //
    },
    fetch::{
        Fetch,
        Fetches,
        Memory, //
    },
    mirror::{
        self,
        Candidate,
        UNKNOWN, //
    },
    run::{
        Run,
        Runs, //
    },
    safe::{
        block::account::{
            Account,
            Why, //
        },
        btrfs::{
            chunk::{
                ChunkMap,
                Profile,
                Shape,
                Stripe, //
            },
            device::DeviceHold,
            glance::Watch,
        },
        params::{
            self,
            ReadPolicy, //
        },
    },
    stripe::{
        self,
        Place, //
    },
};

/// How many runs are looked at for one that what comes next continues.
const RECENT: usize = 32;

/// Finds the runs of what a window fetches, with a hold on the devices. They are the right ones if
/// the extents are current afterwards. Does not sleep: `NoRoom` if `runs`, which is empty, has not room
/// for them.
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
        runs,
    };
    // The chunk that was used last.
    let mut chunk = None;
    for fetch in fetches.list() {
        finder.fetch(fetch, &mut chunk)?;
    }
    Ok(())
}

/// Finds runs.
struct Finder<'h, 'r> {
    watch: &'h Watch,
    hold: &'h DeviceHold<'h>,
    attempt: &'h Attempt,
    policy: ReadPolicy,
    runs: &'r mut Runs,
}

impl<'h> Finder<'h, '_> {
    /// Adds what a fetch takes; it may be of the same chunk as the one before.
    fn fetch(
        &mut self,
        fetch: &Fetch,
        chunk: &mut Option<(ChunkMap<'h>, Shape)>,
    ) -> Result<(), Stop> {
        let mut done = 0usize;
        while done < fetch.len {
            // CAST: Widening.
            let address = fetch
                .logical
                .checked_add(done as u64)
                .ok_or(Reason::Mapping)?;
            let left = fetch.len.saturating_sub(done);
            if chunk
                .as_ref()
                .is_some_and(|(_, shape)| !shape.contains(address))
            {
                *chunk = None;
            }
            let (map, shape) = match &mut *chunk {
                Some(known) => &*known,
                none => {
                    let map = ChunkMap::get(self.watch, self.hold, address);
                    let map = map.map_err(Stop::from_mapping)?;
                    let shape = map.shape();
                    none.insert((map, shape))
                }
            };
            // CAST: Widening, and back: at most `left`.
            let place = stripe::place(shape, address, left as u64)?;
            let share = match place.copies {
                0 | 1 => None,
                _ => mirror::share(fetch.len, sharers(shape)),
            };
            let memory = fetch.memory.forward(done);
            let len = self.place(map, &place, address, memory, share)?;
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
            return self.push(map, (place, address), n, memory, all.min(len), Why::Again);
        }
        let share = share.filter(|_| self.policy == ReadPolicy::Spread);
        if let Some(nr) = self.continued(map, place) {
            let run_len = self.runs.as_slice().get(nr).map_or(0, |run| run.len);
            let room = match share {
                Some(share) if self.idle(map, place) => share.saturating_sub(run_len),
                _ => all,
            };
            if room > 0 {
                // What is in one stripe stays together: it is short.
                let striped = map.shape().profile == Profile::Raid10;
                let len = if striped { all } else { all.min(room) };
                self.runs.extend(nr, memory, len)?;
                let run = self.runs.as_slice().get(nr);
                return self.fits(run, memory).then_some(len).ok_or(Stop::Misfit);
            }
        }
        let (n, why) = self.choose(map, place, address);
        let len = match share {
            Some(share) if self.idle(map, place) => all.min(share),
            _ => all,
        };
        self.push(map, (place, address), n, memory, len, why)
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
        // CAST: At most the length of a stripe.
        let len = place.len.min(stripe::rest(&map.shape(), address)) as usize;
        // What was read from one copy only.
        let again = self.again(map, place).filter(|(n, _)| {
            // It may have gone meanwhile.
            self.candidate(map, place, *n) != Candidate::Missing
        });
        let (n, why, len) = match again {
            Some((n, most)) => (n, Why::Again, len.min(most)),
            None => {
                let (n, why) = self.choose(map, place, address);
                (n, why, len)
            }
        };
        match self.push(map, (place, address), n, memory, len, why) {
            Err(Stop::Absent) => Ok(len),
            pushed => pushed,
        }
    }

    /// Adds a run of copy number `n`, and returns its length.
    fn push(
        &mut self,
        map: &ChunkMap<'h>,
        (place, address): (&Place, u64),
        n: u32,
        memory: Memory,
        len: usize,
        why: Why,
    ) -> Result<usize, Stop> {
        let stripe = nth(map, place, n).ok_or(Reason::Mapping)?;
        let copy = n.saturating_add(1);
        self.runs.push(&stripe, (address, copy), memory, len, why)?;
        let last = self.runs.as_slice().last();
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
        if place.copies <= 1 || before.is_empty() {
            return None;
        }
        (0..place.copies).find_map(|n| {
            let stripe = nth(map, place, n)?;
            Some((n, before.from(stripe.device.id(), stripe.physical)?))
        })
    }

    /// Returns the number of the run that ends where, on a device, a copy of the place begins.
    fn continued(&self, map: &ChunkMap<'h>, place: &Place) -> Option<usize> {
        let runs = self.runs.as_slice();
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
            ReadPolicy::Spread => {
                let account = stripe.device.account();
                account.and_then(Account::in_flight).unwrap_or(UNKNOWN)
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
