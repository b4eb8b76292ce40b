// SPDX-License-Identifier: GPL-2.0

//! The cache of decompressed extents: what is found, what goes, and how much there is.

use crate::{
    cache::{
        Cache,
        Key, //
    },
    safe::decode::Compression, //
};
use kernel::{
    prelude::*,
    sync::Arc, //
};

const KIB: usize = 1 << 10;
const LIMIT: usize = 512 * KIB;
const EXTENT: usize = 128 * KIB;

const KEY: Key = Key {
    fs: 7,
    logical: 1 << 30,
    disk_len: 65536,
    ram_bytes: 131_072,
    generation: 42,
    how: Compression::Zstd,
};

fn cache(limit: usize) -> Result<Arc<Cache>> {
    Arc::pin_init(Cache::new(limit), GFP_KERNEL)
}

/// The key of another extent of the same filesystem.
fn key(nr: u64) -> Key {
    Key {
        logical: KEY.logical + (nr << 20),
        ..KEY
    }
}

/// `len` bytes of `fill`.
fn data(fill: u8, len: usize) -> Result<KVVec<u8>> {
    Ok(KVVec::from_elem(fill, len, GFP_KERNEL)?)
}

/// The first byte of what is found.
fn found(cache: &Cache, key: &Key, digests: &[u8]) -> Option<u8> {
    cache.lookup(key, digests)?.data().first().copied()
}

#[kunit_tests(btrfs_dio_cache)]
mod tests {
    use super::*;
    use crate::{
        cache,
        safe::shrinker::{
            Shrink,
            Shrinker, //
        }, //
    };
    use kernel::{
        page::PAGE_SIZE,
        sync::{
            atomic::{
                Atomic,
                Relaxed, //
            },
            Completion, //
        },
        workqueue, //
    };

    #[test]
    fn the_limit_is_what_is_said_or_a_share_of_memory() {
        for (kib, memory, limit) in [
            (0, 1 << 30, 0),
            (1, 1 << 30, 1 << 10),
            (4096, 1 << 20, 4 << 20),
            (cache::BY_MEMORY_KIB, 1 << 30, (1 << 30) / 50),
            (
                cache::BY_MEMORY_KIB,
                usize::MAX,
                (usize::MAX / 50).min(cache::MOST),
            ),
            (cache::BY_MEMORY_KIB, 7, 0),
        ] {
            assert_eq!(cache::limit(kib, memory), limit);
        }
    }

    #[test]
    fn what_is_inserted_is_found() -> Result {
        let cache = cache(LIMIT)?;
        assert!(cache.lookup(&KEY, b"digests").is_none());
        cache.insert(KEY, b"digests", data(1, EXTENT)?);
        let decoded = cache.lookup(&KEY, b"digests").ok_or(ENOENT)?;
        assert!(decoded.data().len() == EXTENT && decoded.data().iter().all(|&byte| byte == 1));
        assert!((EXTENT..=EXTENT + KIB).contains(&cache.bytes()));
        // In place of the other one.
        cache.insert(KEY, b"digests", data(2, EXTENT)?);
        assert_eq!(found(&cache, &KEY, b"digests"), Some(2));
        assert!(cache.bytes() <= EXTENT + KIB);
        // Who has the other one keeps it.
        assert_eq!(decoded.data().first(), Some(&1));
        Ok(())
    }

    #[test]
    fn all_fields_of_the_key_count() -> Result {
        let cache = cache(LIMIT)?;
        cache.insert(KEY, b"digests", data(1, 4096)?);
        let others = [
            Key { fs: 8, ..KEY },
            Key {
                logical: KEY.logical + 1,
                ..KEY
            },
            Key {
                disk_len: 69632,
                ..KEY
            },
            Key {
                ram_bytes: 4096,
                ..KEY
            },
            Key {
                generation: 43,
                ..KEY
            },
            Key {
                how: Compression::Lzo,
                ..KEY
            },
        ];
        assert!(!cache.wants(&KEY) && cache.wants(&KEY));
        for other in &others {
            assert!(cache.lookup(other, b"digests").is_none());
            assert!(!cache.wants(other));
        }
        assert_eq!(found(&cache, &KEY, b"digests"), Some(1));
        Ok(())
    }

