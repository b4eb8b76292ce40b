// SPDX-License-Identifier: GPL-2.0

//! Windows: which bytes of which blocks are wanted, and which blocks fit into the caller's memory.

use kernel::prelude::*;

#[kunit_tests(btrfs_dio_range)]
mod tests {
    use crate::{
        error::Reason,
        range::{
            Part,
            Range, //
        },
    };

    const BLOCK: usize = 4096;

    #[test]
    fn a_window_is_whole_blocks() {
        // (position, valid, room, start, length, head)
        type Case = (u64, usize, usize, Result<(u64, usize, usize), Reason>);
        let cases: [Case; 14] = [
            (0, 1, 4096, Ok((0, 4096, 0))),
            (0, 4096, 4096, Ok((0, 4096, 0))),
            (0, 4097, 8192, Ok((0, 8192, 0))),
            (512, 512, 512, Ok((0, 4096, 512))),
            (512, 3584, 3584, Ok((0, 4096, 512))),
            (512, 3585, 4096, Ok((0, 8192, 512))),
            (4095, 1, 1, Ok((0, 4096, 4095))),
            (4095, 2, 2, Ok((0, 8192, 4095))),
            (4096, 4096, 4096, Ok((4096, 4096, 0))),
            (12800, 4096, 4096, Ok((12288, 8192, 512))),
            // Nothing to read, not enough room, no such offset.
            (0, 0, 4096, Err(Reason::Unaligned)),
            (0, 4096, 4095, Err(Reason::Unaligned)),
            (u64::MAX, 1, 1, Err(Reason::Unaligned)),
            (0, usize::MAX, usize::MAX, Err(Reason::Unaligned)),
        ];
        for (pos, valid, room, expected) in cases {
            let range = Range::new(pos, valid, room, BLOCK);
            assert_eq!(range.map(|r| (r.start, r.len, r.head)), expected);
        }
        assert_eq!(Range::new(0, 1, 1, 0), Err(Reason::Unaligned));
        assert_eq!(Range::new(0, 1, 1, 4095), Err(Reason::Unaligned));
    }

    #[test]
    fn what_is_wanted_of_a_stretch() {
        // (position, valid, offset, length, expected)
        let cases = [
            // Aligned: all of it, up to the end of the file.
            (0u64, 8192usize, 0usize, 8192usize, Some((0, 0, 8192))),
            (0, 8192, 4096, 4096, Some((0, 4096, 4096))),
            (0, 5000, 4096, 4096, Some((0, 4096, 904))),
            (0, 4096, 4096, 4096, None),
            // The first block, from its midst on.
            (512, 512, 0, 4096, Some((512, 0, 512))),
            (512, 8192, 0, 4096, Some((512, 0, 3584))),
            (512, 8192, 4096, 4096, Some((0, 3584, 4096))),
            (512, 8192, 8192, 4096, Some((0, 7680, 512))),
            (512, 8192, 0, 12288, Some((512, 0, 8192))),
            (3584, 512, 0, 4096, Some((3584, 0, 512))),
            (512, 8192, 0, 0, None),
        ];
        for (pos, valid, at, len, expected) in cases {
            let part = Range::new(pos, valid, valid, BLOCK).map(|range| range.wanted(at, len));
            let expected = expected.map(|(skip, to, len)| Part { skip, to, len });
            assert_eq!(part, Ok(expected));
            let part =
                Range::new(pos, valid, valid, BLOCK).map(|range| range.at(1 << 20).wanted(at, len));
            let further = expected.map(|part| Part {
                to: part.to + (1 << 20),
                ..part
            });
            assert_eq!(part, Ok(further));
        }
    }

    #[test]
    fn whole_blocks_are_read_in_place() {
        // (position, valid, room, offset, length, expected place and length)
        let cases = [
            (
                0u64,
                4096usize,
                4096usize,
                0usize,
                4096usize,
                Some((0usize, 4096usize)),
            ),
            (0, 8192, 8192, 4096, 4096, Some((4096, 4096))),
            // Behind the end of the file, if there is room.
            (0, 100, 4096, 0, 4096, Some((0, 4096))),
            (0, 100, 4095, 0, 4096, None),
            (0, 4196, 4608, 0, 8192, Some((0, 4096))),
            (0, 4196, 4608, 4096, 4096, None),
            // Not the block that the window begins within.
            (512, 8192, 8192, 0, 12288, None),
            (512, 8192, 8192, 4096, 8192, Some((3584, 4096))),
            (512, 8192, 8192, 8192, 4096, None),
            (512, 7680, 7680, 4096, 8192, Some((3584, 4096))),
            (512, 11776, 11776, 4096, 8192, Some((3584, 8192))),
        ];
        for (pos, valid, room, at, len, expected) in cases {
            let direct = Range::new(pos, valid, room, BLOCK).map(|range| range.direct(at, len));
            assert_eq!(direct, Ok(expected));
        }
    }

    #[test]
    fn a_window_that_is_cut() {
        let range = Range::new(512, 10000, 10000, BLOCK);
        for (len, valid) in [(4096, 3584), (8192, 7680), (12288, 10000), (1 << 20, 10000)] {
            let cut = range.map(|range| range.cut(len));
            assert_eq!(cut.map(|cut| cut.valid), Ok(valid));
            assert_eq!(cut.map(|cut| cut.len), Ok(len.min(12288)));
        }
    }
    /// What is left begins where the caller has got to, in the file and in memory.
    #[test]
    fn what_is_left_of_a_window() {
        let range = Range::new(512, 10000, 11000, BLOCK).map(|range| range.at(100));
        // (done, start, head, valid, room, base)
        for (done, start, head, valid, room, base) in [
            (0, 0, 512, 10000, 11000, 100),
            (3583, 0, 4095, 6417, 7417, 3683),
            (3584, 4096, 0, 6416, 7416, 3684),
            (9999, 8192, 2319, 1, 1001, 10099),
        ] {
            let rest = range.and_then(|range| range.from(done));
            assert_eq!(rest.map(|r| (r.start, r.head)), Ok((start, head)));
            assert_eq!(rest.map(|r| (r.valid, r.room)), Ok((valid, room)));
            assert_eq!(rest.map(|r| r.base), Ok(base));
        }
        for done in [10000, 10001, usize::MAX] {
            let rest = range.and_then(|range| range.from(done));
            assert_eq!(rest, Err(Reason::Unaligned));
        }
    }
}
