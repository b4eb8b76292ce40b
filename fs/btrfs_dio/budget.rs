// SPDX-License-Identifier: GPL-2.0

//! How much bounce memory the reads of a filesystem may have in flight.
//!
//! Memory is taken while a window is planned. If there is none, the plan is given up with
//! [`Stop::Budget`], all locks and counts of the inode are released, and only then the reader waits:
//! a task in [`Budget::wait`], a read whose caller does not wait in [`Budget::enqueue`], without a task.
//! It holds the pages of the caller then, and nothing that others need to give their memory back.
//!
//! Each filesystem has a budget of its own, [`fair_share`](crate::fair_share) says how it is divided.
//! Requests of one owner are served in the order in which they came; those of an owner that holds
//! nothing are not overtaken by any other in their lane.

use crate::{
    error::Stop,
    fair_share::{
        place,
        Lane,
        Ledger,
        LANES,
        OWNERS, //
    },
    safe::{
        bell::Bell,
        btrfs::fs::FsId,
        memalloc,
        owner::{
            self,
            Owner, //
        },
        params, //
    },
    stats::{
        self,
        Counter, //
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
        Arc,
        ArcBorrow,
        SpinLock, //
    },
};

/// Most bytes that a window may have of it; a single extent never needs as much.
pub(crate) const WINDOW: usize = 2 << 20;
/// Least and most bytes of a budget whose limit is not set.
const DEFAULT: [usize; 2] = [16 << 20, 1 << 30];
/// Least bytes of a budget whose limit is set: several windows.
const LEAST: usize = 8 << 20;

/// Returns the limit of a budget in bytes, if `kib` is the value of the parameter, on a machine with
/// so many bytes of memory.
pub(crate) fn limit(kib: u32, memory: usize) -> usize {
    match usize::try_from(kib) {
        Ok(0) | Err(_) => (memory / 64).clamp(DEFAULT[0], DEFAULT[1]),
        Ok(kib) => kib.saturating_mul(1 << 10).max(LEAST),
    }
}

/// How strictly the limit of a budget applies to a reader.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Credit {
    /// It waits when its share is used up.
    None,
    /// It reads again data that did not arrive as it must: as much as the limit once more, with all others
    /// that do.
    Again,
}

/// The budgets of all filesystems.
#[pin_data]
pub(crate) struct Budgets {
    #[pin]
    all: SpinLock<KVec<(FsId, Arc<Budget>)>>,
}

impl Budgets {
    /// Makes an empty list.
    pub(crate) fn new() -> impl PinInit<Self> {
        pin_init!(Self {
            all <- new_spinlock!(KVec::new()),
        })
    }

    /// Returns the budget of a filesystem. Task context, does not sleep.
    pub(crate) fn of(&self, fs: FsId) -> Result<Arc<Budget>, Stop> {
        if let Some(budget) = find(&self.all.lock(), fs) {
            return Ok(budget);
        }
        let new = Budget::new().map_err(Stop::from_mapping)?;
        let mut room = KVec::new();
        let mut all = self.all.lock();
        if let Some(budget) = find(&all, fs) {
            return Ok(budget);
        }
        // Few filesystems, once for each.
        room.reserve(all.len().saturating_add(1), GFP_NOWAIT)?;
        for budget in all.drain_all() {
            // There is room.
            let _ = room.push_within_capacity(budget);
        }
        let _ = room.push_within_capacity((fs, new.clone()));
        *all = room;
        Ok(new)
    }

    /// Forgets the budget of a filesystem that has been unmounted. Task context.
    pub(crate) fn forget(&self, fs: FsId) {
        self.all.lock().retain(|(of, _)| *of != fs);
    }
}

/// Returns the budget of a filesystem, if there is one.
fn find(all: &[(FsId, Arc<Budget>)], fs: FsId) -> Option<Arc<Budget>> {
    let mut all = all.iter();
    all.find(|(of, _)| *of == fs)
        .map(|(_, budget)| budget.clone())
}

/// The bounce memory of a filesystem.
#[pin_data]
pub(crate) struct Budget {
    #[pin]
    state: SpinLock<State>,
    /// Bytes of memory that the machine has.
    memory: usize,
}

