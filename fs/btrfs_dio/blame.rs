// SPDX-License-Identifier: GPL-2.0

//! Which device something is on, and what it is blamed for.
//!
//! btrfs counts an error for each bio of its own that fails, so `btrfs device stats` says how many of
//! them did. The bios of this module are longer: one run may stand for many of them. A run that fails
//! says that one of these would have failed at least, but not which. So errors are counted when the
//! window is read again, in pieces that are no longer than a bio of btrfs: one for each such bio of
//! which a piece fails again. A run all of which can be read then has failed once.
//!
//! | what btrfs reads              | its bios                                                       |
//! |-------------------------------|----------------------------------------------------------------|
//! | an extent, for the first time | end after [`MOST_BLOCKS`] blocks, with a stripe, with a chunk  |
//! | a block of another mirror     | one                                                            |
//!
//! Rule: `btrfs_dio_iomap_begin()`, fs/btrfs/direct-io.c; `btrfs_submit_chunk()` and
//! `repair_one_sector()`, fs/btrfs/bio.c; `btrfs_max_io_len()`, fs/btrfs/volumes.c.

use crate::{
    error::Stop,
    fetch::Fetch,
    run::{
        Spot,
        Spots, //
    },
    safe::{
        btrfs::{
            chunk::{
                ChunkMap,
                Stripe, //
            },
            device::DeviceHold,
            glance::Watch,
            inode::DioCount,
        },
        patience::Patience,
    },
    stripe::{
        self,
        Way,
        STRIPE_LEN, //
    },
};
use kernel::prelude::*;

/// How many blocks btrfs reads by one bio at most: `BIO_MAX_VECS`.
const MOST_BLOCKS: u64 = 256;

/// A bio of btrfs, as far as it is told from others.
#[derive(Clone, Copy, PartialEq, Eq)]
struct BtrfsBio {
    /// Number of the extent, or of the extents that follow each other, among those of the window.
    extent: usize,
    /// Number among the longest possible bios of the extent.
    nr: u64,
    /// Logical address of the chunk.
    chunk: u64,
    /// Number of the stripe in the chunk, if it is striped.
    stripe: u64,
}

/// Counts errors of devices, and tells of them.
///
/// Rule: `btrfs_log_dev_io_error()`, fs/btrfs/bio.c.
struct Counting<'c, 'h> {
    watch: &'c Watch,
    hold: &'c DeviceHold<'h>,
}

impl Counting<'_, '_> {
    /// Runs `f` with a hold on the devices of a file.
    ///
    /// Task context, sleeps; no hold on devices held.
    fn of(inode: &DioCount<'_>, f: impl FnOnce(Counting<'_, '_>)) -> Result<(), Stop> {
        let hold = DeviceHold::take(inode.inode().fs(), Patience::Wait);
        let hold = hold.map_err(Stop::from_mapping)?;
        let watch = Watch::new();
        f(Counting {
            watch: &watch,
            hold: &hold,
        });
        Ok(())
    }

    /// Counts `times` errors of the device of a spot, if it still has its place.
    fn count(&self, spot: &Spot, error: Error, times: usize) {
        let stripe = locate(self.watch, self.hold, spot.logical, spot.copy);
        let device = stripe
            .and_then(|(_, stripe)| stripe)
            .map(|stripe| stripe.device)
            .filter(|device| device.id() == spot.id);
        if let Some(device) = device {
            for _ in 0..times {
                device.count_read_error(error);
            }
        }
    }

    /// Counts an error for each spot that has failed, been read again as a whole, and not failed then.
    fn count_passed(&self, before: &Spots, again: &Spots) {
        for (spot, error) in before.failed() {
            if read_again(spot, again) == spot.len() && !fails_again(spot, again) {
                self.count(spot, error, 1);
            }
        }
    }
}

/// Returns how many bytes of a spot were read again.
fn read_again(spot: &Spot, again: &Spots) -> usize {
    let parts = again.as_slice().iter().filter(|part| spot.reaches(part));
    parts.fold(0, |sum, part| sum.saturating_add(part.len()))
}

/// Returns whether any part of a spot has failed again.
fn fails_again(spot: &Spot, again: &Spots) -> bool {
    again.failed().any(|(part, _)| spot.reaches(part))
}

/// Counts the errors of a window that has been read `again` into private memory, each run within one
/// stripe's length, since spots of the attempt `before` had failed.
///
/// What was not read again is not counted; see [`count_rest`].
/// Task context, sleeps; no hold on devices held.
pub(crate) fn count_repeated(
    inode: &DioCount<'_>,
    fetches: &[Fetch],
    block_size: usize,
    before: &Spots,
    again: &Spots,
) -> Result<(), Stop> {
    if before.failed().next().is_none() && again.failed().next().is_none() {
        return Ok(());
    }
    let spots = again.as_slice();
    let places = Extents::new(fetches).places(spots)?;
    // CAST: Widening.
    let most = (block_size as u64).saturating_mul(MOST_BLOCKS);
    Counting::of(inode, |counting| {
        let bio = |nr: usize| -> Option<BtrfsBio> {
            let (extent, offset) = *places.get(nr)?;
            let logical = spots.get(nr)?.logical;
            let map = ChunkMap::get(counting.watch, counting.hold, logical).ok()?;
            let shape = map.shape();
            let stripe = match stripe::is_striped(&shape) {
                true => logical.checked_sub(shape.start)? / STRIPE_LEN,
                false => 0,
            };
            Some(BtrfsBio {
                extent,
                nr: offset.checked_div(most)?,
                chunk: shape.start,
                stripe,
            })
        };
        // The bio of the last spot that has failed, and the first such spot of that bio.
        let mut last: Option<(BtrfsBio, usize)> = None;
        for (nr, spot) in spots.iter().enumerate() {
            let (Err(error), Some(bio)) = (spot.mark.status(), bio(nr)) else {
                continue;
            };
            let from = match last {
                Some((same, from)) if same == bio => from,
                _ => nr,
            };
            last = Some((bio, from));
            let mut earlier = spots.get(from..nr).unwrap_or_default().iter();
            if !earlier.any(|other| other.id == spot.id && other.mark.status().is_err()) {
                counting.count(spot, error, 1);
            }
        }
        counting.count_passed(before, again);
    })
}