    #[test]
    fn other_digests_drop_the_entry() -> Result {
        let cache = cache(LIMIT)?;
        let others: [&[u8]; 5] = [b"digestt", b"Digests", b"digest", b"digests0", b""];
        for other in others {
            cache.insert(KEY, b"digests", data(1, 4096)?);
            assert_eq!(found(&cache, &KEY, b"digests"), Some(1));
            assert!(cache.lookup(&KEY, other).is_none());
            assert!(cache.lookup(&KEY, b"digests").is_none());
            assert_eq!(cache.bytes(), 0);
        }
        // Nothing vouches for data without checksums.
        cache.insert(KEY, b"", data(1, 4096)?);
        assert!(cache.lookup(&KEY, b"").is_none());
        assert_eq!(cache.bytes(), 0);
        Ok(())
    }

    #[test]
    fn what_was_used_longest_ago_goes() -> Result {
        // Room for three, with all that is around.
        let cache = cache(LIMIT)?;
        for nr in 0..3u8 {
            cache.insert(key(u64::from(nr)), b"d", data(nr, EXTENT)?);
        }
        // Used in the order 1, 0, 2, 2, 0.
        for nr in [0, 2, 2, 0] {
            assert!(cache.lookup(&key(nr), b"d").is_some());
        }
        cache.insert(key(3), b"d", data(3, EXTENT)?);
        assert!(cache.lookup(&key(1), b"d").is_none());
        cache.insert(key(4), b"d", data(4, EXTENT)?);
        assert!(cache.lookup(&key(2), b"d").is_none());
        for nr in [0, 3, 4] {
            assert_eq!(found(&cache, &key(nr), b"d"), u8::try_from(nr).ok());
        }
        // One takes the place of several.
        cache.insert(key(5), b"d", data(5, 2 * EXTENT)?);
        assert!(cache.lookup(&key(0), b"d").is_none());
        assert!(cache.lookup(&key(3), b"d").is_none());
        assert!(cache.lookup(&key(4), b"d").is_some());
        assert!(cache.lookup(&key(5), b"d").is_some());
        Ok(())
    }

    #[test]
    fn never_more_than_the_limit() -> Result {
        let cache = cache(LIMIT)?;
        let digests = [0u8; KIB];
        let mut state = 1u64;
        for _ in 0..500 {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            let nr = state >> 59;
            let len = (state >> 32) as usize & (EXTENT - 1);
            let digests = digests.get(..1 + (len & 1023)).unwrap_or_default();
            match state >> 57 & 3 {
                0 => drop(cache.lookup(&key(nr), digests)),
                _ => cache.insert(key(nr), digests, data(1, len)?),
            }
            assert!(cache.bytes() <= LIMIT);
        }
        assert!(cache.bytes() > LIMIT / 2);
        // What is too large drops nothing.
        let before = cache.bytes();
        cache.insert(key(100), b"d", data(1, LIMIT)?);
        assert_eq!(cache.bytes(), before);
        Ok(())
    }

    #[test]
    fn an_extent_is_wanted_the_second_time() -> Result {
        let cache = cache(4096 * KIB)?;
        // Reading one by one, each in pieces.
        for nr in 0..1000 {
            assert!(!cache.wants(&key(nr)));
            for _ in 0..3 {
                assert!(cache.wants(&key(nr)));
            }
        }
        // Each once, over and over: what was long ago is forgotten.
        let mut wanted = 0;
        for nr in 0..10_000 {
            wanted += u32::from(cache.wants(&key(1_000_000 + nr % 1000)));
        }
        assert!(wanted < 1000);
        // What does not fit is not wanted.
        let small = self::cache(64 * KIB)?;
        assert!(!small.wants(&KEY) && !small.wants(&KEY));
        // As it counts what the allocator takes for it.
        let rounded = self::cache(EXTENT)?;
        let odd = Key {
            ram_bytes: 100 << 10,
            ..KEY
        };
        assert!(!rounded.wants(&odd) && !rounded.wants(&odd));
        Ok(())
    }

