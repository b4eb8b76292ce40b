// SPDX-License-Identifier: GPL-2.0

//! Stripe geometry: every profile, every boundary.

use kernel::prelude::*;

#[kunit_tests(btrfs_dio_stripe)]
mod tests {
    use crate::{
        error::Reason,
        safe::btrfs::chunk::{
            Profile,
            Shape, //
        },
        stripe::{
            begins,
            copies,
            place,
            way,
            Place,
            Way, //
        },
    };

    const START: u64 = 5 << 30;
    const LEN: u64 = 1 << 30;
    const K64: u64 = 64 << 10;

    /// What lies on one stripe as a whole reaches to the end of the chunk.
    #[test]
    fn whole_stripes() {
        let profiles = [
            (Profile::Single, 1u32, 1u32),
            (Profile::Dup, 2, 1),
            (Profile::Raid1, 2, 2),
            (Profile::Raid1, 3, 3),
            (Profile::Raid1, 4, 4),
        ];
        // (offset in the chunk, length asked for, length given)
        let ranges = [
            (0, 4096, 4096),
            (0, LEN, LEN),
            (0, LEN + 4096, LEN),
            (K64 - 4096, 8192, 8192),
            (LEN - 4096, 4096, 4096),
            (LEN - 4096, 8192, 4096),
            (LEN - 4096, u64::MAX, 4096),
        ];
        for (profile, stripes, copies) in profiles {
            for (offset, asked, len) in ranges {
                assert_eq!(
                    place(&shape(profile, stripes, 1), START + offset, asked),
                    Ok(Place {
                        first: 0,
                        copies,
                        offset,
                        len
                    })
                );
            }
        }
    }

    #[test]
    fn raid0() {
        // (stripes, offset in the chunk, asked, stripe, offset on it, length)
        let cases = [
            (2u32, 0, 4096, 0u32, 0, 4096),
            (2, 0, K64, 0, 0, K64),
            (2, 0, K64 + 4096, 0, 0, K64),
            (2, K64 - 4096, 8192, 0, K64 - 4096, 4096),
            (2, K64, 4096, 1, 0, 4096),
            (2, 2 * K64, 4096, 0, K64, 4096),
            (2, 3 * K64 + 8192, K64, 1, K64 + 8192, K64 - 8192),
            (3, 2 * K64, K64, 2, 0, K64),
            (3, 3 * K64, K64, 0, K64, K64),
            (3, 10 * K64 + 512, 512, 1, 3 * K64 + 512, 512),
            (4, LEN - 4096, 8192, 3, LEN / 4 - 4096, 4096),
            // A single device: stripes of one and the same.
            (1, K64, K64, 0, K64, K64),
        ];
        for (stripes, offset, asked, first, on_stripe, len) in cases {
            assert_eq!(
                place(&shape(Profile::Raid0, stripes, 1), START + offset, asked),
                Ok(Place {
                    first,
                    copies: 1,
                    offset: on_stripe,
                    len
                })
            );
        }
    }

    #[test]
    fn raid10() {
        // (stripes, offset in the chunk, asked, first stripe, offset on it, length)
        let cases = [
            (4u32, 0, 4096, 0u32, 0, 4096),
            (4, K64, 4096, 2, 0, 4096),
            (4, 2 * K64, 4096, 0, K64, 4096),
            (4, 3 * K64 - 4096, 8192, 0, 2 * K64 - 4096, 4096),
            (4, 3 * K64, K64, 2, K64, K64),
            (6, 2 * K64, K64, 4, 0, K64),
            (6, 5 * K64 + 4096, K64, 4, K64 + 4096, K64 - 4096),
            (2, K64, K64, 0, K64, K64),
            (4, LEN - 4096, K64, 2, LEN / 2 - 4096, 4096),
        ];
        for (stripes, offset, asked, first, on_stripe, len) in cases {
            assert_eq!(
                place(&shape(Profile::Raid10, stripes, 2), START + offset, asked),
                Ok(Place {
                    first,
                    copies: 2,
                    offset: on_stripe,
                    len
                })
            );
        }
    }

    /// Walking a chunk from one place to the next meets each byte of each stripe once.
    #[test]
    fn places_tile_the_stripes() {
        for (profile, stripes, sub_stripes, groups) in [
            (Profile::Raid0, 3u32, 1u32, 3u64),
            (Profile::Raid10, 4, 2, 2),
        ] {
            let len = groups * K64 * 4;
            let shape = Shape {
                len,
                ..shape(profile, stripes, sub_stripes)
            };
            let mut filled = [0u64; 4];
            let mut at = 0;
            while at < len {
                let Ok(place) = place(&shape, START + at, len) else {
                    assert!(false);
                    return;
                };
                let group = (place.first / sub_stripes) as usize;
                // Each stripe is filled from its beginning to its end.
                assert_eq!(filled[group], place.offset);
                filled[group] += place.len;
                at += place.len;
            }
            assert_eq!(filled.iter().sum::<u64>(), len);
        }
    }

