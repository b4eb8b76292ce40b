// SPDX-License-Identifier: GPL-2.0

//! Reads whose caller does not wait.
//!
//! They are planned and submitted by the task that issues them, as one window. A small one that is
//! read in place is verified and completed where its last bio ends, and so is a larger one of which
//! nothing is to be verified; any other, and what is not right with the first look, is brought to its
//! end by a worker. A worker that reads or allocates charges that to the task that issued the read.
//!
//! If there is no bounce memory for it, a read is parked: it has no lock and no count of the inode
//! then, and goes on from its beginning, in a worker, when the memory is there.
//!
//! # States
//!
//! | state      | who owns the read                | ends by                                    |
//! |------------|----------------------------------|--------------------------------------------|
//! | issued     | the task that issues it          | [`launch`], an answer at once, or parked   |
//! | parked     | the budget of the filesystem     | the memory is there                        |
//! | in flight  | the set of its bios              | the last bio                               |
//! | landed     | who ended the last bio           | data is right; or a worker is sent         |
//! | landed     | the worker, in [`Cargo::land`]   | data is right, or read again               |
//! | going on   | a worker, in [`Cargo::go_on`]    | data is right; parked; or read by btrfs    |
//! | completed  | nobody: told the caller, once    |                                            |
//!
//! [`launch`]: flight::launch

use crate::{
    attempt::{
        Attempt,
        Manner,
        Placement,
        SMALL, //
    },
    bio,
    budget::{
        self,
        Budget,
        Request,
        Reservation,
        Resume, //
    },
    completion::{
        self,
        Outcome, //
    },
    entry::{
        not_pinned,
        Entry, //
    },
    error::{
        Reason,
        Stop, //
    },
    plan::Plan,
    range::Range,
    resources::Resources,
    run::{
        Runs,
        Spots, //
    },
    safe::{
        block::flight::{
            self,
            Cargo,
            Parked,
            Ticket, //
        },
        btrfs::{
            extent_lock::Writers,
            fs::FsId, //
        },
        decode::MAX_EXTENT,
        drain::Drain,
        owner::{
            Owner,
            Requester, //
        },
        patience::Patience,
        read::{
            AsyncRead,
            DirectRead, //
        },
        task,
        trace, //
    },
    stats::{
        self,
        Counter, //
    },
    window,
};
use core::mem::MaybeUninit;
use kernel::{
    prelude::*,
    sizes::SZ_4K,
    sync::Arc, //
};

/// What is waited for where it is issued is read in one window: there is private memory for all of it,
/// even if each of its blocks, of which there are no smaller ones, is in a compressed extent of its own.
const _: () = assert!(SMALL / SZ_4K * MAX_EXTENT <= budget::WINDOW);

/// What becomes of a read that may complete later.
pub(crate) enum Issued {
    /// It has been served: this many bytes.
    Now(usize),
    /// It completes later.
    Later,
}

/// What is to be done once all bios have ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Then {
    /// To make of what has arrived what the caller gets.
    Finish,
    /// To read it again, since it has come to this.
    ReadAgain(Outcome),
    /// To lock the inode and to read on behind so many bytes.
    Continue(usize),
    /// To have btrfs read on behind so many bytes, as for somebody who waits.
    ReadOn(usize),
}

/// A read in flight.
struct InFlight {
    /// Not ours before it is detached, and once it is completed.
    read: AsyncRead,
    /// The task that issued it.
    requester: Requester,
    plan: Plan,
    /// What is to be read; the plan may cover less.
    range: Range,
    manner: Manner,
    placement: Placement,
    /// Where it is read.
    spots: Spots,
    then: Then,
    /// Bounce memory that it has waited for.
    reserved: Option<Reservation>,
    /// Where it is about to wait for some.
    place: Option<Place>,
}

/// A place in the queue for bounce memory, for a read that no task waits for.
struct Place {
    budget: Arc<Budget>,
    request: Request,
    room: KBox<MaybeUninit<Parked<InFlight>>>,
}

impl Place {
    /// Allocates it, for `bytes` bytes of a filesystem. May sleep.
    fn new(resources: &Resources, fs: FsId, owner: Owner, bytes: usize) -> Result<Self, Stop> {
        Ok(Self {
            budget: resources.budgets.of(fs)?,
            request: Request::by_worker(owner, bytes)?,
            room: KBox::new_uninit(GFP_KERNEL)?,
        })
    }

