// SPDX-License-Identifier: GPL-2.0

//! Chunks: which devices a logical address lies on.
//!
//! C header: [`fs/btrfs/volumes.h`](srctree/fs/btrfs/volumes.h)

use super::{
    device::{
        Device,
        DeviceHold, //
    },
    glance::Watch,
};
use crate::bindings;
use core::{
    marker::PhantomData,
    ptr::NonNull, //
};
use kernel::prelude::*;

pub(crate) use super::shape::{
    Profile,
    Shape, //
};

/// A place on a device.
#[derive(Clone, Copy)]
pub(crate) struct Stripe<'h> {
    /// The device.
    pub(crate) device: Device<'h>,
    /// Where on it the stripe begins, in bytes.
    pub(crate) physical: u64,
}

/// A reference to the map of a chunk, under a hold on its devices.
///
/// # Invariants
///
/// `map` is a reference of ours; a hold, and a read side of RCU, live for `'h`, and the chunk had its
/// block group after that had begun. So its devices are there for `'h`: `btrfs_remove_block_group()`
/// comes before `btrfs_rm_device()` waits for those who read. That there is a map does not say so: it
/// outlives a block group that is frozen, as by a scrub or a trim.
pub(crate) struct ChunkMap<'h> {
    map: NonNull<bindings::btrfs_chunk_map>,
    _held: PhantomData<&'h DeviceHold<'h>>,
}

impl<'h> ChunkMap<'h> {
    /// Finds the chunk that `logical` lies in. `EINVAL` if there is none, or it is being removed. Any
    /// context that may take a lock for reading.
    ///
    /// The chunk is the right one if the extent that has the address is current afterwards.
    pub(crate) fn get(_watch: &'h Watch, hold: &'h DeviceHold<'_>, logical: u64) -> Result<Self> {
        let fs = hold.fs().as_raw();
        // SAFETY: The filesystem is mounted. A reference or null is returned.
        let map = unsafe { bindings::btrfs_find_chunk_map(fs, logical, 1) };
        // INVARIANT: A reference, ours; hold and watch are borrowed for `'h`. The block group is
        // asked for below, before anybody gets the map.
        let map = Self {
            map: NonNull::new(map).ok_or(EINVAL)?,
            _held: PhantomData,
        };
        let shape = map.shape();
        // SAFETY: The filesystem is mounted.
        let there =
            shape.contains(logical) && unsafe { bindings::bdio_has_block_group(fs, shape.start) };
        there.then_some(map).ok_or(EINVAL)
    }

    /// Returns the shape. The profile is the one that counts for reading, which for RAID5 and RAID6
    /// of a single data stripe is that of plain copies.
    pub(crate) fn shape(&self) -> Shape {
        let map = self.map.as_ptr();
        // SAFETY: By the type invariants the map is valid. These fields do not change, but on
        // filesystems that are not served; others do, so no Rust reference is formed.
        let (start, len, chunk_type, stripes, sub_stripes) = unsafe {
            (
                (*map).start,
                (*map).chunk_len,
                (*map).type_,
                (*map).num_stripes,
                (*map).sub_stripes,
            )
        };
        Shape {
            start,
            len,
            profile: profile(chunk_type),
            stripes: u32::try_from(stripes).unwrap_or(0),
            sub_stripes: u32::try_from(sub_stripes).unwrap_or(0),
        }
    }

    /// Returns stripe `index`, if there is one.
    pub(crate) fn stripe(&self, index: u32) -> Option<Stripe<'h>> {
        // SAFETY: By the type invariants the map is valid. This does not change.
        let stripes = unsafe { (*self.map.as_ptr()).num_stripes };
        if i64::from(index) >= i64::from(stripes) {
            return None;
        }
        // SAFETY: By the type invariants the map is valid, and has `num_stripes` stripes. A device
        // replacement that is finishing may put its target in the place of its source at this very
        // moment, hence volatile: either will do, as it goes on to wait for our hold before the
        // source is freed, and the target is a device of the filesystem.
        unsafe {
            let stripes =
                (&raw const (*self.map.as_ptr()).stripes).cast::<bindings::btrfs_io_stripe>();
            // CAST: Widening.
            let stripe = stripes.add(index as usize);
            Some(Stripe {
                device: Device::from_raw((&raw const (*stripe).dev).read_volatile()),
                physical: (*stripe).physical,
            })
        }
    }
}

/// Reads the profile out of the type of a chunk.
fn profile(chunk_type: u64) -> Profile {
    const RAID1: u64 = bindings::BTRFS_BLOCK_GROUP_RAID1 as u64
        | bindings::BTRFS_BLOCK_GROUP_RAID1C3 as u64
        | bindings::BTRFS_BLOCK_GROUP_RAID1C4 as u64;
    const RAID0: u64 = bindings::BTRFS_BLOCK_GROUP_RAID0 as u64;
    const RAID10: u64 = bindings::BTRFS_BLOCK_GROUP_RAID10 as u64;
    const DUP: u64 = bindings::BTRFS_BLOCK_GROUP_DUP as u64;
    const RAID5: u64 = bindings::BTRFS_BLOCK_GROUP_RAID5 as u64;
    const RAID6: u64 = bindings::BTRFS_BLOCK_GROUP_RAID6 as u64;
    const REMAPPED: u64 = bindings::BTRFS_BLOCK_GROUP_REMAPPED as u64;

    if chunk_type & REMAPPED != 0 {
        return Profile::Unknown;
    }
    match chunk_type & (RAID0 | RAID1 | RAID10 | DUP | RAID5 | RAID6) {
        0 => Profile::Single,
        DUP => Profile::Dup,
        RAID0 => Profile::Raid0,
        RAID10 => Profile::Raid10,
        bits if bits.is_power_of_two() && bits & RAID1 != 0 => Profile::Raid1,
        RAID5 => Profile::Raid5,
        RAID6 => Profile::Raid6,
        _ => Profile::Unknown,
    }
}

impl Drop for ChunkMap<'_> {
    fn drop(&mut self) {
        // SAFETY: By the type invariants a reference of ours.
        unsafe { bindings::bdio_free_chunk_map(self.map.as_ptr()) }
    }
}
