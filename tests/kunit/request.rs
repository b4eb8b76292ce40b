// SPDX-License-Identifier: GPL-2.0

//! Sizes of reads and windows.

use kernel::prelude::*;

#[kunit_tests(btrfs_dio_request)]
mod tests {
    use crate::request::{
        bytes_to_read,
        window_len,
        WINDOW, //
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
    fn a_window_is_whole_blocks() {
        let cases = [
            (1usize, 4096usize, Ok(4096usize)),
            (4095, 4096, Ok(4096)),
            (4096, 4096, Ok(4096)),
            (4097, 4096, Ok(8192)),
            (WINDOW - 1, 4096, Ok(WINDOW)),
            (WINDOW, 4096, Ok(WINDOW)),
            (WINDOW + 1, 4096, Ok(WINDOW)),
            (usize::MAX, 4096, Ok(WINDOW)),
            (4097, 65536, Ok(65536)),
        ];
        for (bytes, block, expected) in cases {
            assert_eq!(window_len(bytes, block), expected);
        }
    }
}
