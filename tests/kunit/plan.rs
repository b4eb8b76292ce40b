// SPDX-License-Identifier: GPL-2.0

//! Segments: what is cut out of an extent for a window.

use kernel::prelude::*;

#[kunit_tests(btrfs_dio_plan)]
mod tests {
    use crate::{
        error::Reason,
        range::Range,
        safe::{
            btrfs::extent_map::{
                Encoded,
                Extent,
                Kind, //
            },
            decode::Compression,
        },
        segment::{
            Segment,
            Source, //
        },
    };

    const BLOCK: usize = 4096;
    const MIB: u64 = 1 << 20;

    #[test]
    fn regular_extents() {
        // (extent start, extent length, window start, window length, offset in the window,
        //  expected length and address)
        type Case = (u64, u64, u64, usize, usize, Result<(usize, u64), Reason>);
        let cases: [Case; 16] = [
            // The window is the extent.
            (0, 4096, 0, 4096, 0, Ok((4096, MIB))),
            // The extent goes on behind the window.
            (0, MIB, 0, 4096, 0, Ok((4096, MIB))),
            // And in front of it.
            (0, MIB, 8192, 4096, 0, Ok((4096, MIB + 8192))),
            // The window goes on behind the extent.
            (0, 8192, 4096, 65536, 0, Ok((4096, MIB + 4096))),
            // The extent begins within the window.
            (8192, 4096, 0, 65536, 8192, Ok((4096, MIB))),
            (8192, MIB, 0, 65536, 8192, Ok((57344, MIB))),
            // The last block of the window.
            (0, MIB, 0, 65536, 61440, Ok((4096, MIB + 61440))),
            // The last block of the extent.
            (0, MIB, MIB - 4096, 65536, 0, Ok((4096, 2 * MIB - 4096))),
            // Behind the extent, in front of it, behind the window.
            (0, 4096, 4096, 4096, 0, Err(Reason::Mapping)),
            (8192, 4096, 4096, 4096, 0, Err(Reason::Mapping)),
            (0, MIB, 0, 4096, 4096, Err(Reason::Mapping)),
            (0, MIB, 0, 4096, 8192, Err(Reason::Mapping)),
            // Nothing.
            (0, 0, 0, 4096, 0, Err(Reason::Mapping)),
            // Not made of blocks.
            (0, 4095, 0, 4096, 0, Err(Reason::Mapping)),
            (1, 4096, 4096, 4096, 0, Err(Reason::Mapping)),
            // Where sums overflow.
            (
                0,
                u64::MAX,
                u64::MAX - 4095,
                8192,
                4096,
                Err(Reason::Mapping),
            ),
        ];
        for (start, len, window_start, window_len, at, expected) in cases {
            let cut = Segment::cut(
                &extent(start, len, Kind::Regular { logical: MIB }),
                &window(window_start, window_len),
                at,
            );
            let expected = expected.map(|(len, logical)| Segment {
                at,
                len,
                source: Source::Disk { logical },
            });
            assert_eq!(cut, expected);
        }
    }

    #[test]
    fn addresses_that_are_none() {
        for logical in [1u64, 512, 4095, u64::MAX, u64::MAX - 4095] {
            let cut = Segment::cut(
                &extent(0, MIB, Kind::Regular { logical }),
                &window(4096, 4096),
                0,
            );
            assert_eq!(cut, Err(Reason::Mapping));
        }
    }

    #[test]
    fn zeros() {
        for (kind, source) in [
            (Kind::Hole, Source::Hole),
            (Kind::Prealloc, Source::Prealloc),
        ] {
            // A hole may reach as far as offsets go.
            let cut = Segment::cut(
                &extent(4096, u64::MAX - 4096, kind),
                &window(0, 65536),
                4096,
            );
            assert_eq!(
                cut,
                Ok(Segment {
                    at: 4096,
                    len: 61440,
                    source
                })
            );
        }
    }

