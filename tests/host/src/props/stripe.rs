// SPDX-License-Identifier: GPL-2.0

//! Stripe geometry, compared with what btrfs does.

use crate::{
    error::Reason,
    props::config,
    safe::btrfs::chunk::{Profile, Shape},
    stripe::{begins, copies, is_striped, place, rest, usual_places, way, Place, Way, STRIPE_LEN},
};
use proptest::{prelude::*, sample::select};

/// What `btrfs_max_io_len()` and `map_blocks_*()` of fs/btrfs/volumes.c make of an address for the
/// first copy, in numbers that do not overflow: stripe, offset on it, and length.
///
/// `None` if the tree checker does not let such a chunk in, or the address is not in it.
fn mapped(shape: &Shape, logical: u64, len: u64) -> Option<(u128, u128, u128)> {
    let wide = u128::from;
    let stripes = wide(u64::from(shape.stripes));
    let sub_stripes = wide(u64::from(shape.sub_stripes));
    let offset = wide(logical).checked_sub(wide(shape.start))?;
    let left = wide(shape.len).checked_sub(offset)?;
    if left == 0 || len == 0 || stripes == 0 {
        return None;
    }
    let stripe_len = wide(STRIPE_LEN);
    let (mut stripe_nr, stripe_offset) = (offset / stripe_len, offset % stripe_len);
    let mut max_len = stripe_len - stripe_offset;
    let index = match shape.profile {
        Profile::Raid0 => {
            let index = stripe_nr % stripes;
            stripe_nr /= stripes;
            index
        }
        Profile::Raid10 => {
            if sub_stripes == 0 || stripes % sub_stripes != 0 {
                return None;
            }
            let factor = stripes / sub_stripes;
            let index = stripe_nr % factor * sub_stripes;
            stripe_nr /= factor;
            index
        }
        Profile::Raid5 | Profile::Raid6 => {
            let parities = if shape.profile == Profile::Raid5 {
                1
            } else {
                2
            };
            let data = stripes.checked_sub(parities).filter(|data| *data > 0)?;
            let index = stripe_nr % data;
            stripe_nr /= data;
            (stripe_nr + index) % stripes
        }
        Profile::Single if stripes == 1 => {
            max_len = u128::MAX;
            0
        }
        Profile::Dup | Profile::Raid1 => {
            max_len = u128::MAX;
            0
        }
        Profile::Single | Profile::Unknown => return None,
    };
    let len = wide(len).min(left).min(max_len);
    Some((index, stripe_nr * stripe_len + stripe_offset, len))
}

fn profile() -> impl Strategy<Value = Profile> {
    select(&[
        Profile::Single,
        Profile::Dup,
        Profile::Raid0,
        Profile::Raid1,
        Profile::Raid10,
        Profile::Raid5,
        Profile::Raid6,
        Profile::Unknown,
    ])
}

/// Any number, and those at which something could happen more often than by chance.
fn odd_u64() -> impl Strategy<Value = u64> {
    prop_oneof![
        any::<u64>(),
        0u64..1 << 20,
        (0u64..64).prop_map(|n| n * STRIPE_LEN),
        (0u32..64, 0u64..3).prop_map(|(bit, less)| (1u64 << bit).wrapping_sub(less)),
    ]
}

fn odd_u32() -> impl Strategy<Value = u32> {
    prop_oneof![
        0u32..20,
        any::<u32>(),
        (0u32..3).prop_map(|less| u32::MAX - less)
    ]
}

prop_compose! {
    /// Whatever numbers an image could have.
    fn any_shape()(
        start in odd_u64(),
        len in odd_u64(),
        profile in profile(),
        stripes in odd_u32(),
        sub_stripes in odd_u32(),
    ) -> Shape {
        Shape { start, len, profile, stripes, sub_stripes }
    }
}

prop_compose! {
    /// As btrfs makes them, but for where they begin: those of a converted filesystem may begin at any
    /// block.
    fn good_shape()(
        start in (0u64..1 << 30).prop_map(|block| block << 12),
        rows in 1u64..40,
        kind in prop_oneof![
            Just((Profile::Single, 1u32, 1u32)),
            Just((Profile::Dup, 2, 1)),
            (1u32..20).prop_map(|n| (Profile::Raid0, n, 1)),
            (2u32..=4).prop_map(|n| (Profile::Raid1, n, 1)),
            (1u32..10).prop_map(|n| (Profile::Raid10, 2 * n, 2)),
            (2u32..20).prop_map(|n| (Profile::Raid5, n, 1)),
            (3u32..20).prop_map(|n| (Profile::Raid6, n, 1)),
        ],
    ) -> Shape {
        let (profile, stripes, sub_stripes) = kind;
        let wide = u64::from(match profile {
            Profile::Raid0 => stripes,
            Profile::Raid10 => stripes / 2,
            Profile::Raid5 => stripes - 1,
            Profile::Raid6 => stripes - 2,
            _ => 1,
        });
        Shape { start, len: rows * wide * STRIPE_LEN, profile, stripes, sub_stripes }
    }
}

