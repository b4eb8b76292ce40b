// SPDX-License-Identifier: GPL-2.0

//! One window of a read: lock, plan, submit; and once all has arrived, finish or try again.

use crate::{
    attempt::{
        Attempt,
        Manner,
        Placement,
        LOCK_TRIES,
        SMALL, //
    },
    bio,
    budget::{
        Credit,
        Reservation,
        WINDOW, //
    },
    checksum::{
        Expected,
        Lookup, //
    },
    completion::{
        self,
        Outcome, //
    },
    error::{
        Reason,
        Stop, //
    },
    extents::Extents,
    plan::Plan,
    range::Range,
    recovery,
    resources::Resources,
    route,
    run::{
        Runs,
        Spots, //
    },
    safe::{
        block::batch,
        btrfs::{
            device::DeviceHold,
            extent_lock::{
                ExtentLock,
                WriterLock,
                Writers, //
            },
            glance::{
                Glance,
                Watch, //
            },
            inode::{
                DioCount,
                InodeId, //
            },
        },
        clock,
        decode::MAX_EXTENT,
        owner::Owner,
        patience::Patience,
        user_pages::UserPages, //
    },
    stats::{
        self,
        Counter, //
    },
};
use kernel::prelude::*;

/// How often to find out again about extents that are not the file's any more, before they are kept
/// locked.
const STALE_TRIES: u32 = 3;
/// How often to read a range again whose extents have changed meanwhile.
const READ_TRIES: u32 = 8;

/// What it takes to submit a window that is planned; no extent is locked any more.
pub(crate) struct Ready<'a> {
    /// `None` if nothing is read from devices.
    pub(crate) hold: Option<DeviceHold<'a>>,
    /// `None` if direct writers need not be kept away.
    pub(crate) writers: Option<WriterLock<'a>>,
}

/// Plans a window, in the caller's memory or in private memory, as `attempt` says, or has to say in
/// the end.
///
/// Task context; sleeps, unless the manner forbids it; no extent bit and no hold on devices held.
pub(crate) fn prepare<'a>(
    resources: &Resources,
    inode: &DioCount<'a>,
    range: &Range,
    attempt: &mut Attempt,
    plan: &mut Plan,
    runs: &mut Runs,
) -> Result<Ready<'a>, Stop> {
    if resources.unstable.is_noted() {
        bounce_unstable(resources, inode, range, attempt);
    }
    match prepare_at_a_glance(resources, inode, range, attempt, plan, runs) {
        Ok(Some(ready)) => return Ok(ready),
        Err(Stop::Misfit) => attempt.placement = Placement::Private,
        // The lock will tell what was the matter.
        _ => {}
    }
    prepare_by_lock(resources, inode, range, attempt, plan, runs)
}

/// Returns what stands for the reads of a file by one owner: the buffers of another one are not known to
/// change.
pub(crate) fn reads_of(file: InodeId, owner: Owner) -> InodeId {
    // CAST: To be told apart, not followed.
    InodeId(file.0 ^ owner.0 as usize)
}

/// Has a window of a file be read into private memory, as the buffer of a read was seen to change.
///
/// Not if that read would have to wait for it: a window has not more than [`WINDOW`].
#[cold]
fn bounce_unstable(
    resources: &Resources,
    inode: &DioCount<'_>,
    range: &Range,
    attempt: &mut Attempt,
) {
    let owner = attempt.manner.owner.unwrap_or_else(Owner::current);
    let reads = reads_of(inode.inode().id(), owner);
    if !resources.unstable.holds(reads, clock::milliseconds) {
        return;
    }
    let fits = attempt.manner.patience == Patience::Wait || range.len <= WINDOW;
    if fits && attempt.placement == Placement::Direct {
        attempt.placement = Placement::Private;
        stats::count(Counter::BouncedUnstable);
    }
}