    #[test]
    fn inline_extents() {
        let inline = extent(0, 4096, Kind::Inline);
        assert_eq!(
            Segment::cut(&inline, &window(0, 65536), 0),
            Ok(Segment {
                at: 0,
                len: 4096,
                source: Source::Inline
            })
        );
        // Inline data is the first block of a file, and no other.
        for bad in [
            Segment::cut(&extent(0, 8192, Kind::Inline), &window(0, 8192), 0),
            Segment::cut(&extent(4096, 4096, Kind::Inline), &window(4096, 4096), 0),
            Segment::cut(&extent(0, 8192, Kind::Inline), &window(4096, 4096), 0),
        ] {
            assert_eq!(bad, Err(Reason::Mapping));
        }
    }

    #[test]
    fn compressed_extents() {
        const K: u64 = 1 << 10;
        // (part of the extent at, disk length, decompressed length, extent length, window start,
        //  window length, expected length and offset)
        type Case = (u64, u64, u64, u64, u64, usize, Result<(usize, u64), Reason>);
        let cases: [Case; 13] = [
            // All of it, the first block, the last.
            (0, 4096, 128 * K, 128 * K, 0, 128 << 10, Ok((128 << 10, 0))),
            (0, 4096, 128 * K, 128 * K, 0, 4096, Ok((4096, 0))),
            (
                0,
                4096,
                128 * K,
                128 * K,
                124 * K,
                4096,
                Ok((4096, 124 * K)),
            ),
            // A part that begins within.
            (64 * K, 8192, 128 * K, 64 * K, 0, 65536, Ok((65536, 64 * K))),
            (
                64 * K,
                8192,
                128 * K,
                64 * K,
                4096,
                4096,
                Ok((4096, 68 * K)),
            ),
            // A part that reaches behind the end.
            (
                64 * K,
                8192,
                128 * K,
                68 * K,
                0,
                128 << 10,
                Err(Reason::Mapping),
            ),
            (128 * K, 8192, 128 * K, 4096, 0, 4096, Err(Reason::Mapping)),
            (u64::MAX, 8192, 128 * K, 4096, 0, 4096, Err(Reason::Mapping)),
            // Longer than extents are.
            (0, 4096, 132 * K, 128 * K, 0, 4096, Err(Reason::Mapping)),
            (0, 132 * K, 128 * K, 128 * K, 0, 4096, Err(Reason::Mapping)),
            // Not made of blocks, or of nothing.
            (0, 4097, 128 * K, 128 * K, 0, 4096, Err(Reason::Mapping)),
            (0, 0, 128 * K, 128 * K, 0, 4096, Err(Reason::Mapping)),
            (0, 4096, 0, 4096, 0, 4096, Err(Reason::Mapping)),
        ];
        for (offset, disk_len, ram_bytes, len, start, window_len, expected) in cases {
            let encoded = |offset| Encoded {
                logical: MIB,
                disk_len,
                ram_bytes,
                offset,
                how: Compression::Lzo,
            };
            let cut = Segment::cut(
                &extent(0, len, Kind::Compressed(encoded(offset))),
                &window(start, window_len),
                0,
            );
            let expected = expected.map(|(len, offset)| Segment {
                at: 0,
                len,
                source: Source::Compressed(encoded(offset)),
            });
            assert_eq!(cut, expected);
        }
    }

    #[test]
    fn unknown_extents_are_left_to_btrfs() {
        assert_eq!(
            Segment::cut(&extent(0, MIB, Kind::Unknown), &window(0, 4096), 0),
            Err(Reason::Features)
        );
    }

    fn extent(start: u64, len: u64, kind: Kind) -> Extent {
        Extent {
            start,
            len,
            kind,
            generation: 7,
        }
    }

    fn window(start: u64, len: usize) -> Range {
        Range {
            start,
            len,
            head: 0,
            valid: len,
            room: len,
            base: 0,
            block: BLOCK,
        }
    }
}
