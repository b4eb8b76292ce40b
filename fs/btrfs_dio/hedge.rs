// SPDX-License-Identifier: GPL-2.0

//! A copy that is slow to answer is not waited for alone: after a while another one is asked, too,
//! and the first good answer counts.
//!
//! The other one is still under way then, and a device that is slow may write to memory at any time
//! later. So these reads go to private memory, which belongs to the flight that reads into it, and
//! which is given back when that has landed, however late; so is a reference to the file, so that the
//! filesystem stays. Nobody else's memory is written to once the read has returned.
//!
//! # States
//!
//! | state      | who owns plan and memory of a flight | ends by                                    |
//! |------------|--------------------------------------|--------------------------------------------|
//! | in flight  | its set of bios                      | the last bio, which sends a worker         |
//! | landed     | the race, until it is taken out      | the reader takes it, or has returned       |
//! | late       | the race, which the flight keeps     | the worker drops it                        |

use crate::{
    bio,
    completion::{
        self,
        Outcome, //
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
        bell::Bell,
        block::flight::{
            self,
            Cargo,
            Ticket, //
        },
        btrfs::inode::DioCount,
        drain::Drain,
        file::OpenFile,
        params,
        patience::Patience,
        read::DirectRead,
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
use kernel::{
    new_spinlock,
    prelude::*,
    sync::{
        Arc,
        SpinLock, //
    },
    time::{
        msecs_to_jiffies,
        Jiffies, //
    },
};

/// How a read is hedged.
pub(crate) struct Hedge {
    /// After how long another copy is asked.
    after: Jiffies,
    file: OpenFile,
}

impl Hedge {
    /// Returns how a read is to be hedged, if it is to be, and may wait.
    pub(crate) fn of(read: &DirectRead<'_>) -> Option<Self> {
        Some(Self {
            after: msecs_to_jiffies(wanted(read)?),
            file: read.file()?,
        })
    }
}

/// Returns after how many milliseconds another copy is to be asked for a read, if it is to be.
///
/// Not of a file that is overwritten in place: the range is locked while one copy is read, and cannot
/// be locked once more for another one.
pub(crate) fn wanted(read: &DirectRead<'_>) -> Option<u32> {
    let after = params::slow_copy_ms();
    let inode = read.inode();
    let can = after > 0 && inode.fs().may_have_copies() && !inode.is_overwritten_in_place();
    can.then_some(after)
}

/// What has landed.
struct Landed {
    plan: Plan,
    spots: Spots,
    status: Result,
}

/// Flights that read the same, each of another copy.
#[pin_data]
struct Race {
    #[pin]
    landed: SpinLock<[Option<Landed>; 2]>,
    /// Rung by each that has landed.
    #[pin]
    bell: Bell,
}

impl Race {
    fn new() -> impl PinInit<Self> {
        pin_init!(Self {
            landed <- new_spinlock!([None, None]),
            bell <- Bell::new(),
        })
    }

    /// Takes one out that has landed.
    fn take(&self) -> Option<Landed> {
        self.landed.lock().iter_mut().find_map(Option::take)
    }
}

/// A read of one copy.
struct Runner {
    plan: Plan,
    pages: UserPages<'static>,
    /// Where it reads.
    spots: Spots,
    number: usize,
    // In this order: the file is what keeps all else.
    race: Option<Arc<Race>>,
    _file: OpenFile,
}

impl Cargo for Runner {
    type Base = Resources;

    fn touch_down(&mut self, _resources: &Resources, _status: Result) -> bool {
        // What it has may not be given back just anywhere.
        false
    }

    fn land(&mut self, _resources: &Resources, status: Result) -> bool {
        let Some(race) = &self.race else {
            return true;
        };
        let empty = Plan::new(&self.plan.range);
        let landed = Landed {
            plan: core::mem::replace(&mut self.plan, empty),
            spots: core::mem::replace(&mut self.spots, Spots::new()),
            status,
        };
        if let Some(slot) = race.landed.lock().get_mut(self.number) {
            *slot = Some(landed);
        }
        race.bell.ring();
        true
    }

    fn go_on(&mut self, _resources: &Resources) {}
}

/// What it takes to start runners.
struct Start<'a> {
    resources: &'a Drain<Resources>,
    hedge: &'a Hedge,
    inode: &'a DioCount<'a>,
    range: &'a Range,
    manner: &'a Manner,
    race: &'a Arc<Race>,
}

impl<'a> Start<'a> {
    /// Starts runner number `number`, if there is a copy that is not among the `slow` ones. Returns
    /// where it reads.
    fn start(&self, number: usize, slow: Spots) -> Result<Option<Spots>, Stop> {
        let mut manner = *self.manner;
        if number > 0 {
            // While it waited, the first could land.
            manner.patience = Patience::Nowait;
        }
        let mut attempt = Attempt::first(&manner);
        attempt.placement = Placement::Private;
        attempt.slow = slow;
        let mut ticket = Ticket::new(
            self.resources.enter(),
            init!(Runner {
                plan: Plan::new(self.range),
                pages: UserPages::none(),
                spots: Spots::new(),
                number,
                race: Some(self.race.clone()),
                _file: self.hedge.file.again(),
            }),
            // Who reads on may have a flight already: none waits for another one.
            Patience::Nowait,
        )
        .map_err(Stop::from_mapping)?;
        let mut runs = Runs::new();
        let ready = window::prepare(
            self.resources,
            self.inode,
            self.range,
            &mut attempt,
            &mut ticket.cargo().plan,
            &mut runs,
        )?;
        if !attempt.slow.is_empty() && !runs.leave(&attempt.slow) {
            return Ok(None);
        }
        let hold = match ready.hold {
            Some(hold) => hold,
            // It lands at once.
            None => window::hold(self.inode, &manner)?,
        };
        // One to tell the other by.
        let mut spots = Spots::new();
        spots.note_if_cheap(&runs);
        ticket.cargo().spots.note_if_cheap(&runs);
        flight::launch(ticket, hold, |runner, resources, submitter| {
            let (pool, fetches) = (&resources.pool, &runner.plan.fetches);
            let (pages, spots) = (&runner.pages, &runner.spots);
            bio::submit(submitter, pool, &mut runs, fetches, pages, &manner, spots);
        });
        Ok(Some(spots))
    }
}

/// Reads a window as [`window::read`] does, but asks another copy, too, if the first one does not
/// answer in time.
///
/// Task context, sleeps; not for a read that may not wait. On return I/O may be in flight, but not to
/// memory of the caller.
pub(crate) fn read(
    resources: &Drain<Resources>,
    hedge: &Hedge,
    inode: &DioCount<'_>,
    range: &Range,
    pages: &UserPages<'_>,
    manner: &Manner,
) -> Result<usize, Stop> {
    let manner = &Manner {
        patience: Patience::Wait,
        ..*manner
    };
    let race = Arc::pin_init(Race::new(), GFP_KERNEL).map_err(Stop::from_mapping)?;
    let start = Start {
        resources,
        hedge,
        inode,
        range,
        manner,
        race: &race,
    };
    let again = |outcome, spots| {
        window::read_again(resources, inode, range, pages, manner, (outcome, spots))
    };
    let first = match start.start(0, Spots::new()) {
        Err(Stop::Absent) => return again(Outcome::Failed, Spots::new()),
        // There is no memory for asking two.
        Err(Stop::Decline(Reason::Memory)) => {
            return window::read(resources, inode, range, pages, manner);
        }
        started => started?.ok_or(Stop::WouldWait)?,
    };
    if !race.bell.wait(Some(hedge.after)) {
        // If there is no other one, or no memory for it, then the first has to do.
        if let Ok(Some(_)) = start.start(1, first) {
            stats::count(Counter::Hedged);
        }
        race.bell.wait(None);
    }
    let Landed {
        mut plan,
        spots,
        status,
    } = race.take().ok_or(Stop::Fail(EIO))?;
    let block = plan.range.block;
    plan.deliveries.before(resources, block, pages)?;
    let placement = Placement::Private;
    let outcome = completion::finish(resources, &mut plan, placement, pages, status)?;
    if outcome == Outcome::Right {
        plan.tally.note();
        return Ok(plan.range.valid);
    }
    // Its private memory has to be given back before more is asked for. The other one, if there is
    // one, may as well be read: who is to blame has to be found out, and what is bad repaired.
    drop(plan);
    again(outcome, spots)
}