/// Counts the errors of what had failed `before`, and was not read `again`, because the read fails
/// anyway: as many as btrfs had bios for that.
///
/// Task context, sleeps; no hold on devices held.
pub(crate) fn count_rest(
    inode: &DioCount<'_>,
    block_size: usize,
    before: &Spots,
    again: &Spots,
) -> Result<(), Stop> {
    if before.failed().next().is_none() {
        return Ok(());
    }
    // CAST: Widening.
    let most = (block_size as u64).saturating_mul(MOST_BLOCKS);
    Counting::of(inode, |counting| {
        for (spot, error) in before.failed() {
            let map = ChunkMap::get(counting.watch, counting.hold, spot.logical);
            let most = match map.map(|map| stripe::is_striped(&map.shape())) {
                Ok(true) => STRIPE_LEN,
                _ => most,
            };
            // CAST: At most the length of a window.
            let most = most as usize;
            let rest = spot.len().saturating_sub(read_again(spot, again));
            let bios = rest
                .saturating_add(most.saturating_sub(1))
                .checked_div(most);
            counting.count(spot, error, bios.unwrap_or(0));
        }
    })
}

/// Counts the errors of blocks that were read of another mirror: the blocks of a run of several that
/// has failed were read `again`, one by one.
///
/// Task context, sleeps; no hold on devices held.
pub(crate) fn count_blocks(
    inode: &DioCount<'_>,
    block_size: usize,
    spots: &Spots,
    again: &Spots,
) -> Result<(), Stop> {
    if spots.failed().next().is_none() {
        return Ok(());
    }
    Counting::of(inode, |counting| {
        let single = spots.failed().filter(|(spot, _)| spot.len() <= block_size);
        for (spot, error) in Iterator::chain(single, again.failed()) {
            counting.count(spot, error, 1);
        }
        counting.count_passed(spots, again);
    })
}

/// What a window fetches, as extents: fetches that follow each other in the file and in the logical
/// address space are one, as they are for btrfs.
struct Extents<'f> {
    fetches: &'f [Fetch],
}

impl<'f> Extents<'f> {
    fn new(fetches: &'f [Fetch]) -> Self {
        Self { fetches }
    }

    /// Returns for each spot, in the order of the fetches, the number of its extent and its offset in that.
    fn places(&self, spots: &[Spot]) -> Result<KVVec<(usize, u64)>, Stop> {
        let mut places = KVVec::with_capacity(spots.len(), GFP_KERNEL)?;
        let mut spots = spots.iter().peekable();
        // The number of the extent, where the fetch begins in it, and the fetch before.
        let (mut extent, mut offset) = (0usize, 0u64);
        let mut before: Option<&Fetch> = None;
        for fetch in self.fetches {
            let follows = before.is_some_and(|before| {
                // CAST: Widening.
                let len = before.len as u64;
                before.logical.checked_add(len) == Some(fetch.logical)
                    && before.file.checked_add(len) == Some(fetch.file)
            });
            match before {
                // CAST: Widening.
                Some(before) if follows => offset = offset.saturating_add(before.len as u64),
                Some(_) => (extent, offset) = (extent.saturating_add(1), 0),
                None => {}
            }
            before = Some(fetch);
            let mut from = fetch.logical;
            let within = |spot: &&Spot, from: u64| {
                let skipped = spot.logical.checked_sub(fetch.logical);
                // CAST: Widening.
                spot.logical >= from && skipped.is_some_and(|skipped| skipped < fetch.len as u64)
            };
            while let Some(spot) = spots.next_if(|spot| within(spot, from)) {
                let skipped = spot.logical.saturating_sub(fetch.logical);
                places.push((extent, offset.saturating_add(skipped)), GFP_KERNEL)?;
                // CAST: Widening.
                from = spot.logical.saturating_add(spot.len() as u64);
            }
        }
        Ok(places)
    }
}

/// Finds a copy of what is at a logical address: how it is read, and, if from one place, where.
pub(crate) fn locate<'h>(
    watch: &'h Watch,
    hold: &'h DeviceHold<'_>,
    logical: u64,
    copy: u32,
) -> Option<(Way, Option<Stripe<'h>>)> {
    let map = ChunkMap::get(watch, hold, logical).ok()?;
    let shape = map.shape();
    let place = stripe::place(&shape, logical, 1).ok()?;
    match stripe::way(&shape, &place, copy)? {
        Way::Rebuilt => Some((Way::Rebuilt, None)),
        Way::Stripe(nr) => {
            let stripe = map.stripe(nr)?;
            let physical = stripe.physical.checked_add(place.offset)?;
            let stripe = Stripe { physical, ..stripe };
            Some((Way::Stripe(nr), Some(stripe)))
        }
    }
}
