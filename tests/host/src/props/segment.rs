// SPDX-License-Identifier: GPL-2.0

//! Segments: what is cut out of an extent.

use crate::{
    error::Reason,
    props::config,
    range::Range,
    safe::{
        btrfs::extent_map::{Encoded, Extent, Kind},
        decode::{Compression, MAX_EXTENT},
    },
    segment::{part, Segment, Source},
};
use proptest::{prelude::*, sample::select};

const BLOCK: usize = 4096;
const BLOCK64: u64 = BLOCK as u64;

/// Offsets and lengths: of blocks, mostly, and what does not fit.
fn odd() -> impl Strategy<Value = u64> {
    prop_oneof![
        8 => (0u64..64).prop_map(|block| block * BLOCK64),
        2 => 0u64..1 << 20,
        1 => any::<u64>(),
        1 => (0u64..8).prop_map(|less| u64::MAX - less * BLOCK64),
    ]
}

/// Those of a compressed extent: mostly such as there are.
fn near() -> impl Strategy<Value = u64> {
    prop_oneof![
        12 => (0u64..=33).prop_map(|block| block * BLOCK64),
        1 => odd(),
    ]
}

prop_compose! {
    fn encoded()(
        logical in near(),
        disk_len in near(),
        ram_bytes in prop_oneof![3 => Just(MAX_EXTENT as u64), 1 => near()],
        offset in prop_oneof![1 => 0u64..3, 2 => near()],
        how in select(&[Compression::Zlib, Compression::Lzo, Compression::Zstd]),
    ) -> Encoded {
        Encoded { logical, disk_len, ram_bytes, offset, how }
    }
}

prop_compose! {
    /// Whatever metadata could say.
    fn extent()(
        start in odd(),
        len in odd(),
        generation in any::<u64>(),
        kind in prop_oneof![
            Just(Kind::Hole),
            Just(Kind::Prealloc),
            Just(Kind::Inline),
            Just(Kind::Unknown),
            odd().prop_map(|logical| Kind::Regular { logical }),
            encoded().prop_map(Kind::Compressed),
        ],
    ) -> Extent {
        Extent { start, len, kind, generation }
    }
}

prop_compose! {
    fn range()(pos in odd(), valid in 1usize..1 << 20) -> Option<Range> {
        Range::new(pos, valid, valid, BLOCK).ok()
    }
}

proptest! {
    #![proptest_config(config())]

    /// A segment is of whole blocks, in the window, in the extent, and comes from where it lies there;
    /// what is not so is refused.
    #[test]
    fn a_segment_lies_in_window_and_extent(
        extent in extent(),
        range in range(),
        at in prop_oneof![
            4 => (0usize..64).prop_map(|block| block * BLOCK),
            1 => any::<usize>(),
        ],
    ) {
        let Some(range) = range else {
            return Ok(());
        };
        let start = u128::from(range.start) + at as u128;
        let end = u128::from(extent.start) + u128::from(extent.len);
        let covers = u128::from(extent.start) <= start && start < end && at < range.len;
        let segment = match Segment::cut(&extent, &range, at) {
            Ok(segment) => segment,
            Err(Reason::Features) => {
                prop_assert_eq!(extent.kind, Kind::Unknown);
                return Ok(());
            }
            Err(reason) => {
                prop_assert_eq!(reason, Reason::Mapping);
                let len = (end.saturating_sub(start)).min(range.len.saturating_sub(at) as u128);
                let simple = covers && match extent.kind {
                    Kind::Hole | Kind::Prealloc => true,
                    Kind::Regular { logical } => {
                        let logical = u128::from(logical) + start - u128::from(extent.start);
                        logical <= u64::MAX.into() && logical % BLOCK as u128 == 0
                    }
                    // Others may be refused for what they are.
                    _ => false,
                };
                prop_assert!(!simple || len % BLOCK as u128 != 0);
                return Ok(());
            }
        };
        prop_assert!(covers);
        prop_assert_eq!(segment.at, at);
        prop_assert!(segment.len > 0 && segment.len % BLOCK == 0);
        prop_assert!(at + segment.len <= range.len);
        prop_assert!(start + segment.len as u128 <= end);
        // As much as there is.
        let reaches = start + segment.len as u128;
        prop_assert!(at + segment.len == range.len || reaches == end);
        let skipped = range.start + at as u64 - extent.start;
        match (extent.kind, segment.source) {
            (Kind::Hole, Source::Hole) | (Kind::Prealloc, Source::Prealloc) => {}
            (Kind::Inline, Source::Inline) => {
                prop_assert_eq!((start, segment.len), (0, BLOCK));
            }
            (Kind::Regular { logical: begin }, Source::Disk { logical }) => {
                prop_assert_eq!(u128::from(logical), u128::from(begin) + u128::from(skipped));
                prop_assert_eq!(logical % BLOCK64, 0);
            }
            (Kind::Compressed(all), Source::Compressed(one)) => {
                prop_assert_eq!(one, Encoded { offset: all.offset + skipped, ..all });
                check(&one, segment.len)?;
            }
            _ => prop_assert!(false, "{:?} of {:?}", segment, extent),
        }
    }

    /// A part of a compressed extent is in the extent, which is made of blocks, and no larger than any
    /// that btrfs makes; else it is refused, and only then.
    #[test]
    fn a_part_lies_in_its_extent(
        encoded in encoded(),
        skipped in prop_oneof![0u64..3, near()],
        len in near(),
        block in (9u32..17).prop_map(|log| 1u64 << log),
    ) {
        let offset = u128::from(encoded.offset) + u128::from(skipped);
        let good = (1..=MAX_EXTENT as u64).contains(&encoded.disk_len)
            && encoded.disk_len % block == 0
            && encoded.logical % block == 0
            && encoded.ram_bytes <= MAX_EXTENT as u64
            && offset + u128::from(len) <= u128::from(encoded.ram_bytes);
        match part(&encoded, skipped, len as usize, block as usize) {
            Ok(one) => {
                prop_assert!(good);
                prop_assert_eq!(one, Encoded { offset: offset as u64, ..encoded });
            }
            Err(reason) => {
                prop_assert_eq!(reason, Reason::Mapping);
                prop_assert!(!good);
            }
        }
    }
}

/// What the decoders rely on.
fn check(encoded: &Encoded, len: usize) -> Result<(), TestCaseError> {
    let most = MAX_EXTENT as u64;
    prop_assert!((1..=most).contains(&encoded.disk_len));
    prop_assert!(encoded.ram_bytes <= most);
    prop_assert!(encoded.offset + len as u64 <= encoded.ram_bytes);
    Ok(())
}
