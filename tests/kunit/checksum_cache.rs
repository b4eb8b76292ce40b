// SPDX-License-Identifier: GPL-2.0

//! The cache of checksums: what is found, and what is not any more.

use kernel::prelude::*;

#[kunit_tests(btrfs_dio_checksum_cache)]
mod tests {
    use super::*;
    use crate::checksum_cache::{
        ChecksumCache,
        Key,
        DEFAULT_SIZE_KIB,
        ENTRY, //
    };

    const KEY: Key = Key {
        fs: 7,
        epoch: 42,
        start: 1 << 30,
    };

    fn cache() -> Result<ChecksumCache> {
        // CAST: Widening.
        ChecksumCache::new((DEFAULT_SIZE_KIB as usize) << 10)
    }

    /// `len` bytes, all different from their neighbours.
    fn digests(from: u8, len: usize) -> Result<KVec<u8>> {
        let mut all = KVec::from_elem(0u8, len, GFP_KERNEL)?;
        for (i, byte) in all.iter_mut().enumerate() {
            *byte = from.wrapping_add(i as u8);
        }
        Ok(all)
    }

    #[test]
    fn parts_are_found_where_they_were_put() -> Result {
        // (size, first and number of what is put, of what is asked for, whether all of it is there)
        let cases = [
            (4usize, (0usize, 64usize), (0usize, 64usize), true),
            (4, (0, 64), (63, 1), true),
            (4, (0, 64), (5, 7), true),
            (4, (3, 5), (3, 5), true),
            (4, (3, 5), (4, 3), true),
            (4, (3, 5), (2, 2), false),
            (4, (3, 5), (7, 2), false),
            (4, (3, 5), (8, 1), false),
            (8, (0, 32), (31, 1), true),
            (8, (1, 3), (1, 3), true),
            (32, (0, 8), (0, 8), true),
            (32, (7, 1), (7, 1), true),
            (32, (7, 1), (6, 1), false),
            // No place for that.
            (4, (60, 5), (60, 4), false),
            (32, (7, 2), (7, 1), false),
            (8, (32, 1), (32, 1), false),
            (4, (64, 1), (64, 1), false),
            (4, (usize::MAX, 1), (usize::MAX, 1), false),
            // Nothing is not there.
            (4, (0, 64), (0, 0), false),
            (0, (0, 1), (0, 1), false),
        ];
        for (size, (first, count), (from, wanted), there) in cases {
            let cache = cache()?;
            cache.insert(&KEY, first, size, &digests(1, size * count)?);
            let mut out = KVec::from_elem(0u8, size * wanted, GFP_KERNEL)?;
            assert_eq!(cache.get(&KEY, from, size, &mut out), there);
            if there {
                let skip = ((from - first) * size) as u8;
                assert!(*out == *digests(1u8.wrapping_add(skip), size * wanted)?);
            }
        }
        Ok(())
    }

    #[test]
    fn all_of_the_key_counts() -> Result {
        let cache = cache()?;
        cache.insert(&KEY, 0, 4, &digests(1, 16)?);
        let mut out = [0u8; 16];
        for other in [
            Key { fs: 8, ..KEY },
            Key { epoch: 41, ..KEY },
            Key { epoch: 43, ..KEY },
            Key {
                start: 2 << 30,
                ..KEY
            },
        ] {
            assert!(!cache.get(&other, 0, 4, &mut out));
        }
        assert!(cache.get(&KEY, 0, 4, &mut out));
        Ok(())
    }

    #[test]
    fn what_is_added_stays_beside_what_was_there() -> Result {
        let cache = cache()?;
        let mut out = [0u8; 4];
        // Two in a word, in any order.
        for place in [5usize, 4, 6, 7, 0, 63] {
            cache.insert(&KEY, place, 4, &[place as u8; 4]);
        }
        for place in [0usize, 4, 5, 6, 7, 63] {
            assert!(cache.get(&KEY, place, 4, &mut out));
            assert_eq!(out, [place as u8; 4]);
        }
        assert!(!cache.get(&KEY, 1, 4, &mut out));
        Ok(())
    }

    #[test]
    fn a_later_epoch_takes_the_place() -> Result {
        let cache = cache()?;
        let later = Key { epoch: 43, ..KEY };
        let mut out = [0u8; 4];
        cache.insert(&KEY, 0, 4, &digests(1, ENTRY)?);
        cache.insert(&later, 3, 4, &[9; 4]);
        assert!(!cache.get(&KEY, 0, 4, &mut out) && !cache.get(&KEY, 3, 4, &mut out));
        assert!(!cache.get(&later, 2, 4, &mut out) && !cache.get(&later, 4, 4, &mut out));
        assert!(cache.get(&later, 3, 4, &mut out) && out == [9; 4]);
        Ok(())
    }

    #[test]
    fn nothing_is_left_of_what_was_unmounted() -> Result {
        let cache = cache()?;
        let mut out = [0u8; 4];
        cache.insert(&KEY, 0, 4, &[1; 4]);
        cache.purge();
        assert!(!cache.get(&KEY, 0, 4, &mut out));
        cache.insert(&KEY, 1, 4, &[2; 4]);
        assert!(!cache.get(&KEY, 0, 4, &mut out));
        assert!(cache.get(&KEY, 1, 4, &mut out) && out == [2; 4]);
        Ok(())
    }

    #[test]
    fn without_room_nothing_is_kept() -> Result {
        for size in [0usize, 1, ENTRY] {
            let cache = ChecksumCache::new(size)?;
            cache.insert(&KEY, 0, 4, &[1; 4]);
            assert!(!cache.get(&KEY, 0, 4, &mut [0; 4]));
        }
        Ok(())
    }
}
