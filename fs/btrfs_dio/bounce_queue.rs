// SPDX-License-Identifier: GPL-2.0

//! Requests for bounce memory that wait, in their order: the state of a budget, under its lock.
//!
//! Requests of one owner are served in the order in which they came; those of an owner that holds
//! nothing are not overtaken by any other in their lane.

use crate::{
    budget::Resume,
    fair_share::{
        place,
        Lane,
        Ledger,
        LANES,
        OWNERS, //
    },
    safe::{
        bell::Bell,
        owner::Owner, //
    },
};
use kernel::{
    list::{
        impl_list_arc_safe,
        impl_list_item,
        List,
        ListArc,
        ListLinks, //
    },
    new_spinlock,
    prelude::*,
    sync::{
        atomic::{
            ordering::Relaxed,
            Atomic, //
        },
        ArcBorrow,
        SpinLock, //
    },
};

/// Memory that a reservation holds.
pub(crate) struct Held {
    pub(crate) lane: Lane,
    /// The place of the owner, as long as there are any bytes.
    pub(crate) place: usize,
    pub(crate) bytes: usize,
    /// Whether it is beyond the limit, and nobody's share.
    pub(crate) is_overdrawn: bool,
}

/// The state of a budget, under its lock.
pub(crate) struct State {
    pub(crate) ledger: Ledger,
    /// Requests that wait, of each owner in each lane, in the order in which they came.
    queues: [[List<Waiter>; OWNERS]; LANES],
    /// How many requests wait in each lane.
    waiting: [usize; LANES],
    /// Number of the next request that waits.
    next: u64,
    /// The owner that each place was given to last.
    owners: [u64; OWNERS],
    /// How many reads of each owner a worker serves that have been parked.
    resumed: [usize; OWNERS],
}

/// A request that waits.
#[pin_data]
pub(crate) struct Waiter {
    #[pin]
    links: ListLinks,
    pub(crate) owner: Owner,
    pub(crate) lane: Lane,
    pub(crate) bytes: usize,
    /// Whether a worker goes on with it.
    pub(crate) by_worker: bool,
    /// The place of its owner, while it waits. Under the lock of the budget.
    pub(crate) place: Atomic<usize>,
    /// Its number in the order of arrival, under the lock of the budget.
    number: Atomic<u64>,
    /// One of the states below. Under the lock of the budget.
    pub(crate) state: Atomic<u32>,
    /// Rung when the memory is there, for a task that waits.
    #[pin]
    pub(crate) granted: Bell,
    /// What goes on when the memory is there, if no task waits.
    #[pin]
    pub(crate) parked: SpinLock<Option<KBox<dyn Resume>>>,
}

/// How many reads of one owner that were parked are served at a time: a worker is busy with each, for as
/// long as the device takes.
const MOST_RESUMED: usize = 16;

/// It waits.
pub(crate) const WAITING: u32 = 0;
/// Its memory has been taken for it.
pub(crate) const GRANTED: u32 = 1;
/// The task does not wait any more.
pub(crate) const GONE: u32 = 2;

impl_list_arc_safe! {
    impl ListArcSafe<0> for Waiter { untracked; }
}
impl_list_item! {
    impl ListItem<0> for Waiter { using ListLinks { self.links }; }
}

impl State {
    pub(crate) const fn new() -> Self {
        Self {
            ledger: Ledger::new(),
            queues: [const { [const { List::new() }; OWNERS] }; LANES],
            waiting: [0; LANES],
            next: 0,
            owners: [0; OWNERS],
            resumed: [0; OWNERS],
        }
    }

    /// Returns whether the owner at a place holds memory or waits for some.
    fn is_used(&self, place: usize) -> bool {
        let waits = |lane: &[List<Waiter>; OWNERS]| lane.get(place).is_some_and(|q| !q.is_empty());
        self.ledger.holds(place) || self.resumed(place) > 0 || self.queues.iter().any(waits)
    }

    /// Returns the place of an owner: its own, as long as there are not too many owners.
    pub(crate) fn place_of(&mut self, owner: Owner) -> usize {
        let first = place(owner.0);
        let is_there = |place: usize| self.owners.get(place) == Some(&owner.0);
        if is_there(first) {
            return first;
        }
        let places = || (0..OWNERS).map(|n| first.wrapping_add(n) % OWNERS);
        if let Some(place) = places().find(|place| is_there(*place) && self.is_used(*place)) {
            return place;
        }
        let free = places().find(|place| !self.is_used(*place));
        if let Some((place, slot)) = free.and_then(|p| Some((p, self.owners.get_mut(p)?))) {
            *slot = owner.0;
            return place;
        }
        first
    }

    /// Returns the queue of an owner.
    fn queue(&mut self, lane: Lane, place: usize) -> Option<&mut List<Waiter>> {
        self.queues.get_mut(lane.index())?.get_mut(place)
    }

    /// Returns how many requests wait in a lane.
    fn waiting(&self, lane: Lane) -> usize {
        self.waiting.get(lane.index()).copied().unwrap_or(0)
    }

