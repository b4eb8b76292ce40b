// SPDX-License-Identifier: GPL-2.0

//! Reads whose caller does not wait.
//!
//! They are planned and submitted by the task that issues them, as one window. A small one that is
//! read in place is verified and completed where its last bio ends; any other, and what is not right
//! with the first look, is brought to its end by a worker.
//!
//! # States
//!
//! | state      | who owns the read                | ends by                                    |
//! |------------|----------------------------------|--------------------------------------------|
//! | issued     | the task that issues it          | [`launch`], or an answer at once           |
//! | in flight  | the set of its bios              | the last bio                               |
//! | landed     | who ended the last bio           | data is right; or a worker is sent         |
//! | landed     | the worker, in [`Cargo::land`]   | data is right, or read again               |
//! | read on    | a worker, in [`Cargo::go_on`]    | data is right; or btrfs has read the rest  |
//! | completed  | nobody: told the caller, once    |                                            |

use crate::{
    bio,
    completion::{
        self,
        Outcome, //
    },
    error::Stop,
    hedge,
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
            Ticket, //
        },
        btrfs::{
            extent_lock::Writers,
            inode::SharedInode, //
        },
        drain::Drain,
        patience::Patience,
        read::{
            AsyncRead,
            DirectRead, //
        },
        task,
        trace,
        user_pages::UserPages, //
    },
    stats::{
        self,
        Counter, //
    },
    window::{
        self,
        Attempt,
        Manner,
        Placement, //
    },
};
use kernel::prelude::*;

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
    /// To have btrfs read on behind so many bytes, as for somebody who waits.
    ReadOn(usize),
}

/// A read in flight.
struct InFlight {
    /// `None` before it is detached, and once it is completed.
    read: Option<AsyncRead>,
    plan: Plan,
    /// What is to be read; the plan may cover less.
    range: Range,
    manner: Manner,
    placement: Placement,
    /// Where it is read.
    spots: Spots,
    then: Then,
}

/// Issues a read of one window into `pages`, which are those of its buffer.
///
/// Task context; sleeps, unless the manner forbids it.
pub(crate) fn issue<'r>(
    resources: &Drain<Resources>,
    read: &mut DirectRead<'r>,
    inode: SharedInode<'r>,
    range: &Range,
    pages: UserPages<'r>,
    manner: &Manner,
) -> Result<Issued, Stop> {
    let mut attempt = Attempt::first(manner);
    // Who issues it would wait for its checksums, and then as well may for its data, if it has nothing
    // else to do.
    attempt.may_put_off = range.len <= window::SMALL && task::is_io_worker();
    let mut ticket = Ticket::new(
        init!(InFlight {
            read: None,
            plan: Plan::new(range),
            range: *range,
            manner: *manner,
            placement: Placement::Direct,
            spots: Spots::new(),
            then: Then::Finish,
        }),
        manner.patience.gfp(),
    )
    .map_err(Stop::from_mapping)?;
    let plan = &mut ticket.cargo().plan;
    // Not to be dropped in an interrupt: they keep the block devices.
    let mut runs = Runs::new();
    let count = inode.count();
    let (ready, then) = if hedge::wanted(read).is_some() {
        (window::nothing(count, manner)?, Then::ReadOn(0))
    } else {
        match window::prepare(resources, count, range, &mut attempt, plan, &mut runs) {
            Err(Stop::Absent) => {
                let ready = window::nothing(count, manner)?;
                (ready, Then::ReadAgain(Outcome::Failed))
            }
            prepared => (prepared?, Then::Finish),
        }
    };
    let Some(hold) = ready.hold else {
        if plan.range != *range {
            // There is more than fits into a window, though nothing needs a device.
            return Err(Stop::WouldWait);
        }
        window::deliver_now(resources, ready, plan, &pages)?;
        return Ok(Issued::Now(range.valid));
    };
    if plan.is_late() {
        if plan.range != *range {
            return Err(Stop::WouldWait);
        }
        let ready = window::Ready {
            hold: Some(hold),
            writers: ready.writers,
        };
        let read = window::read_now(
            resources, count, range, &pages, &attempt, ready, plan, &mut runs,
        )?;
        return Ok(Issued::Now(read));
    }
    let Some(read) = read.detach(pages, inode, ready.writers) else {
        return Err(Stop::WouldWait);
    };
    stats::count(Counter::Queued);
    let cargo = ticket.cargo();
    cargo.read = Some(read);
    cargo.placement = attempt.placement;
    cargo.spots.note_if_cheap(&runs);
    cargo.then = then;
    if then != Then::Finish {
        cargo.plan = Plan::new(range);
        cargo.spots = Spots::new();
        runs = Runs::new();
    }
    flight::launch(
        ticket,
        resources.enter(),
        hold,
        |cargo, resources, submitter| {
            if let Some(pages) = cargo.read.as_ref().and_then(AsyncRead::pages) {
                let (pool, fetches, spots) = (&resources.pool, &cargo.plan.fetches, &cargo.spots);
                bio::submit(submitter, pool, &mut runs, fetches, pages, manner, spots);
            }
        },
    );
    Ok(Issued::Later)
}

