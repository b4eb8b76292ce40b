// SPDX-License-Identifier: GPL-2.0

//! Reads whose caller does not wait.
//!
//! They are planned and submitted by the task that issues them, as one window, and brought to
//! their end by a worker.
//!
//! # States
//!
//! | state      | who owns the read                | ends by                                    |
//! |------------|----------------------------------|--------------------------------------------|
//! | issued     | the task that issues it          | [`launch`], or an answer at once           |
//! | in flight  | the set of its bios              | the last bio                               |
//! | landed     | a worker, in [`Cargo::land`]     | data is right, or read again               |
//! | completed  | nobody: told the caller, once    |                                            |

use crate::{
    bio::{
        self,
        Run, //
    },
    completion::{
        self,
        Outcome, //
    },
    error::Stop,
    plan::Plan,
    range::Range,
    resources::Resources,
    safe::{
        block::flight::{
            self,
            Cargo,
            Ticket, //
        },
        btrfs::inode::SharedInode,
        drain::Drain,
        read::{
            AsyncRead,
            DirectRead, //
        },
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

/// A read in flight.
struct InFlight {
    read: AsyncRead,
    /// `None` once it is of no use any more: it has private memory.
    plan: Option<Plan>,
    runs: KVVec<Run>,
    /// What is to be read; the plan may cover less.
    range: Range,
    manner: Manner,
    placement: Placement,
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
    // Before there is anything to undo.
    let ticket = Ticket::<InFlight>::new(manner.patience.gfp()).map_err(Stop::from_mapping)?;
    let ready = window::prepare(resources, inode.count(), range, &mut attempt)?;
    if ready.hold.is_none() && ready.plan.range == *range {
        return window::deliver_now(resources, ready, &pages).map(Issued::Now);
    }
    let Some(hold) = ready.hold else {
        // All of it that can be planned at a time needs no device, but there is more.
        return Err(Stop::WouldWait);
    };
    let Some(read) = read.detach(pages, inode, ready.writers) else {
        return Err(Stop::WouldWait);
    };
    stats::count(Counter::Queued);
    let cargo = InFlight {
        read,
        plan: Some(ready.plan),
        runs: ready.runs,
        range: *range,
        manner: *manner,
        placement: attempt.placement,
    };
    let ioprio = manner.ioprio;
    flight::launch(
        ticket,
        resources.enter(),
        hold,
        cargo,
        |cargo, resources, submitter| {
            if let (Some(pages), Some(plan)) = (cargo.read.pages(), &cargo.plan) {
                let (pool, fetches) = (&resources.pool, &plan.fetches);
                bio::submit(submitter, pool, &cargo.runs, fetches, pages, ioprio);
            }
        },
    );
    Ok(Issued::Later)
}

impl Cargo for InFlight {
    type Base = Resources;

    fn land(mut self, resources: &Resources, status: Result) {
        // They keep the block devices.
        self.runs = KVVec::new();
        let result = match self.finish(resources, status) {
            Ok(done) if done == self.range.valid => {
                stats::count(Counter::Reads);
                // CAST: Widening.
                stats::add(Counter::Bytes, done as u64);
                Ok(done)
            }
            Ok(done) => {
                // CAST: Widening.
                stats::add(Counter::Bytes, done as u64);
                self.read.read_on(done)
            }
            Err(Stop::Fail(error)) => {
                stats::count(Counter::Reads);
                Err(error)
            }
            Err(_) => self.read.read_on(0),
        };
        trace::read_end(self.read.file(), self.read.pos(), self.read.len(), result);
        self.read.complete(result);
    }
}

impl InFlight {
    /// Makes of what has arrived what the caller gets. Returns how many bytes it is.
    ///
    /// Afterwards there is no plan any more.
    fn finish(&mut self, resources: &Resources, status: Result) -> Result<usize, Stop> {
        let (Some(pages), Some(mut plan)) = (self.read.pages(), self.plan.take()) else {
            return Err(Stop::Fail(EIO));
        };
        plan.deliveries.before(resources, plan.range.block, pages)?;
        let outcome = completion::finish(resources, &mut plan, self.placement, pages, status)?;
        if outcome == Outcome::Right {
            plan.tally.note();
            return Ok(plan.range.valid);
        }
        // Its private memory has to be given back before more is asked for.
        drop(plan);
        stats::count(Counter::Reread);
        self.read.let_writers_in();
        let (Some(pages), Some(inode)) = (self.read.pages(), self.read.inode()) else {
            return Err(Stop::Fail(EIO));
        };
        window::read_again(resources, inode, &self.range, pages, &self.manner, outcome)
    }
}
