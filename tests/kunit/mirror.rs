// SPDX-License-Identifier: GPL-2.0

//! The choice of a copy.

use kernel::prelude::*;

#[kunit_tests(btrfs_dio_mirror)]
mod tests {
    use crate::{
        mirror::{
            by_pid,
            share,
            spread,
            Candidate::{
                self,
                Avoided,
                Good,
                Missing, //
            },
            UNKNOWN, //
        },
        safe::block::account::Why, //
    };

    /// A good one to which so much is in flight.
    const fn busy(in_flight: u64) -> Candidate {
        Good { in_flight }
    }

    /// (pid, what the copies are, the one to choose)
    const CASES: &[(i32, &[Candidate], u32)] = &[
        // The pid decides while all are good.
        (0, &[busy(0), busy(0)], 0),
        (1, &[busy(0), busy(0)], 1),
        (2, &[busy(0), busy(0)], 0),
        (4, &[busy(0), busy(0), busy(0)], 1),
        (5, &[busy(0), busy(0), busy(0)], 2),
        (7, &[busy(0), busy(0), busy(0), busy(0)], 3),
        (i32::MAX, &[busy(0), busy(0)], 1),
        (i32::MAX, &[busy(0)], 0),
        // A missing one is passed over, for the first that is there.
        (1, &[busy(0), Missing], 0),
        (0, &[Missing, busy(0)], 1),
        (2, &[Missing, busy(0), Missing], 1),
        (3, &[Missing, Missing, busy(0), Missing], 2),
        // One to avoid is passed over, unless nothing else is there.
        (0, &[Avoided, busy(0)], 1),
        (1, &[Avoided, busy(0)], 1),
        (2, &[busy(0), Avoided, Avoided], 0),
        (0, &[Avoided, Missing], 0),
        (1, &[Avoided, Missing], 0),
        (1, &[Avoided, Avoided], 1),
        // Nothing is there: the preferred one, whose failure will be noticed.
        (0, &[Missing, Missing], 0),
        (1, &[Missing, Missing], 1),
        (5, &[Missing, Missing, Missing], 2),
    ];

    #[test]
    fn the_rule_of_the_filesystem() {
        for (pid, copies, expected) in CASES {
            let chosen = by_pid(*pid, copies.len() as u32, |n| {
                copies.get(n as usize).copied().unwrap_or(Missing)
            });
            assert_eq!(chosen, *expected);
        }
    }

    #[test]
    fn no_copies_is_no_division_by_zero() {
        assert_eq!(by_pid(17, 0, |_| busy(0)), 0);
    }

    const MIB: u64 = 1 << 20;

    /// (address, what the copies are, the one to choose, and why)
    const SPREAD: &[(u64, &[Candidate], u32, Why)] = &[
        // Who has least to do.
        (0, &[busy(0), busy(1)], 0, Why::Least),
        (0, &[busy(1), busy(0)], 1, Why::Least),
        (MIB, &[busy(0), busy(1)], 0, Why::Least),
        (0, &[busy(3), busy(2), busy(1), busy(4)], 2, Why::Least),
        (0, &[busy(u64::MAX - 1), busy(u64::MAX - 2)], 1, Why::Least),
        // Who is not known gets its turn, and no more.
        (0, &[busy(UNKNOWN), busy(5)], 0, Why::Near),
        (MIB, &[busy(UNKNOWN), busy(5)], 1, Why::Near),
        (MIB, &[busy(UNKNOWN), busy(UNKNOWN)], 1, Why::Near),
        (2 * MIB, &[busy(0), busy(UNKNOWN), Missing], 0, Why::Near),
        (0, &[Missing, busy(UNKNOWN)], 1, Why::Near),
        // Among equals by address.
        (0, &[busy(0), busy(0)], 0, Why::Near),
        (MIB - 1, &[busy(0), busy(0)], 0, Why::Near),
        (MIB, &[busy(0), busy(0)], 1, Why::Near),
        (2 * MIB, &[busy(0), busy(0)], 0, Why::Near),
        (2 * MIB, &[busy(7), busy(7), busy(7)], 2, Why::Near),
        (u64::MAX, &[busy(7), busy(7)], 1, Why::Near),
        // Those that have least, from the one whose turn it is on.
        (0, &[busy(9), busy(1), busy(1)], 1, Why::Near),
        (2 * MIB, &[busy(1), busy(9), busy(9), busy(1)], 3, Why::Near),
        // Good ones before others, whatever they have to do.
        (0, &[Missing, busy(9)], 1, Why::Least),
        (0, &[Avoided, busy(9)], 1, Why::Least),
        (MIB, &[Avoided, Missing], 0, Why::Least),
        (MIB, &[Avoided, Avoided], 1, Why::Near),
        (MIB, &[Missing, Missing], 1, Why::Near),
        (0, &[busy(5)], 0, Why::Least),
    ];

    #[test]
    fn who_has_least_to_do() {
        for (address, copies, expected, reason) in SPREAD {
            let (chosen, why) = spread(*address, copies.len() as u32, |n| {
                copies.get(n as usize).copied().unwrap_or(Missing)
            });
            assert_eq!(chosen, *expected);
            assert_eq!(why, *reason);
        }
        assert_eq!(spread(MIB, 0, |_| busy(0)).0, 0);
    }

    #[test]
    fn long_reads_are_shared() {
        let k = |kib: usize| kib << 10;
        // (length, devices, how much of each)
        let cases = [
            (k(4), 2u32, None),
            (k(256) - 4096, 2, None),
            (k(256), 2, Some(k(128))),
            (k(256), 1, None),
            (k(256), 0, None),
            (k(256), 4, Some(k(64))),
            (k(256), 8, Some(k(64))),
            (k(320), 2, Some(k(192))),
            (k(1024), 3, Some(k(384))),
        ];
        for (len, devices, expected) in cases {
            assert_eq!(share(len, devices), expected);
        }
    }
}
