// SPDX-License-Identifier: GPL-2.0

//! Reads whose caller does not wait.
//!
//! They are planned and submitted by the task that issues them, as one window. A small one that is
//! read in place is verified and completed where its last bio ends, and so is a larger one of which
//! nothing is to be verified; any other, and what is not right with the first look, is brought to its
//! end by a worker.
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
    bio, budget,
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
            Ticket, //
        },
        btrfs::{
            device::DeviceHold,
            extent_lock::{
                WriterLock,
                Writers, //
            },
        },
        decode::MAX_EXTENT,
        drain::Drain,
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
    window::{
        self,
        Attempt,
        Manner,
        Placement, //
    },
};
use kernel::{
    prelude::*,
    sizes::SZ_4K, //
};

/// What is waited for where it is issued is read in one window: there is private memory for all of it,
/// even if each of its blocks, of which there are no smaller ones, is in a compressed extent of its own.
const _: () = assert!(window::SMALL / SZ_4K * MAX_EXTENT <= budget::WINDOW);

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
    /// Not ours before it is detached, and once it is completed.
    read: AsyncRead,
    plan: Plan,
    /// What is to be read; the plan may cover less.
    range: Range,
    manner: Manner,
    placement: Placement,
    /// Where it is read.
    spots: Spots,
    then: Then,
}

/// Issues a read of one window, of which `likely` bytes are there, into the first `want` bytes of its
/// buffer.
///
/// Task context; sleeps, unless the manner forbids it; no lock of the filesystem held.
pub(crate) fn issue(
    resources: &Drain<Resources>,
    read: &mut DirectRead<'_>,
    likely: usize,
    want: usize,
    manner: &Manner,
) -> Result<Issued, Stop> {
    let pos = u64::try_from(read.pos()).map_err(|_| Reason::Unaligned)?;
    // CAST: Widening.
    let block = read.inode().fs().block_size() as usize;
    // As long as nothing has been taken of the buffer.
    let count = read.count();
    let mut attempt = Attempt::first(manner);
    let guess = Range::new(pos, likely.min(want), want, block)?;
    // Who issues it would wait for its checksums, and then as well may for its data, if it has nothing
    // else to do.
    attempt.may_put_off = guess.len <= window::SMALL && task::is_io_worker();
    let mut ticket = Ticket::new(
        resources.enter(),
        init!(InFlight {
            read: AsyncRead::new(),
            plan: Plan::new(&guess),
            range: guess,
            manner: *manner,
            placement: Placement::Direct,
            spots: Spots::new(),
            then: Then::Finish,
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
    let Some(Entry { inode, total }) = Entry::new(boarding.read(), count, manner)? else {
        return Ok(Issued::Now(0));
    };
    if total != guess.valid {
        // If the file has grown since, then the read is of the file as it was.
        *range = Range::new(pos, total.min(want), want, block)?;
        plan.range = *range;
    }
    // Not to be dropped in an interrupt: they keep the block devices.
    let mut runs = Runs::new();
    let dio = inode.count();
    let ready = match window::prepare(resources, dio, range, &mut attempt, plan, &mut runs) {
        Err(Stop::Absent) => {
            // What is planned of it is not to be read.
            *plan = Plan::new(range);
            runs = Runs::new();
            *then = Then::ReadAgain(Outcome::Failed);
            window::nothing(dio, manner)?
        }
        prepared => prepared?,
    };
    let Some(hold) = ready.hold else {
        if plan.range != *range {
            // There is more than fits into a window, though nothing needs a device.
            return Err(Stop::WouldWait);
        }
        window::deliver_now(resources, ready, plan, boarding.pages())?;
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
        let pages = boarding.pages();
        let read = window::read_now(
            resources, dio, range, pages, &attempt, ready, plan, &mut runs,
        )?;
        return Ok(Issued::Now(read));
    }
    *placement = attempt.placement;
    spots.note_if_cheap(&runs);
    stats::count(Counter::Queued);
    boarding.detach(inode, ready.writers);
    flight::launch(ticket, hold, |cargo, resources, submitter| {
        if let Some(pages) = cargo.read.pages() {
            let (pool, fetches, spots) = (&resources.pool, &cargo.plan.fetches, &cargo.spots);
            bio::submit(submitter, pool, &mut runs, fetches, pages, manner, spots);
        }
    });
    Ok(Issued::Later)
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
        let Then::ReadOn(done) = self.then else {
            return;
        };
        // Who reads on counts that as a read.
        // CAST: Widening.
        stats::add(Counter::Bytes, done as u64);
        let result = self.read.read_on(done);
        end(&mut self.read, result);
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
                self.read.let_all_in();
                return false;
            }
        };
        complete(&mut self.read, result);
        true
    }

    /// Reads it again, since it came to `outcome`. Returns how many bytes have been read.
    fn read_again(&mut self, resources: &Resources, outcome: Outcome) -> Result<usize, Stop> {
        stats::count(Counter::Reread);
        let (Some(pages), Some(inode)) = (self.read.pages(), self.read.inode()) else {
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
