// SPDX-License-Identifier: GPL-2.0

//! Sizes of reads and windows.

use kernel::prelude::*;

#[kunit_tests(btrfs_dio_request)]
mod tests {
    use crate::{
        entry::{
            bytes_to_read,
            memory_for, //
        },
        error::Reason,
        request::WINDOW, //
    };

    #[test]
    fn a_read_ends_with_the_file() {
        // (position, count, size, bytes to read)
        let cases = [
            (0u64, 4096usize, 0u64, 0usize),
            (0, 4096, 1, 1),
            (0, 4096, 511, 511),
            (0, 4096, 4095, 4095),
            (0, 4096, 4096, 4096),
            (0, 4096, 4097, 4096),
            (4096, 4096, 4096, 0),
            (4096, 4096, 4097, 1),
            (8192, 4096, 4097, 0),
            (0, 0, 4096, 0),
            (u64::MAX, 4096, 1, 0),
            (i64::MAX as u64 & !4095, 4096, i64::MAX as u64, 4095),
        ];
        for (pos, count, size, expected) in cases {
            assert_eq!(bytes_to_read(pos, count, size), expected);
        }
    }

    #[test]
    fn memory_reaches_to_the_end_of_a_block() {
        // (position, bytes, room, block, memory)
        let cases = [
            (0u64, 1usize, 4096usize, 4096usize, Ok(4096usize)),
            (0, 4095, 4096, 4096, Ok(4096)),
            (0, 4096, 4096, 4096, Ok(4096)),
            (0, 4097, 1 << 20, 4096, Ok(8192)),
            (0, 4097, 65536, 65536, Ok(65536)),
            // There is no more than the caller has.
            (0, 1, 512, 4096, Ok(512)),
            (0, 4097, 4608, 4096, Ok(4608)),
            // The first block counts whole.
            (512, 1, 4096, 4096, Ok(3584)),
            (512, 3584, 4096, 4096, Ok(3584)),
            (512, 3585, 8192, 4096, Ok(7680)),
            (4096 + 3584, 512, 512, 4096, Ok(512)),
            // Windows end where blocks do.
            (0, WINDOW - 1, 2 * WINDOW, 4096, Ok(WINDOW)),
            (0, WINDOW + 1, 2 * WINDOW, 4096, Ok(WINDOW)),
            (512, WINDOW, 2 * WINDOW, 4096, Ok(WINDOW - 512)),
            (0, usize::MAX - 8191, usize::MAX, 4096, Ok(WINDOW)),
            (0, usize::MAX, usize::MAX, 4096, Err(Reason::Unaligned)),
        ];
        for (pos, bytes, room, block, expected) in cases {
            assert_eq!(memory_for(pos, bytes, room, WINDOW, block), expected);
        }
    }
}
