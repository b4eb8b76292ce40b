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
    bounce_queue::{
        Held,
        State,
        Waiter,
        GONE,
        GRANTED, //
    },
    error::Stop,
    fair_share::Lane,
    safe::{
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
    list::ListArc,
    new_spinlock,
    prelude::*,
    sync::{
        atomic::ordering::Relaxed,
        Arc,
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

/// A read that goes on when it has got memory.
pub(crate) trait Resume: Send {
    /// Lets it go on. Task context, must not sleep.
    fn resume(self: KBox<Self>, reservation: Reservation);
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
            credit: Credit::None,
            held: Held {
                lane: waiter.lane,
                place: waiter.place.load(Relaxed),
                bytes: waiter.bytes,
                is_overdrawn: false,
            },
            spent: 0,
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
        let waiter = ListArc::pin_init(Waiter::new(owner, bytes, by_worker), GFP_KERNEL);
        Ok(Self(waiter.map_err(Stop::from_mapping)?))
    }
}

/// Bytes of a budget, given back when this is dropped.
pub(crate) struct Reservation {
    budget: Arc<Budget>,
    owner: Owner,
    credit: Credit,
    held: Held,
    /// How many bytes of it are in use.
    spent: usize,
    /// Whether it is that of a read that was parked.
    is_resumed: bool,
}

impl Reservation {
    /// Makes a reservation of nothing. Any context.
    pub(crate) fn empty(budget: Arc<Budget>, owner: Owner, credit: Credit) -> Self {
        Self {
            budget,
            owner,
            credit,
            held: Held {
                lane: Lane::Small,
                place: 0,
                bytes: 0,
                is_overdrawn: false,
            },
            spent: 0,
            is_resumed: false,
        }
    }

    /// Spends some, taking more if need be, and returns whether there was enough. Task context.
    pub(crate) fn spend(&mut self, bytes: usize) -> bool {
        let spent = self.spent.saturating_add(bytes);
        if let Some(more) = spent.checked_sub(self.held.bytes).filter(|more| *more > 0) {
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
        let lane = match self.held.lane {
            Lane::Small => Lane::of(all),
            Lane::Large => Lane::Large,
        };
        let mut state = self.budget.state.lock();
        let place = match self.held.bytes {
            0 => state.place_of(self.owner),
            _ => self.held.place,
        };
        state.give(&self.held);
        let admitted = state.take(limit, lane, place, all);
        let overdrawn = state.ledger.overdrawn().saturating_add(all);
        // What is read again is little, unless a device fails.
        let again = self.credit == Credit::Again && overdrawn <= limit;
        let taken = admitted || again || owner::must_not_wait();
        match (taken, admitted) {
            (true, true) => {}
            (true, false) => state.ledger.overdraw(all),
            (false, _) => state.take_back(&self.held),
        }
        drop(state);
        if taken {
            self.held = Held {
                lane,
                place,
                bytes: all,
                is_overdrawn: !admitted,
            };
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
        if self.held.bytes == 0 {
            return;
        }
        let mut state = self.budget.state.lock();
        state.give(&self.held);
        if self.is_resumed {
            state.count_resumed(self.held.place, |resumed| resumed.saturating_sub(1));
        }
        let wanted = state.has_waiting();
        drop(state);
        stats::sub_bounce_memory(self.held.bytes);
        if wanted {
            self.budget.serve();
        }
    }
}