    /// How many copies there are, and how each is read; what is beyond them is not.
    #[test]
    fn ways_to_read() {
        // (profile, stripes, sub-stripes, copies, the first one's stripe and how many are read
        // where they are)
        let table = [
            (Profile::Single, 1, 1, 1, 0, 1),
            (Profile::Dup, 2, 1, 2, 0, 2),
            (Profile::Raid0, 3, 1, 1, 1, 1),
            (Profile::Raid1, 2, 1, 2, 0, 2),
            (Profile::Raid1, 4, 1, 4, 0, 4),
            (Profile::Raid10, 4, 2, 2, 2, 2),
            (Profile::Raid5, 3, 1, 2, 1, 1),
            (Profile::Raid6, 4, 1, 4, 1, 1),
            (Profile::Raid6, 9, 1, 9, 1, 1),
        ];
        for (profile, stripes, sub_stripes, all, first, direct) in table {
            let shape = shape(profile, stripes, sub_stripes);
            assert_eq!(copies(&shape), all);
            // In the second stripe of data, where there is one.
            let place = place(&shape, START + K64 + 4096, 4096);
            let place = place.unwrap_or(Place {
                first: u32::MAX,
                copies: 0,
                offset: 0,
                len: 0,
            });
            assert_eq!(place.first, first);
            assert_eq!(way(&shape, &place, 0), None);
            for copy in 1..=all {
                let wanted = if copy <= direct {
                    Way::Stripe(first + copy - 1)
                } else {
                    Way::Rebuilt
                };
                assert_eq!(way(&shape, &place, copy), Some(wanted));
            }
            assert_eq!(way(&shape, &place, all + 1), None);
            assert_eq!(way(&shape, &place, u32::MAX), None);
        }
        assert_eq!(copies(&shape(Profile::Unknown, 4, 2)), 1);
    }

    #[test]
    fn what_makes_no_sense() {
        let cases = [
            // Not in the chunk.
            (shape(Profile::Single, 1, 1), START - 1),
            (shape(Profile::Single, 1, 1), START + LEN),
            (shape(Profile::Raid0, 2, 1), 0),
            (shape(Profile::Raid1, 2, 1), u64::MAX),
            // No stripes, no groups, groups that do not come out even.
            (shape(Profile::Single, 0, 1), START),
            (shape(Profile::Raid0, 0, 1), START),
            (shape(Profile::Raid10, 4, 0), START),
            (shape(Profile::Raid10, 5, 2), START),
            (shape(Profile::Raid10, 1, 2), START),
            // A single copy on two stripes.
            (shape(Profile::Single, 2, 1), START),
            (shape(Profile::Unknown, 2, 1), START),
        ];
        for (shape, logical) in cases {
            assert_eq!(place(&shape, logical, 4096), Err(Reason::Mapping));
        }
        assert_eq!(
            place(&shape(Profile::Single, 1, 1), START, 0),
            Err(Reason::Mapping)
        );
    }

    #[test]
    fn parity_goes_round() {
        // (profile, stripes, offset in the chunk, number of the stripe, offset there, length given)
        let cases = [
            (Profile::Raid5, 3u32, 0u64, 0u32, 0u64, K64),
            (Profile::Raid5, 3, 4096, 0, 4096, K64 - 4096),
            (Profile::Raid5, 3, K64, 1, 0, K64),
            (Profile::Raid5, 3, 2 * K64, 1, K64, K64),
            (Profile::Raid5, 3, 3 * K64 - 4096, 1, 2 * K64 - 4096, 4096),
            (Profile::Raid5, 3, 3 * K64, 2, K64, K64),
            (Profile::Raid5, 3, 4 * K64, 2, 2 * K64, K64),
            (Profile::Raid5, 3, 5 * K64, 0, 2 * K64, K64),
            (Profile::Raid5, 3, 6 * K64, 0, 3 * K64, K64),
            (Profile::Raid6, 4, 0, 0, 0, K64),
            (Profile::Raid6, 4, 2 * K64, 1, K64, K64),
            (Profile::Raid6, 4, 6 * K64, 3, 3 * K64, K64),
            (Profile::Raid6, 4, 7 * K64, 0, 3 * K64, K64),
            (Profile::Raid6, 3, K64, 1, K64, K64),
        ];
        for (profile, stripes, offset, first, on_stripe, len) in cases {
            assert_eq!(
                place(&shape(profile, stripes, 1), START + offset, K64),
                Ok(Place {
                    first,
                    copies: 1,
                    offset: on_stripe,
                    len
                })
            );
        }
        // Nothing but parity.
        for (profile, stripes) in [
            (Profile::Raid5, 1),
            (Profile::Raid6, 1),
            (Profile::Raid6, 2),
        ] {
            assert_eq!(
                place(&shape(profile, stripes, 1), START, 4096),
                Err(Reason::Mapping)
            );
        }
    }

    /// Where the next stripe's turn begins, also in chunks that do not begin at a multiple of its
    /// length: there, and nowhere else, another stripe follows, or the next row of the same one.
    #[test]
    fn beginnings() {
        for start in [START, START + 4096, START + K64 - 4096, START + 7 * 4096] {
            for (profile, stripes) in [
                (Profile::Raid0, 3),
                (Profile::Raid10, 4),
                (Profile::Raid5, 3),
                (Profile::Raid6, 4),
            ] {
                let shape = Shape {
                    start,
                    ..shape(profile, stripes, 2)
                };
                let at = |logical| {
                    let place = place(&shape, logical, 4096);
                    place.map(|place| (place.first, place.offset / K64))
                };
                for logical in (start + 4096..start + 9 * K64).step_by(4096) {
                    let other = at(logical) != at(logical - 4096);
                    assert_eq!(begins(&shape, logical), other);
                }
                assert!(begins(&shape, start));
            }
        }
    }

    fn shape(profile: Profile, stripes: u32, sub_stripes: u32) -> Shape {
        Shape {
            start: START,
            len: LEN,
            profile,
            stripes,
            sub_stripes,
        }
    }
}