/// As [`prepare`], with the lock of the range.
// What most reads need not is kept apart from what they do.
#[inline(never)]
fn prepare_by_lock<'a>(
    resources: &Resources,
    inode: &DioCount<'a>,
    range: &Range,
    attempt: &mut Attempt,
    plan: &mut Plan,
    runs: &mut Runs,
) -> Result<Ready<'a>, Stop> {
    if !plan.is_empty() {
        // Of the glance.
        *plan = Plan::new(range);
    }
    let mut stale = 0u32;
    let had_reserved = attempt.reserved.is_some();
    // Each arm mends what cannot happen again, or once more after another, or not that often.
    loop {
        let locked = stale >= STALE_TRIES;
        match prepare_once(resources, inode, range, attempt, plan, runs, locked) {
            Err(Stop::Stale) if stale < STALE_TRIES => {
                start_over(plan, range, attempt);
                stale = stale.saturating_add(1);
            }
            Err(Stop::Misfit) if attempt.placement == Placement::Direct => {
                start_over(plan, range, attempt);
                attempt.placement = Placement::Private;
            }
            // The caller waits for the memory, without its locks; or does not, if it may not.
            Err(Stop::Budget(_)) if attempt.manner.patience == Patience::Nowait => {
                return Err(Stop::WouldWait);
            }
            Err(Stop::Budget(_)) if attempt.credit == Credit::Again => {
                return Err(Reason::Memory.into());
            }
            // What was waited for was too little. This is enough, whatever the extents are.
            Err(Stop::Budget(_)) if had_reserved => {
                let most = blocks(range).saturating_mul(MAX_EXTENT);
                return Err(Stop::Budget(most.min(WINDOW)));
            }
            other => return other,
        }
    }
}

/// Makes an empty plan of a window out of one that is of no use. The bounce memory that was reserved
/// for that is reserved for the next one.
fn start_over(plan: &mut Plan, range: &Range, attempt: &mut Attempt) {
    attempt.reserved = plan.take_reserved();
    *plan = Plan::new(range);
}

/// Returns in how many blocks a window is.
fn blocks(range: &Range) -> usize {
    range.len.checked_div(range.block).unwrap_or(0)
}

/// Plans a window of one extent of data, if all about it is known without reading any metadata, and
/// without locking the extent. `None` if it is not so.
///
/// If what has been learned is not right any more when the data arrives, then that does not match; or,
/// if it has no checksums, the extent is not current any more. Not for what did not match before.
fn prepare_at_a_glance<'a>(
    resources: &Resources,
    inode: &DioCount<'a>,
    range: &Range,
    attempt: &Attempt,
    plan: &mut Plan,
    runs: &mut Runs,
) -> Result<Option<Ready<'a>>, Stop> {
    let whole = range.len <= SMALL
        && range.direct(0, range.len) == Some((range.base, range.len))
        && attempt.manner.alignment & range.block.saturating_sub(1) == 0;
    let first = attempt.placement == Placement::Direct && attempt.reserved.is_none();
    if !whole || !first {
        return Ok(None);
    }
    // CAST: Widening.
    let len = range.len as u64;
    let summed = inode.inode().has_checksums();
    let writers = match writers(inode, summed) {
        Writers::Allowed => None,
        Writers::KeptAway => {
            match WriterLock::take(inode, range.start, len, attempt.manner.patience) {
                Ok(writers) => Some(writers),
                Err(_) => return Ok(None),
            }
        }
    };
    // No waiting: it would be after the glance if it were not before.
    let Ok(hold) = DeviceHold::take(inode.inode().fs(), Patience::Nowait) else {
        return Ok(None);
    };
    let Some(glance) = Glance::new(inode, range.start, len) else {
        return Ok(None);
    };
    if writers.as_ref().is_some_and(|writers| !writers.is_quiet()) {
        return Ok(None);
    }
    if !plan.make_at_a_glance(resources, &glance, range, summed)? {
        return Ok(None);
    }
    route::find(&plan.fetches, glance.watch(), &hold, attempt, runs)?;
    if !glance.is_current() {
        return Ok(None);
    }
    plan.keep_one(glance.into_map());
    stats::count(Counter::Unlocked);
    Ok(Some(Ready {
        hold: Some(hold),
        writers,
    }))
}

