// SPDX-License-Identifier: GPL-2.0

//! Which device something is on, and what it is blamed for.

use crate::{
    error::Stop,
    run::Spots,
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
        Way, //
    },
};

/// Counts what could not be read as errors of the devices, and tells of them, as btrfs does: one for
/// each run. Not what had `failed` before, and was counted then.
///
/// Rule: `btrfs_log_dev_io_error()`, fs/btrfs/bio.c, which is called for each bio that is submitted.
/// Task context, sleeps; no hold on devices held.
pub(crate) fn count_errors(
    inode: &DioCount<'_>,
    spots: &Spots,
    failed: &Spots,
) -> Result<(), Stop> {
    if spots.failed().next().is_none() {
        return Ok(());
    }
    let hold = DeviceHold::take(inode.inode().fs(), Patience::Wait);
    let hold = hold.map_err(Stop::from_mapping)?;
    let watch = Watch::new();
    for (spot, error) in spots.failed() {
        // Not another one that has taken its place meanwhile.
        let stripe = locate(&watch, &hold, spot.logical, spot.copy);
        let device = stripe
            .and_then(|(_, stripe)| stripe)
            .map(|stripe| stripe.device)
            .filter(|device| device.id() == spot.id && !failed.has_failed(spot));
        if let Some(device) = device {
            device.count_read_error(error);
        }
    }
    Ok(())
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