impl Cargo for InFlight {
    type Base = Resources;

    fn touch_down(&mut self, _resources: &Resources, status: Result) -> bool {
        let whole = self.plan.range == self.range;
        let arrived = status.is_ok() && self.then == Then::Finish;
        if !arrived || !whole || !self.plan.is_light() {
            return false;
        }
        let Some(pages) = self.read.as_ref().and_then(AsyncRead::pages) else {
            return false;
        };
        // What is not right is the worker's.
        if !completion::is_right(&mut self.plan, pages) {
            return false;
        }
        let may = self
            .read
            .as_mut()
            .is_some_and(AsyncRead::may_complete_anywhere);
        if may {
            self.plan.tally.note();
            self.plan.release();
            complete(&mut self.read, Ok(self.range.valid));
        }
        may
    }

    fn land(&mut self, resources: &Resources, status: Result) -> bool {
        if self.then == Then::Finish {
            match self.finish(resources, status) {
                Ok(Outcome::Right) => return self.settle(Ok(self.plan.range.valid)),
                Ok(outcome) => self.then = Then::ReadAgain(outcome),
                Err(stop) => return self.settle(Err(stop)),
            }
        }
        self.let_go();
        match self.then {
            Then::ReadOn(done) => self.settle(Ok(done)),
            Then::ReadAgain(outcome) if !self.keeps_writers_away() => {
                let done = self.read_again(resources, outcome);
                self.settle(done)
            }
            // Who keeps writers away waits for others who do, and these for the likes of us.
            _ => false,
        }
    }

    fn go_on(&mut self, resources: &Resources) {
        if let Then::ReadAgain(outcome) = self.then {
            let done = self.read_again(resources, outcome);
            if self.settle(done) {
                return;
            }
        }
        let (Some(read), Then::ReadOn(done)) = (&mut self.read, self.then) else {
            return;
        };
        // Who reads on counts that as a read.
        // CAST: Widening.
        stats::add(Counter::Bytes, done as u64);
        let result = read.read_on(done);
        trace::read_end(read.file(), read.pos(), read.len(), result);
        AsyncRead::complete(&mut self.read, result);
    }
}

/// Completes a read that we have served. Any context that the read may be completed in.
fn complete(read: &mut Option<AsyncRead>, result: Result<usize>) {
    stats::count(Counter::Reads);
    if let Ok(bytes) = result {
        // CAST: Widening.
        stats::add(Counter::Bytes, bytes as u64);
    }
    if let Some(read) = read {
        trace::read_end(read.file(), read.pos(), read.len(), result);
    }
    AsyncRead::complete(read, result);
}

impl InFlight {
    /// Makes of what has arrived what the caller gets, if it is right, and returns whether it is.
    fn finish(&mut self, resources: &Resources, status: Result) -> Result<Outcome, Stop> {
        let Some(pages) = self.read.as_ref().and_then(AsyncRead::pages) else {
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
        let inode = self.read.as_ref().and_then(AsyncRead::inode);
        inode.is_some_and(|inode| window::writers(inode) == Writers::KeptAway)
    }

    /// Gives back what only the attempt so far needs.
    fn let_go(&mut self) {
        self.plan = Plan::new(&self.range);
        if let Some(read) = &mut self.read {
            read.let_writers_in();
        }
    }

    /// Completes it if `done` says that there is nothing left to read, and returns whether that is so.
    /// Otherwise it is to be read on.
    fn settle(&mut self, done: Result<usize, Stop>) -> bool {
        // What it holds is of the filesystem, which the read keeps.
        self.let_go();
        let result = match done {
            Ok(done) if done == self.range.valid => Ok(done),
            Err(Stop::Fail(error)) => Err(error),
            partly => {
                self.then = Then::ReadOn(partly.unwrap_or(0));
                // Whoever waits for that must not wait for the one who reads on.
                if let Some(read) = &mut self.read {
                    read.let_all_in();
                }
                return false;
            }
        };
        complete(&mut self.read, result);
        true
    }

    /// Reads it again, since it came to `outcome`. Returns how many bytes have been read.
    fn read_again(&mut self, resources: &Resources, outcome: Outcome) -> Result<usize, Stop> {
        stats::count(Counter::Reread);
        let Some(read) = &self.read else {
            return Err(Stop::Fail(EIO));
        };
        let (Some(pages), Some(inode)) = (read.pages(), read.inode()) else {
            return Err(Stop::Fail(EIO));
        };
        let before = (outcome, core::mem::replace(&mut self.spots, Spots::new()));
        let range = &self.range;
        let manner = &Manner {
            patience: Patience::Wait,
            ..self.manner
        };
        let mut done = window::read_again(resources, inode, range, pages, manner, before)?;
        while done < range.valid {
            let rest = range.from(done)?;
            match window::read(resources, inode, &rest, pages, manner) {
                Ok(more) => done = done.saturating_add(more),
                Err(Stop::Fail(error)) => return Err(Stop::Fail(error)),
                Err(_) => break,
            }
        }
        Ok(done)
    }
}