/// Returns whether direct writers are kept away while a window of a file is read, which has checksums
/// or not.
pub(crate) fn writers(inode: &DioCount<'_>, summed: bool) -> Writers {
    if summed || !inode.inode().is_overwritten_in_place() {
        Writers::Allowed
    } else {
        Writers::KeptAway
    }
}

/// As [`prepare_by_lock`], but only once. `locked`: the extents are to be kept locked until all is
/// known of them, since they kept changing.
fn prepare_once<'a>(
    resources: &Resources,
    inode: &DioCount<'a>,
    range: &Range,
    attempt: &mut Attempt,
    plan: &mut Plan,
    runs: &mut Runs,
    locked: bool,
) -> Result<Ready<'a>, Stop> {
    if !runs.is_empty() {
        // Of an attempt before.
        *runs = Runs::new();
    }
    attempt.may_put_off &= !locked;
    let patience = attempt.manner.patience;
    // CAST: Widening.
    let len = range.len as u64;
    inode
        .write_back_compressed(range.start, len, patience)
        .map_err(Stop::Fail)?;

    let writers = writers(inode, inode.inode().has_checksums());
    let lock = ExtentLock::new(inode, range.start, len, writers, LOCK_TRIES, patience)
        .map_err(Stop::from_mapping)?
        .ok_or(Reason::Busy)?;
    let mut extents = Extents::find(&lock, range, patience)?;
    let (lock, writers) = match locked {
        true => (Some(lock), None),
        false => (None, lock.unlock_extents()),
    };
    let learned = learn(resources, inode, &mut extents, range, attempt, plan, runs);
    // Who holds the lock need not ask: a map can be forgotten as well, for want of memory.
    let current = lock.is_some() || extents.are_current();
    let hold = match learned {
        // What is not the file's any more may be anybody's, or nobody's.
        Ok(_) | Err(Stop::Decline(_)) if !current => return Err(Stop::Stale),
        learned => learned?,
    };
    plan.keep(extents, attempt);
    let writers = writers.or_else(|| lock.and_then(ExtentLock::unlock_extents));
    Ok(Ready { hold, writers })
}

/// Learns all that is to be known of the extents of a window. Returns a hold on the devices if they
/// are read. All of it, and each reason to decline, counts if the extents are current afterwards.
fn learn<'a>(
    resources: &Resources,
    inode: &DioCount<'a>,
    extents: &mut Extents,
    range: &Range,
    attempt: &mut Attempt,
    plan: &mut Plan,
    runs: &mut Runs,
) -> Result<Option<DeviceHold<'a>>, Stop> {
    let patience = attempt.manner.patience;
    plan.make(resources, inode.inode(), extents, range, attempt)?;
    if !plan.reads_devices() {
        return Ok(None);
    }
    let mut cuts = 0u64;
    loop {
        // Before the hold, and the read side of RCU, where there is no waiting for memory.
        runs.reset(&plan.fetches, cuts, patience.gfp())?;
        // After the checksums: with a hold on the devices no metadata may be read.
        let hold = DeviceHold::take(inode.inode().fs(), patience).map_err(Stop::from_mapping)?;
        match route::find(&plan.fetches, &Watch::new(), &hold, attempt, runs) {
            // Ends: a run has at least one block.
            Err(Stop::NoRoom) => cuts = cuts.saturating_mul(2).saturating_add(1),
            found => {
                found?;
                return Ok(Some(hold));
            }
        }
    }
}

/// Takes a hold on devices for a window of which nothing is read from them, so that it can be launched
/// all the same. Sleeps, unless the manner forbids it.
pub(crate) fn hold<'a>(inode: &DioCount<'a>, manner: &Manner) -> Result<DeviceHold<'a>, Stop> {
    DeviceHold::take(inode.inode().fs(), manner.patience).map_err(Stop::from_mapping)
}

