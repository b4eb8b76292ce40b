// SPDX-License-Identifier: GPL-2.0

//! Where in a chunk a logical address lies.
//!
//! Rule: `btrfs_max_io_len()` and the `map_blocks_*()` functions for reading, fs/btrfs/volumes.c.

use crate::{
    error::Reason,
    safe::btrfs::chunk::{
        Profile,
        Shape, //
    },
};

/// How many bytes lie on one stripe before the next one's turn: `BTRFS_STRIPE_LEN`.
pub(crate) const STRIPE_LEN: u64 = 64 << 10;

/// A place in a chunk. In bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    /// Number of the first stripe that has a copy.
    pub(crate) first: u32,
    /// How many stripes from there on have one.
    pub(crate) copies: u32,
    /// Offset within each of these stripes.
    pub(crate) offset: u64,
    /// How far the place reaches, at most as far as was asked for.
    pub(crate) len: u64,
}

/// Finds the place of `len` bytes from `logical` on, as far as they lie together.
///
/// `Mapping` if the address is not in the chunk, or the chunk is
/// not of a shape that makes sense.
pub(crate) fn place(shape: &Shape, logical: u64, len: u64) -> Result<Place, Reason> {
    let offset = logical.checked_sub(shape.start).ok_or(Reason::Mapping)?;
    let left = shape
        .len
        .checked_sub(offset)
        .filter(|left| *left > 0)
        .ok_or(Reason::Mapping)?;
    if shape.stripes == 0 || len == 0 {
        return Err(Reason::Mapping);
    }
    let whole = Place {
        first: 0,
        copies: 1,
        offset,
        len: len.min(left),
    };
    match shape.profile {
        Profile::Single if shape.stripes == 1 => Ok(whole),
        Profile::Dup => Ok(whole),
        Profile::Raid1 => Ok(Place {
            copies: shape.stripes,
            ..whole
        }),
        Profile::Raid0 => striped(&whole, shape.stripes, 1),
        Profile::Raid10 => {
            let groups = shape
                .stripes
                .checked_div(shape.sub_stripes)
                .ok_or(Reason::Mapping)?;
            if groups.checked_mul(shape.sub_stripes) != Some(shape.stripes) {
                return Err(Reason::Mapping);
            }
            striped(&whole, groups, shape.sub_stripes)
        }
        Profile::Raid5 => rotated(&whole, shape.stripes, 1),
        Profile::Raid6 => rotated(&whole, shape.stripes, 2),
        Profile::Single | Profile::Unknown => Err(Reason::Mapping),
    }
}

/// Returns whether the next stripe's turn begins at a logical address of a chunk, which itself need not
/// begin at a multiple of what lies on one.
pub(crate) fn begins(shape: &Shape, logical: u64) -> bool {
    logical.wrapping_sub(shape.start) % STRIPE_LEN == 0
}

/// Returns how many bytes there are from a logical address of a chunk to the next one of which
/// [`begins`] says so.
pub(crate) fn rest(shape: &Shape, logical: u64) -> u64 {
    STRIPE_LEN.saturating_sub(logical.wrapping_sub(shape.start) % STRIPE_LEN)
}

/// Returns whether a chunk has the stripes of its data side by side, so that no read of one device is
/// longer than [`STRIPE_LEN`].
///
/// Rule: `BTRFS_BLOCK_GROUP_STRIPE_MASK`, fs/btrfs/volumes.h.
pub(crate) fn is_striped(shape: &Shape) -> bool {
    match shape.profile {
        Profile::Raid0 | Profile::Raid10 | Profile::Raid5 | Profile::Raid6 => true,
        Profile::Single | Profile::Dup | Profile::Raid1 | Profile::Unknown => false,
    }
}

/// Returns into how many places `len` bytes from `logical` on can fall, if their chunk begins at a
/// multiple of [`STRIPE_LEN`]. They are in at most one more if it begins elsewhere, and in one more for
/// each end of a chunk between them.
pub(crate) fn usual_places(logical: u64, len: u64) -> u64 {
    let last = logical.saturating_add(len).saturating_sub(1);
    (last / STRIPE_LEN)
        .saturating_sub(logical / STRIPE_LEN)
        .saturating_add(1)
}

/// How a copy is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// From the stripe of this number, at the offset of the place.
    Stripe(u32),
    /// It is rebuilt from other stripes.
    Rebuilt,
}

/// Returns how many copies there are of what a chunk has, rebuilt ones included.
///
/// Rule: `btrfs_chunk_map_num_copies()`, fs/btrfs/volumes.c. A place of RAID6 can be rebuilt without
/// any one of the others, in case that one is bad as well.
pub(crate) fn copies(shape: &Shape) -> u32 {
    match shape.profile {
        Profile::Single | Profile::Raid0 | Profile::Unknown => 1,
        Profile::Dup | Profile::Raid1 | Profile::Raid6 => shape.stripes,
        Profile::Raid10 => shape.sub_stripes,
        Profile::Raid5 => 2,
    }
}

/// Returns how copy number `copy` of a place, counted from 1, is read, if there is such.
pub(crate) fn way(shape: &Shape, place: &Place, copy: u32) -> Option<Way> {
    let behind = copy.checked_sub(1)?;
    if copy > copies(shape) {
        return None;
    }
    match shape.profile {
        Profile::Raid5 | Profile::Raid6 if copy > 1 => Some(Way::Rebuilt),
        _ => place.first.checked_add(behind).map(Way::Stripe),
    }
}

/// Finds the place in a chunk whose data goes round `groups` groups of `copies` stripes each.
fn striped(whole: &Place, groups: u32, copies: u32) -> Result<Place, Reason> {
    let groups_wide = u64::from(groups);
    let number = whole.offset / STRIPE_LEN;
    let within = whole.offset % STRIPE_LEN;
    let group = number.checked_rem(groups_wide).ok_or(Reason::Mapping)?;
    let row = number.checked_div(groups_wide).ok_or(Reason::Mapping)?;
    // Less than `groups`, which is a `u32`.
    let group = u32::try_from(group).map_err(|_| Reason::Mapping)?;
    Ok(Place {
        first: group.checked_mul(copies).ok_or(Reason::Mapping)?,
        copies,
        offset: row
            .checked_mul(STRIPE_LEN)
            .and_then(|row| row.checked_add(within))
            .ok_or(Reason::Mapping)?,
        len: whole.len.min(STRIPE_LEN.saturating_sub(within)),
    })
}

/// Finds the place in a chunk whose data goes round all `stripes` stripes but `parities`, which are
/// others in each row.
fn rotated(whole: &Place, stripes: u32, parities: u32) -> Result<Place, Reason> {
    let data = stripes.checked_sub(parities).ok_or(Reason::Mapping)?;
    let place = striped(whole, data, 1)?;
    let row = place.offset / STRIPE_LEN;
    let first = u64::from(place.first)
        .checked_add(row)
        .and_then(|sum| sum.checked_rem(u64::from(stripes)))
        .ok_or(Reason::Mapping)?;
    Ok(Place {
        first: u32::try_from(first).map_err(|_| Reason::Mapping)?,
        ..place
    })
}
