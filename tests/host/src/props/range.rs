// SPDX-License-Identifier: GPL-2.0

//! Windows: what the caller wants of them, byte by byte.

use crate::{
    props::config,
    range::{Part, Range},
};
use proptest::prelude::*;

/// Small enough to look at each byte.
const BLOCK: usize = 16;

prop_compose! {
    fn window()(
        pos in 0u64..200,
        valid in 1usize..200,
        more in 0usize..40,
        base in 0usize..50,
    ) -> (u64, Range) {
        (pos, Range::new(pos, valid, valid + more, BLOCK).unwrap().at(base))
    }
}

fn odd() -> impl Strategy<Value = usize> {
    prop_oneof![
        any::<usize>(),
        0usize..100_000,
        (0u32..64, 0usize..3).prop_map(|(bit, less)| (1usize << bit).wrapping_sub(less)),
    ]
}

/// Where in the caller's memory each byte of the `len` at `at` goes, if it is wanted: one at a time.
fn wanted(range: &Range, pos: u64, at: usize, len: usize) -> Vec<Option<usize>> {
    let byte = |at: usize| {
        let behind = (range.start + at as u64).checked_sub(pos)? as usize;
        (behind < range.valid).then_some(range.base + behind)
    };
    (at..at + len).map(byte).collect()
}

proptest! {
    #![proptest_config(config())]

    /// A window is of whole blocks, as few as can be.
    #[test]
    fn a_window_is_of_blocks((pos, range) in window()) {
        let block = BLOCK as u64;
        prop_assert_eq!(range.start, pos / block * block);
        let end = (pos + range.valid as u64).div_ceil(block) * block;
        prop_assert_eq!(range.start + range.len as u64, end);
        prop_assert_eq!(range.start + range.head as u64, pos);
    }

    /// What is wanted of a stretch is one part, of the bytes that are, each in its place.
    #[test]
    fn a_part_is_what_is_wanted((pos, range) in window(), at in 0usize..300, len in 0usize..300) {
        let bytes = wanted(&range, pos, at, len);
        let part = range.wanted(at, len);
        for (skip, to) in bytes.iter().enumerate() {
            let got = part.and_then(|Part { skip: from, to, len }| {
                let behind = skip.checked_sub(from)?;
                (behind < len).then_some(to + behind)
            });
            prop_assert_eq!(got, *to);
        }
        prop_assert!(part.is_none_or(|part| part.len > 0 && part.skip + part.len <= len));
    }

    /// What devices write to the caller's memory is whole blocks, where they belong, and in the room
    /// that there is; and is not what could have been.
    #[test]
    fn what_is_direct_fits((pos, range) in window(), at in 0usize..20, blocks in 1usize..20) {
        let (at, len) = (at * BLOCK, blocks * BLOCK);
        let direct = range.direct(at, len);
        let to = (range.start + at as u64).checked_sub(pos);
        let fits = |len: usize| to.is_some_and(|to| to as usize + len <= range.room);
        match direct {
            None => prop_assert!(!fits(BLOCK)),
            Some((place, there)) => {
                prop_assert_eq!(Some(place as u64), to.map(|to| to + range.base as u64));
                prop_assert!(there > 0 && there <= len && there % BLOCK == 0);
                prop_assert!(fits(there));
                prop_assert!(there == len || !fits(there + BLOCK));
            }
        }
    }

    /// A read that goes on window after window, some of them cut short, gets each byte once.
    #[test]
    fn cut_and_gone_on_with((pos, all) in window(), cuts in prop::collection::vec(1usize..6, 1..6)) {
        let mut range = all;
        let mut done = 0;
        for blocks in cuts.iter().cycle() {
            let cut = range.cut(blocks * BLOCK);
            prop_assert!(cut.len <= range.len && cut.valid <= range.valid);
            prop_assert!(cut.start == range.start && cut.head == range.head);
            if let Some(part) = cut.wanted(0, cut.len) {
                prop_assert_eq!(part.to, all.base + done);
                prop_assert_eq!(part.len, cut.valid);
            }
            done += cut.valid;
            if cut.valid == range.valid {
                break;
            }
            let next = range.from(cut.valid).unwrap();
            prop_assert_eq!(next.at_offset(next.head), pos + done as u64);
            prop_assert!(cut.valid > 0);
            range = next;
        }
        prop_assert_eq!(done, all.valid);
        prop_assert!(all.from(all.valid).is_err());
    }

    /// No numbers are too odd. What is not refused has whole blocks that do not overflow.
    #[test]
    fn windows_of_anything(
        pos in any::<u64>(),
        (valid, room, block) in (odd(), odd(), odd()),
        (at, len, base) in (odd(), odd(), odd()),
    ) {
        let Ok(range) = Range::new(pos, valid, room, block) else {
            return Ok(());
        };
        prop_assert!(valid > 0 && room >= valid && block.is_power_of_two());
        prop_assert!(range.len % block == 0 && range.len > 0 && range.head < block);
        prop_assert!(range.start.checked_add(range.len as u64).is_some());
        let range = range.at(base);
        range.at_offset(at);
        let cut = range.cut(at);
        prop_assert!(cut.valid <= range.valid);
        let _ = range.from(at);
        range.direct(at, len);
        if let Some(part) = range.wanted(at, len) {
            prop_assert!(part.len <= len && part.len <= valid);
        }
    }
}