    /// Has a read wait. It may have gone on when this returns.
    fn park(self, parked: Parked<InFlight>) {
        self.budget
            .enqueue(self.request, KBox::write(self.room, parked));
    }
}

impl Resume for Parked<InFlight> {
    fn resume(self: KBox<Self>, reservation: Reservation) {
        let mut parked = KBox::into_inner(self);
        parked.cargo().reserved = Some(reservation);
        parked.resume();
    }
}

/// Issues a read of one window, of which `likely` bytes are there, into the first `want` bytes of its
/// buffer.
///
/// `None` if the file has grown since it was looked at, so that there is more to be read: the read is
/// as it was.
///
/// Task context; sleeps, unless the manner forbids it; no lock of the filesystem held.
pub(crate) fn issue(
    resources: &Drain<Resources>,
    read: &mut DirectRead<'_>,
    likely: usize,
    want: usize,
    manner: &Manner,
) -> Result<Option<Issued>, Stop> {
    let pos = u64::try_from(read.pos()).map_err(|_| Reason::Unaligned)?;
    // CAST: Widening.
    let block = read.inode().fs().block_size() as usize;
    // As long as nothing has been taken of the buffer.
    let count = read.count();
    let mut attempt = Attempt::first(manner);
    let guess = Range::new(pos, likely.min(want), want, block)?;
    // Who issues it would wait for its checksums, and then as well may for its data, if it has nothing
    // else to do.
    attempt.may_put_off = guess.len <= SMALL && task::is_io_worker();
    let mut ticket = Ticket::new(
        resources.enter(),
        init!(InFlight {
            read: AsyncRead::new(),
            requester: Requester::current(),
            plan: Plan::new(&guess),
            range: guess,
            manner: *manner,
            placement: Placement::Direct,
            spots: Spots::new(),
            then: Then::Finish,
            reserved: None,
            place: None,
        }),
        manner.patience,
    )
    .map_err(Stop::from_mapping)?;
    let InFlight {
        read: later,
        plan,
        range,
        placement,
        spots,
        then,
        ..
    } = ticket.cargo();
    // Before any lock, as ever.
    let boarding = read
        .board(later, want, manner.patience)
        .map_err(|error| not_pinned(error, manner.patience))?;
    let file = boarding.read();
    let entry = Entry::new(file.inode(), file.pos(), count, manner.patience)?;
    let Some(Entry { inode, total }) = entry else {
        return Ok(Some(Issued::Now(0)));
    };
    if total > guess.valid {
        // A part of the new file, as long as the old one, is the content of neither.
        return Ok(None);
    }
    if total < guess.valid {
        *range = Range::new(pos, total, want, block)?;
        plan.range = *range;
    }
    // Not to be dropped in an interrupt: they keep the block devices.
    let mut runs = Runs::new();
    let dio = inode.count();
    let ready = match window::prepare(resources, dio, range, &mut attempt, plan, &mut runs) {
        Err(Stop::Absent) => {
            // The plan is of no use: a worker reads the window.
            *plan = Plan::new(range);
            runs = Runs::new();
            *then = Then::ReadAgain(Outcome::Failed);
            window::nothing(dio, manner)?
        }
        Err(Stop::Budget(bytes)) => {
            let fs = dio.inode().fs().id();
            let place = Place::new(resources, fs, Owner::current(), bytes)?;
            *plan = Plan::new(range);
            *then = Then::Continue(0);
            stats::count(Counter::BounceWaits);
            stats::count(Counter::Queued);
            drop(inode);
            boarding.detach(None, None);
            place.park(ticket.park());
            return Ok(Some(Issued::Later));
        }
        prepared => prepared?,
    };
    let Some(hold) = ready.hold else {
        if plan.range != *range {
            // There is more than fits into a window, though nothing needs a device.
            return Err(Stop::WouldWait);
        }
        window::deliver_now(resources, ready, plan, boarding.pages())?;
        return Ok(Some(Issued::Now(range.valid)));
    };
    if plan.is_late() {
        if plan.range != *range {
            return Err(Stop::WouldWait);
        }
        let ready = window::Ready {
            hold: Some(hold),
            writers: ready.writers,
        };
        let pages = boarding.pages();
        let read = window::read_now(
            resources, dio, range, pages, &attempt, ready, plan, &mut runs,
        )?;
        return Ok(Some(Issued::Now(read)));
    }
    *placement = attempt.placement;
    spots.note_if_cheap(&runs);
    stats::count(Counter::Queued);
    boarding.detach(Some(inode), ready.writers);
    flight::launch(ticket, hold, |cargo, resources, submitter| {
        if let Some(pages) = cargo.read.pages() {
            let (pool, fetches, spots) = (&resources.pool, &cargo.plan.fetches, &cargo.spots);
            bio::submit(submitter, pool, &mut runs, fetches, pages, manner, spots);
        }
    });
    Ok(Some(Issued::Later))
}