/// Returns what it takes to submit nothing. Sleeps, unless the manner forbids it.
pub(crate) fn nothing<'a>(inode: &DioCount<'a>, manner: &Manner) -> Result<Ready<'a>, Stop> {
    Ok(Ready {
        hold: Some(hold(inode, manner)?),
        writers: None,
    })
}

/// Reads a window into the first bytes of `pages`, and returns how many bytes it was cut down to,
/// at least one.
///
/// `reserved` is bounce memory that the caller has waited for, if any, and is given back for the next
/// window. `Stop::Budget` if it has to wait for more, without a lock.
///
/// Task context; no extent bit held. On return no I/O is in flight. It waits for devices even if
/// the manner forbids to wait for anything else.
pub(crate) fn read(
    resources: &Resources,
    inode: &DioCount<'_>,
    range: &Range,
    pages: &UserPages<'_>,
    manner: &Manner,
    reserved: &mut Option<Reservation>,
) -> Result<usize, Stop> {
    let mut attempt = Attempt::first(manner);
    attempt.may_put_off = true;
    attempt.reserved = reserved.take();
    let mut plan = Plan::new(range);
    let mut runs = Runs::new();
    let nowait = manner.patience == Patience::Nowait;
    match prepare(resources, inode, range, &mut attempt, &mut plan, &mut runs) {
        Err(Stop::Absent) if !nowait => {
            let before = (Outcome::Failed, Spots::new());
            // Its private memory has to be given back before more is asked for.
            drop((plan, runs));
            read_again(resources, inode, range, pages, manner, before)
        }
        Err(Stop::Absent) => Err(Stop::WouldWait),
        Err(stop) => Err(stop),
        Ok(_) if nowait && plan.range != *range => Err(Stop::WouldWait),
        Ok(ready) => {
            let read = read_now(
                resources, inode, range, pages, &attempt, ready, &mut plan, &mut runs,
            )?;
            *reserved = plan.take_reserved();
            Ok(read)
        }
    }
}

/// Reads a window that has been prepared, as [`read`] does.
#[expect(clippy::too_many_arguments, reason = "what `prepare` takes and makes")]
pub(crate) fn read_now(
    resources: &Resources,
    inode: &DioCount<'_>,
    range: &Range,
    pages: &UserPages<'_>,
    attempt: &Attempt,
    ready: Ready<'_>,
    plan: &mut Plan,
    runs: &mut Runs,
) -> Result<usize, Stop> {
    let mut spots = Spots::new();
    spots.note_if_cheap(runs);
    let outcome = deliver(resources, inode, ready, plan, runs, &spots, attempt, pages)?;
    if outcome == Outcome::Right {
        return Ok(plan.range.valid);
    }
    // Its private memory has to be given back before more is asked for.
    *plan = Plan::new(range);
    *runs = Runs::new();
    let manner = &attempt.manner;
    read_again(resources, inode, range, pages, manner, (outcome, spots))
}

/// Reads a window again that has been read with this outcome, of these spots, until it is right: of
/// the same spots, as far as it still is there, or who is to blame would not be known. Returns how
/// many bytes it was cut down to.
///
/// As [`read`], but may wait.
pub(crate) fn read_again(
    resources: &Resources,
    inode: &DioCount<'_>,
    range: &Range,
    pages: &UserPages<'_>,
    manner: &Manner,
    (mut outcome, spots): (Outcome, Spots),
) -> Result<usize, Stop> {
    let mut attempt = Attempt::first(manner);
    attempt.spots = spots;
    attempt.manner.patience = Patience::Wait;
    // The caller has locks, and others may wait for what it holds.
    attempt.credit = Credit::Again;
    for _ in 0..READ_TRIES {
        match outcome {
            Outcome::Right => {}
            // What does not match now need not have been changed by the owner of the buffer.
            Outcome::Changed => attempt.failed = attempt.failed.map(|_| Outcome::Failed),
            Outcome::Misfit => attempt.placement = Placement::Private,
            Outcome::Mismatch | Outcome::Failed => {
                attempt.placement = Placement::Private;
                attempt.failed = Some(outcome);
            }
        }
        let mut plan = Plan::new(range);
        let mut runs = Runs::new();
        let ready = match prepare(resources, inode, range, &mut attempt, &mut plan, &mut runs) {
            Err(Stop::Absent) => {
                outcome = Outcome::Failed;
                continue;
            }
            prepared => prepared?,
        };
        let (plan, runs) = (&mut plan, &mut runs);
        let spots;
        (outcome, spots) = if attempt.failed.is_some() {
            recovery::recover(resources, inode, ready, plan, runs, pages, &attempt)?
        } else {
            let mut spots = Spots::new();
            spots.note_if_cheap(runs);
            let outcome = deliver(resources, inode, ready, plan, runs, &spots, &attempt, pages)?;
            (outcome, spots)
        };
        if outcome == Outcome::Right {
            return Ok(plan.range.valid);
        }
        attempt.spots = spots;
    }
    Err(Reason::Busy.into())
}

