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
    stripe::{
        self,
        Place, //
    },
};
use kernel::{
    current,
    prelude::*, //
};

/// A stretch of a window that lies together on a device. In bytes.
pub(crate) struct Run<'h> {
    device: Device<'h>,
    open: OpenDevice<'h>,
    /// Where on the device.
    physical: u64,
    /// Where in the window.
    at: usize,
    len: usize,
}

impl<'h> Run<'h> {
    /// Appends what comes next, if it lies next to this on the same device.
    fn extend(&mut self, next: &Run<'h>) -> bool {
        // CAST: Widening.
        let fits = self.device.is(next.device)
            && self.physical.checked_add(self.len as u64) == Some(next.physical)
            && self.at.checked_add(self.len) == Some(next.at);
        if fits {
            self.len = self.len.saturating_add(next.len);
        }
        fits
    }
}

/// Finds the runs of a plan. Under the extent lock and a hold on the devices.
pub(crate) fn map<'h>(plan: &Plan, hold: &'h DeviceHold<'_>) -> Result<KVVec<Run<'h>>, Stop> {
    let mut runs: KVVec<Run<'h>> = KVVec::new();
    let mut chunk: Option<(ChunkMap<'h>, Shape)> = None;
    for segment in plan.segments() {
        let Source::Disk { logical } = segment.source else {
            continue;
        };
        map_segment(segment, logical, hold, &mut chunk, &mut runs)?;
    }
    Ok(runs)
}

/// Adds the runs of a segment. `chunk` is the chunk that was used last.
fn map_segment<'h>(
    segment: &Segment,
    logical: u64,
    hold: &'h DeviceHold<'_>,
    chunk: &mut Option<(ChunkMap<'h>, Shape)>,
    runs: &mut KVVec<Run<'h>>,
) -> Result<(), Stop> {
    let mut done = 0usize;
    while done < segment.len {
        // CAST: Widening.
        let address = logical.checked_add(done as u64).ok_or(Reason::Mapping)?;
        let left = segment.len.saturating_sub(done);
        let known = chunk.take().filter(|(_, shape)| contains(shape, address));
        let (map, shape) = match known {
            Some(known) => known,
            None => {
                let map = ChunkMap::get(hold, address).map_err(Stop::from_mapping)?;
                let shape = map.shape();
                (map, shape)
            }
        };
        let place = stripe::place(&shape, address, left as u64)?;
        let stripe = choose(&map, &place, hold).ok_or(Reason::Mapping)?;
        *chunk = Some((map, shape));
        // CAST: At most `left`, a `usize`.
        let len = place.len as usize;
        let run = Run {
            device: stripe.device,
            open: stripe.device.open().ok_or(Reason::Io)?,
            physical: stripe
                .physical
                .checked_add(place.offset)
                .ok_or(Reason::Mapping)?,
            at: segment.at.saturating_add(done),
            len,
        };
        let merged = runs.last_mut().is_some_and(|last| last.extend(&run));
        if !merged {
            runs.push(run, GFP_KERNEL)?;
        }
        done = done.saturating_add(len);
    }
    Ok(())
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
    let chosen = mirror::by_pid(current!().pid(), place.copies, |n| match nth(n) {
        Some(stripe) if !stripe.device.is_present() => Copy::Missing,
        Some(stripe) if stripe.device.is_avoided(hold) => Copy::Avoided,
        Some(_) => Copy::Good,
        None => Copy::Missing,
    });
    nth(chosen)
}

/// Reads `runs` into `pages`, calls `meanwhile`, and waits until all has arrived or failed.
///
/// Task context, sleeps; no extent bit held.
pub(crate) fn read(
    pool: &BioPool,
    hold: &DeviceHold<'_>,
    runs: &[Run<'_>],
    pages: &UserPages,
    ioprio: u16,
    meanwhile: impl FnOnce(),
) -> Result {
    let (submitted, status) = with_batch(hold, |batch| {
        let submitted = plugged(|| {
            let mut cursor = Cursor::default();
            let mut behind = 0usize;
            runs.iter().try_for_each(|run| {
                pages.skip(&mut cursor, run.at.saturating_sub(behind));
                behind = run.at.saturating_add(run.len);
                submit(batch, pool, hold, run, pages, &mut cursor, ioprio)
            })
        });
        meanwhile();
        submitted
    });
    submitted.and(status)
}

/// Submits the bios of a run: one, unless its memory is in more pieces than a bio can have.
fn submit<'p>(
    batch: &Batch<'p>,
    pool: &'p BioPool,
    hold: &DeviceHold<'_>,
    run: &Run<'_>,
    pages: &'p UserPages,
    cursor: &mut Cursor,
    ioprio: u16,
) -> Result {
    let mut done = 0usize;
    while done < run.len {
        let left = run.len.saturating_sub(done);
        // CAST: Widening.
        let physical = run.physical.checked_add(done as u64).ok_or(EINVAL)?;
        let pieces = pages.count_pieces(*cursor, left);
        let mut bio = ReadBio::new(pool, &run.open, physical, pieces, ioprio)?;
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
        batch.submit(bio, hold.another());
        stats::count(Counter::Bios);
        done = done.saturating_add(filled);
    }
    Ok(())
}