impl Cargo for InFlight {
    type Base = Resources;

    fn touch_down(&mut self, _resources: &Resources, status: Result) -> bool {
        // What is planned begins where it must.
        let whole = self.plan.range.len == self.range.len;
        let arrived = status.is_ok() && self.then == Then::Finish;
        if !arrived || !whole || !self.plan.is_light() {
            return false;
        }
        let Some(pages) = self.read.pages() else {
            return false;
        };
        // What is not right is the worker's.
        if !completion::is_right(&mut self.plan, pages) {
            return false;
        }
        let may = self.may_complete();
        if may {
            self.plan.tally.note();
            complete(&mut self.read, Ok(self.range.valid));
        }
        may
    }

    fn is_long(&self) -> bool {
        // A read that is to be read again verifies all of its range.
        self.then != Then::Finish || self.plan.is_long()
    }

    fn land(&mut self, resources: &Resources, status: Result) -> bool {
        stats::count(Counter::ByWorker);
        if self.then == Then::Finish {
            match self.finish(resources, status) {
                Ok(Outcome::Right) => return self.settle(Ok(self.plan.range.valid)),
                Ok(outcome) => self.then = Then::ReadAgain(outcome),
                Err(stop) => return self.settle(Err(stop)),
            }
        }
        self.let_go();
        match self.then {
            Then::ReadAgain(outcome) if !self.keeps_writers_away() => {
                let done = self.read_again(resources, outcome);
                self.settle(done)
            }
            // Who keeps writers away waits for others who do, and these for the likes of us.
            _ => false,
        }
    }

    fn go_on(&mut self, resources: &Resources) -> bool {
        if let Then::ReadAgain(outcome) = self.then {
            let done = self.read_again(resources, outcome);
            if self.settle(done) {
                return true;
            }
        }
        if let (Then::Continue(_), None) = (self.then, &self.reserved) {
            // With memory there is a bound on how many workers are busy for one owner.
            self.place = self.place(resources, budget::WINDOW);
            if self.place.is_some() {
                return false;
            }
        }
        let _work = self.requester.work_for();
        if let Then::Continue(done) = self.then {
            match self.read_rest(resources, done) {
                Ok(done) => {
                    complete(&mut self.read, Ok(done));
                    return true;
                }
                Err((_, Stop::Fail(error))) => {
                    complete(&mut self.read, Err(error));
                    return true;
                }
                Err((done, Stop::Budget(bytes))) => {
                    stats::count(Counter::BounceWaits);
                    self.then = Then::Continue(done);
                    self.place = self.place(resources, bytes);
                    if self.place.is_some() {
                        return false;
                    }
                    self.then = Then::ReadOn(done);
                }
                Err((done, _)) => self.then = Then::ReadOn(done),
            }
        }
        let Then::ReadOn(done) = self.then else {
            return true;
        };
        // If btrfs offers the rest to us again, that counts as a read of its own.
        // CAST: Widening.
        stats::add(Counter::Bytes, done as u64);
        let result = self.read.read_on(done, self.range.valid);
        end(&mut self.read, result);
        true
    }

    fn park(mut parked: Parked<Self>) {
        // There is one: `go_on()` has said so. If not, the read fails when it is dropped.
        if let Some(place) = parked.cargo().place.take() {
            place.park(parked);
        }
    }
}

/// Completes a read that we have served. Any context that the read may be completed in.
fn complete(read: &mut AsyncRead, result: Result<usize>) {
    match result {
        Err(_) => stats::count(Counter::Reads),
        Ok(bytes) => {
            stats::count(Counter::Reads);
            // CAST: Widening.
            stats::add(Counter::Bytes, bytes as u64);
        }
    }
    end(read, result);
}

/// As [`complete`], for what has been counted.
fn end(read: &mut AsyncRead, result: Result<usize>) {
    if let Some(file) = read.file() {
        trace::read_end(file, read.pos(), read.len(), result);
    }
    read.complete(result);
}

impl InFlight {
    /// Returns whether it may be completed where it has landed; if so it is to be completed next.
    fn may_complete(&mut self) -> bool {
        let may = self.read.may_complete_anywhere();
        if may {
            self.plan.release();
        }
        may
    }