    /// Returns the first request of each owner that waits in a lane.
    fn heads(&self, lane: Lane) -> impl Iterator<Item = ArcBorrow<'_, Waiter>> {
        let queues = self.queues.get(lane.index()).map_or(&[][..], |q| &q[..]);
        queues.iter().filter_map(|queue| queue.iter().next())
    }

    /// Returns whether a request that comes now may be served before those that wait.
    fn may_overtake(&self, lane: Lane, place: usize) -> bool {
        self.waiting(lane) == 0
            || self.heads(lane).all(|head| {
                // Of the others only those wait for themselves that hold something.
                let other = head.place.load(Relaxed);
                other != place && self.ledger.held(lane, other) > 0
            })
    }

    /// Returns whether a long request waits for what others hold.
    fn is_long_one_kept_waiting(&self) -> bool {
        let lane = Lane::Large;
        let mut heads = self.heads(lane);
        self.waiting(lane) > 0
            && heads.any(|head| self.ledger.held(lane, head.place.load(Relaxed)) == 0)
    }

    /// Returns whether an owner may have so many bytes more.
    fn admits(&self, limit: usize, lane: Lane, place: usize, bytes: usize) -> bool {
        let reserved = lane == Lane::Small && self.is_long_one_kept_waiting();
        self.ledger.admits(limit, lane, place, bytes, reserved)
    }

    /// Takes memory for a request that comes now, if there is some for it.
    pub(crate) fn take(&mut self, limit: usize, lane: Lane, place: usize, bytes: usize) -> bool {
        let admitted = self.may_overtake(lane, place) && self.admits(limit, lane, place, bytes);
        if admitted {
            self.ledger.take(lane, place, bytes);
        }
        admitted
    }

    /// Notes that memory is given back.
    pub(crate) fn give(&mut self, held: &Held) {
        match held.is_overdrawn {
            true => self.ledger.repay(held.bytes),
            false => self.ledger.give(held.lane, held.place, held.bytes),
        }
    }

    /// Takes again what was given back just before.
    pub(crate) fn take_back(&mut self, held: &Held) {
        match held.is_overdrawn {
            true => self.ledger.overdraw(held.bytes),
            false => self.ledger.take(held.lane, held.place, held.bytes),
        }
    }

    /// Adds a request to those that wait.
    pub(crate) fn push(&mut self, waiter: ListArc<Waiter>) {
        let (lane, place) = (waiter.lane, self.place_of(waiter.owner));
        waiter.place.store(place, Relaxed);
        waiter.number.store(self.next, Relaxed);
        self.next = self.next.wrapping_add(1);
        if let Some(waiting) = self.waiting.get_mut(lane.index()) {
            *waiting = waiting.saturating_add(1);
        }
        if let Some(queue) = self.queue(lane, place) {
            queue.push_back(waiter);
        }
    }

    /// Takes the first request of an owner out.
    fn pop(&mut self, lane: Lane, place: usize) -> Option<ListArc<Waiter>> {
        let waiter = self.queue(lane, place)?.pop_front()?;
        if let Some(waiting) = self.waiting.get_mut(lane.index()) {
            *waiting = waiting.saturating_sub(1);
        }
        Some(waiter)
    }

    /// Returns how many reads of an owner a worker serves that have been parked.
    fn resumed(&self, place: usize) -> usize {
        self.resumed.get(place).copied().unwrap_or(0)
    }

    pub(crate) fn count_resumed(&mut self, place: usize, count: impl FnOnce(usize) -> usize) {
        if let Some(resumed) = self.resumed.get_mut(place) {
            *resumed = count(*resumed);
        }
    }

    /// Takes the next request out that can have its memory, which is taken for it.
    pub(crate) fn grant(&mut self, limit: usize) -> Option<ListArc<Waiter>> {
        Lane::ALL
            .into_iter()
            .find_map(|lane| self.grant_in(lane, limit))
    }

    /// As [`Self::grant`], in one lane.
    fn grant_in(&mut self, lane: Lane, limit: usize) -> Option<ListArc<Waiter>> {
        let mut from = 0u64;
        while self.waiting(lane) > 0 {
            let later = self
                .heads(lane)
                .map(|head| (head.number.load(Relaxed), head));
            let next = later.filter(|(number, _)| *number >= from);
            let (number, head) = next.min_by_key(|(number, _)| *number)?;
            let (place, bytes) = (head.place.load(Relaxed), head.bytes);
            let busy = head.by_worker && self.resumed(place) >= MOST_RESUMED;
            if head.state.load(Relaxed) == GONE {
                drop(self.pop(lane, place));
                continue;
            }
            if !busy && self.admits(limit, lane, place, bytes) {
                let waiter = self.pop(lane, place)?;
                self.ledger.take(lane, place, bytes);
                if waiter.by_worker {
                    self.count_resumed(place, |resumed| resumed.saturating_add(1));
                }
                waiter.state.store(GRANTED, Relaxed);
                return Some(waiter);
            }
            if !busy && self.ledger.held(lane, place) == 0 {
                // It waits for what others hold, so they do not get more before it.
                return None;
            }
            from = number.wrapping_add(1);
        }
        None
    }

    /// Returns whether any request waits.
    pub(crate) fn has_waiting(&self) -> bool {
        self.waiting != [0; LANES]
    }
}

impl Waiter {
    /// Makes a request for so many bytes, for a worker to go on with, or for a task that waits.
    pub(crate) fn new(owner: Owner, bytes: usize, by_worker: bool) -> impl PinInit<Self, Error> {
        try_pin_init!(Self {
            links <- ListLinks::new(),
            owner,
            lane: Lane::of(bytes),
            bytes,
            by_worker,
            place: Atomic::new(0),
            number: Atomic::new(0),
            state: Atomic::new(WAITING),
            granted <- Bell::new(),
            parked <- new_spinlock!(None),
        }? Error)
    }
}
