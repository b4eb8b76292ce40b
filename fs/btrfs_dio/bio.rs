// SPDX-License-Identifier: GPL-2.0

//! From a plan to bios: one for each contiguous run of a device.

use crate::{
    error::{
        Reason,
        Stop, //
    },
    fetch::{
        Fetch,
        Fetches,
        Memory, //
    },
    few::Few,
    mirror::{
        self,
        Copy, //
    },
    safe::{
        block::{
            batch::Submitter,
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
            glance::Watch,
        },
        user_pages::UserPages,
        vecs::{
            Cursor,
            Vecs, //
        },
    },
    stats::{
        self,
        Counter, //
    },
    stripe::{
        self,
        Place,
        STRIPE_LEN, //
    },
    window::Manner, //
};
use kernel::{
    alloc::Flags,
    prelude::*, //
};

/// A stretch of a window that lies together on a device, and in memory. In bytes.
pub(crate) struct Run {
    device: OpenDevice,
    /// Where on the device.
    physical: u64,
    /// Where in memory.
    memory: Memory,
    len: usize,
}

/// The chunk that was used last, and the device of the last run.
struct Last<'h> {
    chunk: Option<(ChunkMap<'h>, Shape)>,
    device: Option<Device<'h>>,
}

/// Makes room for the runs of what a window fetches.
pub(crate) fn room(fetches: &Fetches, gfp: Flags) -> Result<Few<Run>, Stop> {
    let runs = fetches.list().iter().fold(0u64, |sum, fetch| {
        // CAST: Widening.
        let last = fetch
            .logical
            .saturating_add(fetch.len as u64)
            .saturating_sub(1);
        let stripes = (last / STRIPE_LEN).saturating_sub(fetch.logical / STRIPE_LEN);
        sum.saturating_add(stripes).saturating_add(1)
    });
    let runs = usize::try_from(runs).map_err(|_| Reason::Mapping)?;
    Ok(Few::with_room(runs, gfp)?)
}

/// Finds the runs of what a window fetches, with a hold on the devices. They are the right ones if
/// the extents are current afterwards. Does not sleep: `runs` is to have room for them.
pub(crate) fn map(
    fetches: &Fetches,
    watch: &Watch,
    hold: &DeviceHold<'_>,
    manner: &Manner,
    mut runs: Few<Run>,
) -> Result<Few<Run>, Stop> {
    let mut last = Last {
        chunk: None,
        device: None,
    };
    for fetch in fetches.list() {
        map_fetch(fetch, watch, hold, manner, &mut last, &mut runs)?;
    }
    Ok(runs)
}

/// Adds the runs of a fetch.
fn map_fetch<'h>(
    fetch: &Fetch,
    watch: &'h Watch,
    hold: &'h DeviceHold<'_>,
    manner: &Manner,
    last: &mut Last<'h>,
    runs: &mut Few<Run>,
) -> Result<(), Stop> {
    let mut done = 0usize;
    while done < fetch.len {
        // CAST: Widening.
        let address = fetch
            .logical
            .checked_add(done as u64)
            .ok_or(Reason::Mapping)?;
        let left = fetch.len.saturating_sub(done);
        let (map, shape) = match last.chunk.take().filter(|(_, s)| contains(s, address)) {
            Some(known) => known,
            None => {
                let map = ChunkMap::get(watch, hold, address).map_err(Stop::from_mapping)?;
                let shape = map.shape();
                (map, shape)
            }
        };
        let place = stripe::place(&shape, address, left as u64)?;
        let stripe = choose(&map, &place, hold, manner).ok_or(Reason::Mapping)?;
        last.chunk = Some((map, shape));
        let physical = stripe
            .physical
            .checked_add(place.offset)
            .ok_or(Reason::Mapping)?;
        let memory = fetch.memory.forward(done);
        // CAST: At most `left`, a `usize`.
        let len = place.len as usize;
        let same = last.device.is_some_and(|device| device.is(stripe.device));
        match runs.as_mut_slice().last_mut().filter(|_| same) {
            Some(run) if run.ends_at(physical, memory) => run.len = run.len.saturating_add(len),
            _ => {
                let device = stripe.device.open().ok_or(Reason::Io)?;
                let callers = matches!(memory, Memory::Caller { .. });
                if callers && manner.alignment & device.memory_mask() != 0 {
                    return Err(Stop::Misfit);
                }
                let run = Run {
                    device,
                    physical,
                    memory,
                    len,
                };
                runs.push(run, GFP_NOWAIT)?;
            }
        }
        last.device = Some(stripe.device);
        done = done.saturating_add(len);
    }
    Ok(())
}

impl Run {
    /// Returns whether it ends where, on the device and in memory, something begins.
    fn ends_at(&self, physical: u64, memory: Memory) -> bool {
        // CAST: Widening.
        self.physical.checked_add(self.len as u64) == Some(physical)
            && self.memory.forward(self.len) == memory
    }
}

/// Returns whether a chunk has a logical address.
fn contains(shape: &Shape, logical: u64) -> bool {
    logical
        .checked_sub(shape.start)
        .is_some_and(|offset| offset < shape.len)
}

/// Chooses the copy to read.
fn choose<'h>(
    map: &ChunkMap<'h>,
    place: &Place,
    hold: &DeviceHold<'_>,
    manner: &Manner,
) -> Option<Stripe<'h>> {
    if place.copies <= 1 {
        return map.stripe(place.first);
    }
    let nth = |n: u32| map.stripe(place.first.saturating_add(n));
    let chosen = mirror::by_pid(manner.pid, place.copies, |n| match nth(n) {
        Some(stripe) if !stripe.device.is_present() => Copy::Missing,
        Some(stripe) if stripe.device.is_avoided(hold) => Copy::Avoided,
        Some(_) => Copy::Good,
        None => Copy::Missing,
    });
    nth(chosen)
}

/// Submits the bios of all runs. If one cannot be made the set fails.
///
/// Task context, sleeps; no extent bit held.
pub(crate) fn submit<'p>(
    submitter: Submitter<'_, 'p>,
    pool: &'p BioPool,
    runs: &[Run],
    fetches: &'p Fetches,
    pages: &'p UserPages<'_>,
    ioprio: u16,
) {
    let mut callers = Cursor::default();
    let mut submit_all = || {
        for run in runs {
            let mut private = Cursor::default();
            let cursor = match run.memory {
                Memory::Caller { .. } => &mut callers,
                Memory::Private { .. } => &mut private,
            };
            let submitted = fetches
                .vecs(run.memory, pages)
                .ok_or(EINVAL)
                .and_then(|vecs| submit_run(submitter, pool, run, vecs, cursor, ioprio));
            if let Err(error) = submitted {
                submitter.fail(error);
                return;
            }
        }
    };
    match runs {
        // One bio has nothing to wait for.
        [_] => submit_all(),
        _ => plugged(submit_all),
    }
}

/// Submits the bio of a run.
fn submit_run<'p>(
    submitter: Submitter<'_, 'p>,
    pool: &'p BioPool,
    run: &Run,
    vecs: Vecs<'p>,
    cursor: &mut Cursor,
    ioprio: u16,
) -> Result {
    let (Memory::Caller { at } | Memory::Private { at, .. }) = run.memory;
    vecs.seek(cursor, at);
    let span = vecs.span(cursor, run.len).ok_or(EINVAL)?;
    submitter.submit(ReadBio::new(pool, &run.device, run.physical, span, ioprio)?);
    stats::count(Counter::Bios);
    Ok(())
}
