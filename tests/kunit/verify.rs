// SPDX-License-Identifier: GPL-2.0

//! Verification: how blocks are divided among CPUs.

use kernel::prelude::*;

#[kunit_tests(btrfs_dio_verify)]
mod tests {
    use crate::verify::{
        part,
        parts,
        PARTS, //
    };

    #[test]
    fn a_window_is_worth_so_many_parts() {
        // (blocks, blocks that are worth one, parts)
        let cases = [
            (0usize, 16usize, 1usize),
            (1, 16, 1),
            (31, 16, 1),
            (32, 16, 2),
            (47, 16, 2),
            (16 * PARTS - 1, 16, PARTS - 1),
            (16 * PARTS, 16, PARTS),
            // No more than there can be.
            (16 * (PARTS + 1), 16, PARTS),
            (usize::MAX, 1, PARTS),
            // Not worth it, whatever there is.
            (usize::MAX, usize::MAX, 1),
            (1024, 0, 1),
        ];
        for (blocks, least, expected) in cases {
            assert_eq!(parts(blocks, least), expected);
        }
    }

    #[test]
    fn each_block_is_in_one_part() {
        for blocks in [0usize, 1, 15, 16, 17, 31, 32, 1023, 1024, 1025, 4096] {
            for parts in 1..=PARTS {
                let mut next = 0;
                for nr in 0..parts {
                    let part = part(blocks, parts, nr);
                    assert_eq!(part.start, next);
                    // Even, but for one.
                    assert!(part.len() == blocks / parts || part.len() == blocks / parts + 1);
                    next = part.end;
                }
                assert_eq!(next, blocks);
            }
        }
        assert_eq!(part(16, 0, 0), 0..0);
    }
}