    /// Makes of what has arrived what the caller gets, if it is right, and returns whether it is.
    fn finish(&mut self, resources: &Resources, status: Result) -> Result<Outcome, Stop> {
        let Some(pages) = self.read.pages() else {
            return Err(Stop::Fail(EIO));
        };
        let plan = &mut self.plan;
        plan.deliveries.before(resources, plan.range.block, pages)?;
        let outcome = completion::finish(resources, plan, self.placement, pages, status)?;
        if outcome == Outcome::Right {
            plan.tally.note();
        }
        Ok(outcome)
    }

    /// Returns whether direct writers are kept away while it is read.
    fn keeps_writers_away(&self) -> bool {
        let inode = self.read.inode();
        inode.is_some_and(|inode| {
            window::writers(inode, inode.inode().has_checksums()) == Writers::KeptAway
        })
    }

    /// Gives back what only the attempt so far needs.
    fn let_go(&mut self) {
        self.plan = Plan::new(&self.range);
        self.read.let_writers_in();
    }

    /// Completes it if `done` says that there is nothing left to read, and returns whether that is so.
    /// Otherwise it is to go on.
    fn settle(&mut self, done: Result<usize, Stop>) -> bool {
        // What it holds is of the filesystem, which the read keeps.
        self.let_go();
        let result = match done {
            Ok(done) if done == self.range.valid => Ok(done),
            Err(Stop::Fail(error)) => Err(error),
            partly => {
                self.then = match partly {
                    Ok(done) => Then::Continue(done),
                    Err(_) => Then::ReadOn(0),
                };
                // Whoever waits for that must not wait for the one who reads on.
                self.read.let_all_in();
                return false;
            }
        };
        complete(&mut self.read, result);
        true
    }

    /// Returns how it is read by a worker.
    fn by_worker(&self) -> Manner {
        Manner {
            patience: Patience::Wait,
            owner: Some(self.requester.owner()),
            ..self.manner
        }
    }

    /// Makes a place in the queue for bounce memory; `None` if there is no memory even for that.
    fn place(&self, resources: &Resources, bytes: usize) -> Option<Place> {
        let fs = self.read.file()?.fs().id();
        Place::new(resources, fs, self.requester.owner(), bytes).ok()
    }

    /// Locks the inode, and reads what is behind the first `done` bytes. Returns how many bytes there
    /// are in all; or why it stops, and how many there are by then.
    fn read_rest(
        &mut self,
        resources: &Resources,
        mut done: usize,
    ) -> Result<usize, (usize, Stop)> {
        let mut reserved = self.reserved.take();
        let manner = self.by_worker();
        let (Some(pages), Some(file)) = (self.read.pages(), self.read.file()) else {
            return Err((done, Stop::Fail(EIO)));
        };
        let all = self.range.valid;
        let entry = Entry::new(file, self.read.pos(), all, manner.patience);
        let Some(Entry { inode, total }) = entry.map_err(|stop| (done, stop))? else {
            return Ok(0);
        };
        while done < total {
            let read = self.range.up_to(total).and_then(|range| range.from(done));
            let read = read.map_err(Stop::from).and_then(|rest| {
                let dio = inode.count();
                window::read(resources, dio, &rest, pages, &manner, &mut reserved)
            });
            done = done.saturating_add(read.map_err(|stop| (done, stop))?);
        }
        // If the file has become shorter meanwhile, then by more than what is left.
        Ok(done.min(total))
    }

    /// Reads it again, since it came to `outcome`. Returns how many bytes have been read.
    fn read_again(&mut self, resources: &Resources, outcome: Outcome) -> Result<usize, Stop> {
        stats::count(Counter::Reread);
        let _work = self.requester.work_for();
        let manner = &self.by_worker();
        let (Some(pages), Some(inode)) = (self.read.pages(), self.read.inode()) else {
            return Err(Stop::Fail(EIO));
        };
        let before = (outcome, core::mem::replace(&mut self.spots, Spots::new()));
        let range = &self.range;
        let mut done = window::read_again(resources, inode, range, pages, manner, before)?;
        while done < range.valid {
            let rest = range.from(done)?;
            match window::read(resources, inode, &rest, pages, manner, &mut None) {
                Ok(more) => done = done.saturating_add(more),
                Err(Stop::Fail(error)) => return Err(Stop::Fail(error)),
                Err(_) => break,
            }
        }
        Ok(done)
    }
}
