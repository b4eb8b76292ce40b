// SPDX-License-Identifier: GPL-2.0

//! Counters: each has its own number.

use kernel::prelude::*;

#[kunit_tests(btrfs_dio_stats)]
mod tests {
    use crate::{
        error::Reason,
        stats::{
            self,
            Counter, //
        },
    };

    #[test]
    fn numbers_are_positions_in_the_table() {
        assert!(stats::table_is_consistent());
    }

    #[test]
    fn a_counter_counts() {
        use crate::safe::counters;

        // The last counter there is room for is nobody's.
        let nr = counters::COUNT - 1;
        let before = counters::sum(nr);
        counters::add(nr, 3);
        counters::add(nr, 4);
        assert_eq!(counters::sum(nr), before + 7);
        // One that is not there does nothing.
        counters::add(counters::COUNT, 1);
        assert_eq!(counters::sum(counters::COUNT), 0);
    }

    #[test]
    fn reasons_do_not_share_a_counter() {
        assert!(Counter::Declined(Reason::Unaligned) != Counter::Declined(Reason::Mapping));
    }
}