    #[test]
    fn filesystems_are_purged() -> Result {
        let cache = cache(LIMIT)?;
        for (fs, logical) in [(7, 0), (7, u64::MAX), (8, 5), (6, 5), (usize::MAX, 1)] {
            let key = Key { fs, logical, ..KEY };
            cache.insert(key, b"d", data(1, 4096)?);
        }
        // More than are taken out at once.
        for nr in 0..70 {
            cache.insert(key(nr), b"d", data(1, 16)?);
        }
        cache.purge(7);
        assert!(cache.lookup(&key(3), b"d").is_none());
        for (fs, logical, there) in [
            (7, 0, false),
            (7, u64::MAX, false),
            (8, 5, true),
            (6, 5, true),
            (usize::MAX, 1, true),
        ] {
            let key = Key { fs, logical, ..KEY };
            assert_eq!(cache.lookup(&key, b"d").is_some(), there);
        }
        cache.purge(9);
        let bytes = cache.bytes();
        assert!((3 * 4096..3 * 4096 + 3 * KIB).contains(&bytes));
        cache.purge_all();
        assert_eq!(cache.bytes(), 0);
        // And it goes on.
        cache.insert(KEY, b"d", data(1, 4096)?);
        assert_eq!(found(&cache, &KEY, b"d"), Some(1));
        Ok(())
    }

    #[test]
    fn off_keeps_nothing() -> Result {
        let cache = cache(0)?;
        assert!(!cache.wants(&KEY) && !cache.wants(&KEY));
        cache.insert(KEY, b"d", data(1, 1)?);
        assert!(cache.lookup(&KEY, b"d").is_none());
        assert_eq!((cache.bytes(), cache.count()), (0, 0));
        cache.purge(7);
        cache.purge_all();
        Ok(())
    }

    #[test]
    fn memory_is_given_back() -> Result {
        let cache = Shrinker::new(cache(LIMIT)?)?.target().clone();
        assert_eq!(cache.scan(1), 0);
        for nr in 0..3 {
            cache.insert(key(nr), b"d", data(1, EXTENT)?);
        }
        assert_eq!(cache.count(), cache.bytes() / PAGE_SIZE);
        assert_eq!(cache.scan(0), 0);
        assert_eq!(cache.scan(1), EXTENT / PAGE_SIZE);
        assert!(cache.lookup(&key(0), b"d").is_none());
        assert!(cache.lookup(&key(1), b"d").is_some());
        assert!(cache.scan(usize::MAX) > 0);
        assert_eq!((cache.bytes(), cache.count()), (0, 0));
        Ok(())
    }

    /// Many tasks at once, with few keys: what is found is what was inserted, and the limit holds.
    #[test]
    fn many_tasks() -> Result {
        const TASKS: u64 = 8;
        let shrinker = Shrinker::new(cache(LIMIT)?)?;
        let done = Arc::pin_init(Completion::new(), GFP_KERNEL)?;
        let left = Arc::new(Atomic::new(TASKS), GFP_KERNEL)?;
        let good = Arc::new(Atomic::new(0u64), GFP_KERNEL)?;
        for task in 1..=TASKS {
            let (cache, done) = (shrinker.target().clone(), done.clone());
            let (left, good) = (left.clone(), good.clone());
            let work = move || {
                let run = || -> Result<bool> {
                    let mut state = task;
                    let mut same = true;
                    for _ in 0..2000 {
                        state = state
                            .wrapping_mul(6_364_136_223_846_793_005)
                            .wrapping_add(1);
                        let nr = state >> 61;
                        // CAST: Less than 8.
                        let fill = nr as u8;
                        match state >> 57 & 15 {
                            0 => drop(cache.scan(1)),
                            1 => cache.purge(7),
                            2 => drop(cache.lookup(&key(nr), b"other")),
                            3..6 => cache.insert(key(nr), &[fill], data(fill, EXTENT / 2)?),
                            _ => {
                                if let Some(decoded) = cache.lookup(&key(nr), &[fill]) {
                                    same &= decoded.data().iter().all(|&byte| byte == fill);
                                }
                            }
                        }
                        same &= cache.bytes() <= LIMIT;
                    }
                    Ok(same)
                };
                good.fetch_add(u64::from(run() == Ok(true)), Relaxed);
                if left.fetch_sub(1, Relaxed) == 1 {
                    done.complete_all();
                }
            };
            workqueue::system_unbound().try_spawn(GFP_KERNEL, work)?;
        }
        done.wait_for_completion();
        assert_eq!(good.load(Relaxed), TASKS);
        shrinker.target().purge_all();
        assert_eq!(shrinker.target().bytes(), 0);
        Ok(())
    }
}
