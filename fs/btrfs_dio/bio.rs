// SPDX-License-Identifier: GPL-2.0

//! From a plan to bios: one for each contiguous run of a device.

use crate::{
    error::{
        Reason,
        Stop, //
    },
    mirror::{
        self,
        Copy, //
    },
    plan::{
        Plan,
        Segment,
        Source, //
    },
    safe::{
        block::{
            batch::{
                with_batch,
                Batch, //
            },
            bio::ReadBio,
            plug::plugged,
            pool::BioPool, //
        },
        btrfs::{
            chunk::{
                ChunkMap,
                Shape,
                Stripe, //
            },
            device::{
                Device,
                DeviceHold,
                OpenDevice, //
            },
            extent_lock::ExtentLock,
            fs::FsInfo,
        },
        task,
        user_pages::{
            Cursor,
            UserPages, //
        },
    },
    stats::{
        self,
        Counter, //
    },
    stripe::{
        self,
        Place, //
    },
};
use kernel::prelude::*;

/// A stretch of a window that lies together on a device. In bytes.
pub(crate) struct Run<'a> {
    device: OpenDevice<'a>,
    /// Where on the device.
    physical: u64,
    /// Where in the window.
    at: usize,
    len: usize,
}

/// The chunk that was used last, and the device of the last run.
struct Last<'h> {
    chunk: Option<(ChunkMap<'h>, Shape)>,
    device: Option<Device<'h>>,
}

/// Finds the runs of a plan. Under the extent lock and a hold on the devices; the runs have holds
/// of their own.
pub(crate) fn map<'a>(
    plan: &Plan,
    lock: &ExtentLock<'_>,
    hold: &DeviceHold<'a>,
) -> Result<KVVec<Run<'a>>, Stop> {
    let mut runs = KVVec::new();
    let mut last = Last {
        chunk: None,
        device: None,
    };
    for segment in plan.segments() {
        if let Source::Disk { logical } = segment.source {
            map_segment(segment, logical, lock, hold, &mut last, &mut runs)?;
        }
    }
    Ok(runs)
}

/// Adds the runs of a segment.
fn map_segment<'h, 'a>(
    segment: &Segment,
    logical: u64,
    lock: &'h ExtentLock<'_>,
    hold: &'h DeviceHold<'a>,
    last: &mut Last<'h>,
    runs: &mut KVVec<Run<'a>>,
) -> Result<(), Stop> {
    let mut done = 0usize;
    while done < segment.len {
        // CAST: Widening.
        let address = logical.checked_add(done as u64).ok_or(Reason::Mapping)?;
        let left = segment.len.saturating_sub(done);
        let (map, shape) = match last.chunk.take().filter(|(_, s)| contains(s, address)) {
            Some(known) => known,
            None => {
                let map = ChunkMap::get(lock, hold, address).map_err(Stop::from_mapping)?;
                let shape = map.shape();
                (map, shape)
            }
        };
        let place = stripe::place(&shape, address, left as u64)?;
        let stripe = choose(&map, &place, hold).ok_or(Reason::Mapping)?;
        last.chunk = Some((map, shape));
        let physical = stripe
            .physical
            .checked_add(place.offset)
            .ok_or(Reason::Mapping)?;
        let at = segment.at.saturating_add(done);
        // CAST: At most `left`, a `usize`.
        let len = place.len as usize;
        let same = last.device.is_some_and(|device| device.is(stripe.device));
        match runs.last_mut().filter(|_| same) {
            Some(run) if run.ends_at(physical, at) => run.len = run.len.saturating_add(len),
            _ => runs.push(
                Run {
                    device: stripe.device.open(hold).ok_or(Reason::Io)?,
                    physical,
                    at,
                    len,
                },
                GFP_KERNEL,
            )?,
        }
        last.device = Some(stripe.device);
        done = done.saturating_add(len);
    }
    Ok(())
}

impl Run<'_> {
    /// Returns whether it ends where, on the device and in the window, something begins.
    fn ends_at(&self, physical: u64, at: usize) -> bool {
        // CAST: Widening.
        self.physical.checked_add(self.len as u64) == Some(physical)
            && self.at.checked_add(self.len) == Some(at)
    }
}

/// Returns whether a chunk has a logical address.
fn contains(shape: &Shape, logical: u64) -> bool {
    logical
        .checked_sub(shape.start)
        .is_some_and(|offset| offset < shape.len)
}

/// Chooses the copy to read.
fn choose<'h>(map: &ChunkMap<'h>, place: &Place, hold: &DeviceHold<'_>) -> Option<Stripe<'h>> {
    if place.copies <= 1 {
        return map.stripe(place.first);
    }
    let nth = |n: u32| map.stripe(place.first.saturating_add(n));
    let chosen = mirror::by_pid(task::current_pid(), place.copies, |n| match nth(n) {
        Some(stripe) if !stripe.device.is_present() => Copy::Missing,
        Some(stripe) if stripe.device.is_avoided(hold) => Copy::Avoided,
        Some(_) => Copy::Good,
        None => Copy::Missing,
    });
    nth(chosen)
}

/// What became of the bios of a window.
pub(crate) struct Arrival {
    /// Whether all could be made.
    pub(crate) submitted: Result,
    /// Whether those that were have succeeded.
    pub(crate) status: Result,
}

/// Reads `runs` into `pages`, calls `meanwhile`, and waits until all has arrived or failed.
///
/// Task context, sleeps; no extent bit held.
pub(crate) fn read(
    fs: FsInfo<'_>,
    pool: &BioPool,
    runs: KVVec<Run<'_>>,
    pages: &UserPages<'_>,
    ioprio: u16,
    meanwhile: impl FnOnce(),
) -> Arrival {
    let (submitted, status) = with_batch(fs, |batch| {
        let submitted = plugged(|| {
            let mut cursor = Cursor::default();
            let mut behind = 0usize;
            runs.iter().try_for_each(|run| {
                pages.skip(&mut cursor, run.at.saturating_sub(behind));
                behind = run.at.saturating_add(run.len);
                submit(batch, pool, run, pages, &mut cursor, ioprio)
            })
        });
        meanwhile();
        submitted
    });
    // Only now: they keep the block devices.
    drop(runs);
    Arrival { submitted, status }
}

/// Submits the bios of a run: one, unless its memory is in more pieces than a bio can have.
fn submit<'p>(
    batch: &Batch<'p>,
    pool: &'p BioPool,
    run: &Run<'_>,
    pages: &'p UserPages<'_>,
    cursor: &mut Cursor,
    ioprio: u16,
) -> Result {
    let mut done = 0usize;
    while done < run.len {
        let left = run.len.saturating_sub(done);
        // CAST: Widening.
        let physical = run.physical.checked_add(done as u64).ok_or(EINVAL)?;
        let pieces = pages.count_pieces(*cursor, left);
        let mut bio = ReadBio::new(pool, &run.device, physical, pieces, ioprio)?;
        let mut filled = 0usize;
        while filled < left {
            let mut next = *cursor;
            let Some(piece) = pages.next_piece(&mut next, left.saturating_sub(filled)) else {
                return Err(EINVAL);
            };
            if !bio.add(piece) {
                break;
            }
            *cursor = next;
            filled = filled.saturating_add(piece.len());
        }
        if filled == 0 {
            return Err(EINVAL);
        }
        batch.submit(bio)?;
        stats::count(Counter::Bios);
        done = done.saturating_add(filled);
    }
    Ok(())
}
