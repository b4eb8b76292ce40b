// SPDX-License-Identifier: GPL-2.0

//! The choice of a copy.

use kernel::prelude::*;

#[kunit_tests(btrfs_dio_mirror)]
mod tests {
    use crate::mirror::{
        by_pid,
        Copy::{
            self,
            Avoided,
            Good,
            Missing, //
        },
    };

    /// (pid, what the copies are, the one to choose)
    const CASES: &[(i32, &[Copy], u32)] = &[
        // The pid decides while all are good.
        (0, &[Good, Good], 0),
        (1, &[Good, Good], 1),
        (2, &[Good, Good], 0),
        (4, &[Good, Good, Good], 1),
        (5, &[Good, Good, Good], 2),
        (7, &[Good, Good, Good, Good], 3),
        (i32::MAX, &[Good, Good], 1),
        (i32::MAX, &[Good], 0),
        // A missing one is passed over, for the first that is there.
        (1, &[Good, Missing], 0),
        (0, &[Missing, Good], 1),
        (2, &[Missing, Good, Missing], 1),
        (3, &[Missing, Missing, Good, Missing], 2),
        // One to avoid is passed over, unless nothing else is there.
        (0, &[Avoided, Good], 1),
        (1, &[Avoided, Good], 1),
        (2, &[Good, Avoided, Avoided], 0),
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
        assert_eq!(by_pid(17, 0, |_| Good), 0);
    }
}