/// Delivers a window that reads nothing from devices.
pub(crate) fn deliver_now(
    resources: &Resources,
    ready: Ready<'_>,
    plan: &mut Plan,
    pages: &UserPages<'_>,
) -> Result<(), Stop> {
    drop(ready);
    plan.deliveries.before(resources, plan.range.block, pages)?;
    plan.tally.note();
    Ok(())
}

/// Submits a window, waits for it, and finishes it. Returns what became of it.
#[expect(clippy::too_many_arguments, reason = "what `prepare` takes and makes")]
fn deliver(
    resources: &Resources,
    inode: &DioCount<'_>,
    mut ready: Ready<'_>,
    plan: &mut Plan,
    runs: &mut Runs,
    spots: &Spots,
    attempt: &Attempt,
    pages: &UserPages<'_>,
) -> Result<Outcome, Stop> {
    let Some(hold) = ready.hold.take() else {
        return deliver_now(resources, ready, plan, pages).map(|()| Outcome::Right);
    };
    let block = plan.range.block;
    let mut late = plan.take_late();
    let (before, looked_up, status) = {
        let Plan {
            fetches,
            deliveries,
            ..
        } = &mut *plan;
        let fetches = &*fetches;
        let manner = &attempt.manner;
        batch::wait_for(
            hold,
            |submitter| {
                let pool = &resources.pool;
                bio::submit(submitter, pool, runs, fetches, pages, manner, spots);
                match deliveries.is_empty() {
                    true => Ok(()),
                    false => deliveries.before(resources, block, pages),
                }
            },
            || match &mut late {
                Some(expected) => look_up_late(resources, inode, expected),
                None => Ok(()),
            },
        )
    };
    before?;
    // Of data that has not arrived nobody asks whether it is right.
    if late.is_some() && status.is_ok() {
        // What was looked up is of these extents if they still are the file's, and so is that it
        // cannot be.
        match looked_up {
            Ok(()) | Err(Stop::Decline(_)) if !plan.is_current() => return Ok(Outcome::Changed),
            looked_up => looked_up?,
        }
        // From here on the checksums tell.
        plan.release();
        plan.fetches.expected = late;
    }
    let outcome = completion::finish(resources, plan, attempt.placement, pages, status);
    // Where it is: to move it would be to copy it.
    ready.writers = None;
    let outcome = outcome?;
    if outcome == Outcome::Right {
        plan.tally.note();
    }
    Ok(outcome)
}

/// Looks up the checksums that were put off, while data is on its way. Sleeps.
fn look_up_late(
    resources: &Resources,
    inode: &DioCount<'_>,
    expected: &mut Expected,
) -> Result<(), Stop> {
    stats::count(Counter::ChecksumsLate);
    let lookup = Lookup {
        fs: inode.inode().fs(),
        cache: Some(&resources.checksums),
        patience: Patience::Wait,
        may_put_off: false,
    };
    expected.look_up_late(&lookup)
}