proptest! {
    #![proptest_config(config())]

    /// Any shape, any address: the place that btrfs reads, or none.
    #[test]
    fn a_place_is_where_btrfs_reads(
        shape in any_shape(),
        at in odd_u64(),
        relative in any::<bool>(),
        len in odd_u64(),
    ) {
        let logical = if relative { shape.start.wrapping_add(at) } else { at };
        match (place(&shape, logical, len), mapped(&shape, logical, len)) {
            (Ok(place), Some((stripe, offset, len))) => {
                prop_assert_eq!(u128::from(place.first), stripe);
                prop_assert_eq!(u128::from(place.offset), offset);
                prop_assert_eq!(u128::from(place.len), len);
                prop_assert!(place.copies > 0 && place.len > 0);
                // No copy is on a stripe that does not exist.
                prop_assert!(u64::from(place.first) + u64::from(place.copies) <= shape.stripes.into());
            }
            (Err(reason), None) => prop_assert_eq!(reason, Reason::Mapping),
            (place, mapped) => prop_assert!(false, "{:?}, btrfs: {:?}", place, mapped),
        }
    }

    /// Whatever is asked of a shape, there is an answer; each copy there is, is read somewhere, of a
    /// stripe that exists.
    #[test]
    fn each_copy_is_somewhere(shape in any_shape(), at in odd_u64(), copy in odd_u32()) {
        let logical = shape.start.wrapping_add(at);
        begins(&shape, logical);
        let all = copies(&shape);
        let anywhere = Place { first: copy, copies: at as u32, offset: at, len: at };
        way(&shape, &anywhere, copy);
        let Ok(place) = place(&shape, logical, 4096) else {
            return Ok(());
        };
        prop_assert!(all >= 1);
        match way(&shape, &place, copy) {
            None => prop_assert!(copy == 0 || copy > all),
            Some(Way::Rebuilt) => {
                prop_assert!(matches!(shape.profile, Profile::Raid5 | Profile::Raid6));
                prop_assert!((2..=all).contains(&copy));
            }
            Some(Way::Stripe(stripe)) => {
                prop_assert!((1..=all).contains(&copy));
                prop_assert!(stripe < shape.stripes);
                prop_assert_eq!(stripe, place.first + copy - 1);
            }
        }
    }

    /// The places of a chunk, one after the other, lie on its stripes side by side, each byte of a
    /// stripe once, with nothing left out but parity; and each begins where `begins` says.
    #[test]
    fn places_tile_a_chunk(shape in good_shape(), step in 1u64..40) {
        // What the stripes have at each row: a layout that is drawn, not computed.
        let copies = match shape.profile {
            Profile::Raid10 => 2,
            Profile::Raid1 => shape.stripes,
            _ => 1,
        };
        let parities = match shape.profile {
            Profile::Raid5 => 1,
            Profile::Raid6 => 2,
            _ => 0,
        };
        // As `btrfs_chunk_map_num_copies()` of fs/btrfs/volumes.c.
        prop_assert_eq!(crate::stripe::copies(&shape), match shape.profile {
            Profile::Raid5 | Profile::Dup => 2,
            Profile::Raid6 => shape.stripes,
            _ => copies,
        });
        let striped = !matches!(shape.profile, Profile::Single | Profile::Dup | Profile::Raid1);
        let mut order: Vec<u32> = (0..shape.stripes).collect();
        let mut drawn = Vec::new();
        'rows: for row in 0.. {
            let data = if striped { shape.stripes - parities } else { 1 };
            for column in (0..data).step_by(if striped { copies as usize } else { 1 }) {
                if drawn.len() as u64 * STRIPE_LEN == shape.len {
                    break 'rows;
                }
                drawn.push((order[column as usize], row * STRIPE_LEN));
            }
            if parities > 0 {
                order.rotate_left(1);
            }
        }
        let end = shape.start + shape.len;
        let mut at = shape.start;
        while at < end {
            let asked = step * 4096;
            let place = place(&shape, at, asked).unwrap();
            let offset = at - shape.start;
            let (first, row) = drawn[(offset / STRIPE_LEN) as usize];
            prop_assert_eq!((place.first, place.offset), (first, row + offset % STRIPE_LEN));
            prop_assert_eq!(place.copies, copies);
            let next = at + place.len;
            // As far as possible: what was asked for, or to where the next one begins.
            prop_assert!(next == at + asked || next == end || striped && begins(&shape, next));
            if striped {
                prop_assert!((at + 4096..next).step_by(4096).all(|at| !begins(&shape, at)));
            }
            at = next;
        }
        prop_assert_eq!(at, end);
    }

    /// No part of a chunk falls into more places than there is room for: first for as many as is usual,
    /// then for one more. Nor does it if no place may reach beyond a stripe's length.
    #[test]
    fn there_is_room_for_all_places(
        shape in good_shape(),
        at in 0u64..640,
        blocks in 1u64..640,
        cut in any::<bool>(),
    ) {
        let begin = shape.start + at * 4096 % shape.len;
        let end = (begin + blocks * 4096).min(shape.start + shape.len);
        let mut places = 0;
        let mut at = begin;
        while at < end {
            let place = place(&shape, at, end - at).unwrap();
            at += match cut {
                true => place.len.min(rest(&shape, at)),
                false => place.len,
            };
            places += 1;
        }
        let usual = usual_places(begin, end - begin);
        prop_assert!(places <= usual + 1);
        if shape.start % STRIPE_LEN == 0 {
            prop_assert!(places <= usual);
        }
        if !is_striped(&shape) && !cut {
            prop_assert_eq!(places, 1);
        }
    }

    /// The rest of a stripe ends where the next one begins, and not before.
    #[test]
    fn the_rest_ends_with_the_stripe(shape in any_shape(), at in odd_u64()) {
        let logical = shape.start.wrapping_add(at);
        let rest = rest(&shape, logical);
        prop_assert!((1..=STRIPE_LEN).contains(&rest));
        prop_assert!(begins(&shape, logical.wrapping_add(rest)));
        prop_assert_eq!(begins(&shape, logical), rest == STRIPE_LEN);
    }
}