/// The state of a budget, under its lock.
struct State {
    ledger: Ledger,
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
struct Waiter {
    #[pin]
    links: ListLinks,
    owner: Owner,
    lane: Lane,
    bytes: usize,
    /// Whether a worker goes on with it.
    by_worker: bool,
    /// The place of its owner, while it waits. Under the lock of the budget.
    place: Atomic<usize>,
    /// Its number in the order of arrival, under the lock of the budget.
    number: Atomic<u64>,
    /// One of the states below. Under the lock of the budget.
    state: Atomic<u32>,
    /// Rung when the memory is there, for a task that waits.
    #[pin]
    granted: Bell,
    /// What goes on when the memory is there, if no task waits.
    #[pin]
    parked: SpinLock<Option<KBox<dyn Resume>>>,
}

/// How many reads of one owner that were parked are served at a time: a worker is busy with each, for as
/// long as the device takes.
const MOST_RESUMED: usize = 16;

/// It waits.
const WAITING: u32 = 0;
/// Its memory has been taken for it.
const GRANTED: u32 = 1;
/// The task does not wait any more.
const GONE: u32 = 2;

impl_list_arc_safe! {
    impl ListArcSafe<0> for Waiter { untracked; }
}
impl_list_item! {
    impl ListItem<0> for Waiter { using ListLinks { self.links }; }
}

/// A read that goes on when it has got memory.
pub(crate) trait Resume: Send {
    /// Lets it go on. Task context, must not sleep.
    fn resume(self: KBox<Self>, reservation: Reservation);
}

impl State {
    const fn new() -> Self {
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
    fn place_of(&mut self, owner: Owner) -> usize {
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
    fn take(&mut self, limit: usize, lane: Lane, place: usize, bytes: usize) -> bool {
        let admitted = self.may_overtake(lane, place) && self.admits(limit, lane, place, bytes);
        if admitted {
            self.ledger.take(lane, place, bytes);
        }
        admitted
    }

    /// Notes that what is taken for a reservation is given back.
    fn give(&mut self, reservation: &Reservation) {
        match reservation.is_overdrawn {
            true => self.ledger.repay(reservation.taken),
            false => {
                let Reservation { lane, place, .. } = *reservation;
                self.ledger.give(lane, place, reservation.taken);
            }
        }
    }

    /// Takes again what was given back for a reservation just before.
    fn take_back(&mut self, reservation: &Reservation) {
        match reservation.is_overdrawn {
            true => self.ledger.overdraw(reservation.taken),
            false => {
                let Reservation { lane, place, .. } = *reservation;
                self.ledger.take(lane, place, reservation.taken);
            }
        }
    }

    /// Adds a request to those that wait.
    fn push(&mut self, waiter: ListArc<Waiter>) {
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

    fn count_resumed(&mut self, place: usize, count: impl FnOnce(usize) -> usize) {
        if let Some(resumed) = self.resumed.get_mut(place) {
            *resumed = count(*resumed);
        }
    }

    /// Takes the next request out that can have its memory, which is taken for it.
    fn grant(&mut self, limit: usize) -> Option<ListArc<Waiter>> {
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
}

impl Budget {
    /// Makes a budget of which nothing is used. `ENOMEM`. Does not sleep.
    fn new() -> Result<Arc<Self>> {
        Arc::pin_init(
            pin_init!(Self {
                state <- new_spinlock!(State::new()),
                memory: memalloc::memory(),
            }),
            GFP_NOWAIT,
        )
    }

    /// Returns how many bytes there are.
    fn limit(&self) -> usize {
        limit(params::bounce_kib(), self.memory)
    }

    /// Waits for `bytes` bytes for an owner.
    ///
    /// Task context, sleeps; no lock or count of an inode held. `EINTR` if the task is killed.
    pub(crate) fn wait(self: &Arc<Self>, owner: Owner, bytes: usize) -> Result<Reservation, Stop> {
        let request = Request::of_task(owner, bytes)?;
        stats::count(Counter::BounceWaits);
        let waiter = request.0.clone_arc();
        self.add(request);
        if waiter.granted.wait_killable().is_err() && self.leave(&waiter) {
            return Err(Stop::Fail(EINTR));
        }
        Ok(self.granted(&waiter))
    }

    /// Gives a request up, and returns whether its memory has not been taken for it meanwhile.
    fn leave(self: &Arc<Self>, waiter: &Waiter) -> bool {
        let state = self.state.lock();
        if waiter.state.load(Relaxed) == GRANTED {
            return false;
        }
        waiter.state.store(GONE, Relaxed);
        drop(state);
        // Those behind it need not wait for it.
        self.serve();
        true
    }

    /// Has a read go on when it has got its memory, in the context of a task that gives some back.
    ///
    /// Task context, does not sleep. It may have gone on when this returns.
    pub(crate) fn enqueue(self: &Arc<Self>, request: Request, parked: KBox<dyn Resume>) {
        *request.0.parked.lock() = Some(parked);
        self.add(request);
    }

    /// Adds a request, and serves whichever can be.
    fn add(self: &Arc<Self>, request: Request) {
        self.state.lock().push(request.0);
        self.serve();
    }

    /// Serves the requests that can be, in their order.
    fn serve(self: &Arc<Self>) {
        loop {
            let Some(waiter) = self.state.lock().grant(self.limit()) else {
                return;
            };
            stats::add_bounce_memory(waiter.bytes);
            let parked = waiter.parked.lock().take();
            match parked {
                Some(parked) => parked.resume(self.granted(&waiter)),
                None => waiter.granted.ring(),
            }
        }
    }

    /// Returns the reservation of a request whose memory has been taken.
    fn granted(self: &Arc<Self>, waiter: &Waiter) -> Reservation {
        Reservation {
            budget: self.clone(),
            owner: waiter.owner,
            lane: waiter.lane,
            place: waiter.place.load(Relaxed),
            credit: Credit::None,
            taken: waiter.bytes,
            spent: 0,
            is_overdrawn: false,
            is_resumed: waiter.by_worker,
        }
    }
}

/// A request for memory, before it waits.
pub(crate) struct Request(ListArc<Waiter>);

impl Request {
    /// Makes a request of a task that waits. May sleep.
    fn of_task(owner: Owner, bytes: usize) -> Result<Self, Stop> {
        Self::new(owner, bytes, false)
    }

    /// Makes a request that a worker goes on with. May sleep.
    pub(crate) fn by_worker(owner: Owner, bytes: usize) -> Result<Self, Stop> {
        Self::new(owner, bytes, true)
    }

    fn new(owner: Owner, bytes: usize, by_worker: bool) -> Result<Self, Stop> {
        let waiter = ListArc::pin_init(
            try_pin_init!(Waiter {
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
            }? Error),
            GFP_KERNEL,
        );
        Ok(Self(waiter.map_err(Stop::from_mapping)?))
    }
}

/// Bytes of a budget, given back when this is dropped.
pub(crate) struct Reservation {
    budget: Arc<Budget>,
    owner: Owner,
    lane: Lane,
    /// That of the owner, as long as anything is taken.
    place: usize,
    credit: Credit,
    taken: usize,
    spent: usize,
    /// Whether what is taken is overdrawn.
    is_overdrawn: bool,
    /// Whether it is that of a read that was parked.
    is_resumed: bool,
}

impl Reservation {
    /// Makes a reservation of nothing. Any context.
    pub(crate) fn empty(budget: Arc<Budget>, owner: Owner, credit: Credit) -> Self {
        Self {
            budget,
            owner,
            lane: Lane::Small,
            place: 0,
            credit,
            taken: 0,
            spent: 0,
            is_overdrawn: false,
            is_resumed: false,
        }
    }

    /// Spends some, taking more if need be, and returns whether there was enough. Task context.
    pub(crate) fn spend(&mut self, bytes: usize) -> bool {
        let spent = self.spent.saturating_add(bytes);
        if let Some(more) = spent.checked_sub(self.taken).filter(|more| *more > 0) {
            if !self.take(spent, more) {
                return false;
            }
        }
        self.spent = spent;
        true
    }

    /// Takes `more` bytes, which makes `all`.
    fn take(&mut self, all: usize, more: usize) -> bool {
        let limit = self.budget.limit();
        // It competes with those that want as much.
        let lane = match self.lane {
            Lane::Small => Lane::of(all),
            Lane::Large => Lane::Large,
        };
        let mut state = self.budget.state.lock();
        let place = match self.taken {
            0 => state.place_of(self.owner),
            _ => self.place,
        };
        state.give(self);
        let admitted = state.take(limit, lane, place, all);
        let overdrawn = state.ledger.overdrawn().saturating_add(all);
        // What is read again is little, unless a device fails.
        let again = self.credit == Credit::Again && overdrawn <= limit;
        let taken = admitted || again || owner::must_not_wait();
        match (taken, admitted) {
            (true, true) => {}
            (true, false) => state.ledger.overdraw(all),
            (false, _) => state.take_back(self),
        }
        drop(state);
        if taken {
            (self.lane, self.place) = (lane, place);
            (self.taken, self.is_overdrawn) = (all, !admitted);
            stats::add_bounce_memory(more);
        }
        taken
    }

    /// Returns whether a window may spend that much more.
    pub(crate) fn allows(&self, bytes: usize) -> bool {
        self.spent.saturating_add(bytes) <= WINDOW
    }

    /// Returns how many bytes have been spent.
    pub(crate) fn spent(&self) -> usize {
        self.spent
    }

    /// Lets the bytes be spent again: what they were spent for has been freed.
    pub(crate) fn restart(&mut self) {
        self.spent = 0;
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        if self.taken == 0 {
            return;
        }
        let mut state = self.budget.state.lock();
        state.give(self);
        if self.is_resumed {
            state.count_resumed(self.place, |resumed| resumed.saturating_sub(1));
        }
        let wanted = state.waiting != [0; LANES];
        drop(state);
        stats::sub_bounce_memory(self.taken);
        if wanted {
            self.budget.serve();
        }
    }
}
