// SPDX-License-Identifier: GPL-2.0

//! One window of a read: lock, plan, submit, wait, check.

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
    hole, inline,
    plan::{
        Plan,
        Source, //
    },
    safe::{
        block::pool::BioPool,
        btrfs::{
            device::DeviceHold,
            extent_lock::{
                ExtentLock,
                Writers, //
            },
            inode::SharedInode,
        },
        user_pages::{
            Cursor,
            UserPages, //
        },
    },
    stats::{
        self,
        Counter, //
    },
};

/// How often to wait for writes in the range before the read is left to btrfs.
const LOCK_TRIES: u32 = 64;
/// How often to read a range again whose extents have changed meanwhile.
const READ_TRIES: u32 = 8;

/// A window, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Range {
    /// Offset in the file, a multiple of `block`.
    pub(crate) start: u64,
    /// Length, a multiple of `block`.
    pub(crate) len: usize,
    /// How much of it lies before the end of the file; the last block may lie across.
    pub(crate) valid: usize,
    /// Size of a block, a power of two.
    pub(crate) block: usize,
}

/// Reads a window into the first bytes of `pages`.
///
/// Task context, sleeps; no extent bit held. On return no I/O is in flight.
pub(crate) fn read(
    pool: &BioPool,
    inode: &SharedInode<'_>,
    range: &Range,
    pages: &UserPages<'_>,
    ioprio: u16,
) -> Result<(), Stop> {
    for _ in 0..READ_TRIES {
        match read_once(pool, inode, range, pages, ioprio)? {
            Outcome::Right => return Ok(()),
            Outcome::Changed => {}
        }
    }
    Err(Reason::Busy.into())
}

/// Reads a window, and says whether that was of use.
fn read_once(
    pool: &BioPool,
    inode: &SharedInode<'_>,
    range: &Range,
    pages: &UserPages<'_>,
    ioprio: u16,
) -> Result<Outcome, Stop> {
    // CAST: Widening.
    let len = range.len as u64;
    inode
        .write_back_compressed(range.start, len)
        .map_err(Stop::Fail)?;

    let writers = if inode.inode().has_checksums() {
        Writers::Allowed
    } else {
        Writers::KeptAway
    };
    let lock = ExtentLock::new(inode, range.start, len, writers, LOCK_TRIES)
        .map_err(Stop::from_mapping)?
        .ok_or(Reason::Busy)?;
    let plan = Plan::make(&lock, range)?;
    if !plan.reads_devices() {
        let _writers = lock.unlock_extents();
        fill(&plan, range, pages);
        return Ok(Outcome::Right);
    }

    // After the checksums: with a hold on the devices no metadata may be read.
    let fs = inode.inode().fs();
    let hold = DeviceHold::wait(fs);
    let runs = bio::map(&plan, &lock, &hold)?;
    // The runs have holds of their own.
    drop(hold);
    let writers = lock.unlock_extents();
    let arrival = bio::read(fs, pool, runs, pages, ioprio, || {
        fill(&plan, range, pages);
    });
    let outcome = completion::check(&plan, pages, &arrival);
    drop(writers);
    outcome
}

/// Fills in what does not come from a device.
fn fill(plan: &Plan, range: &Range, pages: &UserPages<'_>) {
    for segment in plan.segments() {
        let mut cursor = Cursor::default();
        // Nothing is written behind the end of the file.
        let len = segment.len.min(range.valid.saturating_sub(segment.at));
        let counter = match segment.source {
            Source::Disk { .. } => {
                stats::count(Counter::Regular);
                continue;
            }
            Source::Hole => Counter::Hole,
            Source::Prealloc => Counter::Prealloc,
            Source::Inline => Counter::Inline,
        };
        stats::count(counter);
        pages.skip(&mut cursor, segment.at);
        match (segment.source, plan.inline()) {
            (Source::Inline, Some(data)) => inline::fill(pages, &mut cursor, len, data.as_slice()),
            _ => hole::fill(pages, &mut cursor, len),
        }
    }
}
