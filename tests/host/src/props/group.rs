// SPDX-License-Identifier: GPL-2.0

//! Groups of checksums.

use crate::{
    checksum_cache::ENTRY,
    checksum_group::{digests_len, Group},
    props::config,
};
use proptest::{prelude::*, sample::select};

proptest! {
    #![proptest_config(config())]

    /// Each block's checksum is in one group, in its place there, and the groups come one after the
    /// other.
    #[test]
    fn groups_have_each_checksum_once(
        log in 12u32..17,
        size in select(&[4usize, 8, 32]),
        first in prop_oneof![0u64..1000, Just(u64::MAX >> 17)],
        blocks in 0usize..300,
    ) {
        let block = 1usize << log;
        let group = Group::new(block, size).unwrap();
        let logical = first * block as u64;
        let mut out = vec![0u8; digests_len(blocks * block, block, size).unwrap()];
        prop_assert_eq!(out.len(), blocks * size);
        let mut at = logical;
        let all = group.each(logical, &mut out, |from, start, before, room| {
            assert_eq!(from, at);
            assert!(start <= from && from < start + group.len && start % group.len == 0);
            assert_eq!(from - start, before as u64 * block as u64);
            assert!(!room.is_empty() && before * size + room.len() <= ENTRY);
            assert_eq!(room.len() % size, 0);
            for byte in &mut *room {
                *byte += 1;
            }
            at += (room.len() / size * block) as u64;
            Ok(true)
        });
        prop_assert_eq!(all, Ok(true));
        prop_assert_eq!(at, logical + (blocks * block) as u64);
        prop_assert!(out.iter().all(|times| *times == 1));
    }

    /// No numbers are too odd, and all come to an end.
    #[test]
    fn groups_of_anything(
        block in prop_oneof![any::<usize>(), 0usize..5],
        size in prop_oneof![any::<usize>(), 0usize..300],
        logical in prop_oneof![any::<u64>(), Just(u64::MAX), 0u64..100],
        len in 0usize..2000,
        data in any::<usize>(),
    ) {
        let whole = block > 0 && data % block == 0;
        let all = whole.then(|| (data / block).checked_mul(size)).flatten();
        prop_assert_eq!(digests_len(data, block, size), all);
        let Some(group) = Group::new(block, size) else {
            return Ok(());
        };
        let mut seen = 0;
        let _ = group.each(logical, &mut vec![0; len], |_, _, _, room| {
            seen += room.len();
            Ok(true)
        });
        prop_assert_eq!(seen, len);
    }
}
