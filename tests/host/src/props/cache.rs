// SPDX-License-Identifier: GPL-2.0

//! The cache of checksums, used by one task.

use crate::{
    checksum_cache::{ChecksumCache, Key},
    props::slow,
};
use proptest::{collection::vec, prelude::*, sample::select};
use std::collections::HashMap;

#[derive(Clone, Debug)]
enum Step {
    Insert(Key, usize, Vec<u8>),
    Get(Key, usize, usize),
    Purge,
}

fn key() -> impl Strategy<Value = Key> {
    (0usize..2, 0u64..2, 0u64..3).prop_map(|(fs, epoch, start)| Key {
        fs,
        epoch,
        start: start << 20,
    })
}

fn steps() -> impl Strategy<Value = (usize, Vec<Step>)> {
    let place = prop_oneof![8 => 0usize..70, 1 => any::<usize>()];
    select(vec![4usize, 8, 32]).prop_flat_map(move |size| {
        let step = prop_oneof![
            8 => (key(), place.clone(), 0usize..6, any::<u8>()).prop_map(
                move |(key, first, count, byte)| {
                    let bytes = (0..count * size).map(|n| byte.wrapping_add(n as u8));
                    Step::Insert(key, first, bytes.collect())
                }
            ),
            8 => (key(), place.clone(), 0usize..6)
                .prop_map(|(key, first, count)| Step::Get(key, first, count)),
            1 => Just(Step::Purge),
        ];
        (Just(size), vec(step, 0..60))
    })
}

proptest! {
    #![proptest_config(slow())]

    /// What is found is what was put there last, since the cache was purged. In a cache of a single
    /// entry that is all that is of the key that was put there last.
    #[test]
    fn what_is_found_was_put_there(
        entries in select(vec![0usize, 1, 64]),
        (size, steps) in steps(),
    ) {
        let cache = ChecksumCache::new(entries * 1000).unwrap();
        let mut all: HashMap<(usize, u64, u64, usize), Vec<u8>> = HashMap::new();
        let name = |key: &Key, nr: usize| (key.fs, key.epoch, key.start, nr);
        for step in steps {
            match step {
                Step::Insert(key, first, bytes) => {
                    cache.insert(&key, first, size, &bytes);
                    let fits = first.checked_mul(size).and_then(|at| at.checked_add(bytes.len()));
                    if bytes.is_empty() || fits.is_none_or(|end| end > 256) {
                        continue;
                    }
                    if entries == 1 {
                        all.retain(|name, _| (name.0, name.1, name.2) == (key.fs, key.epoch, key.start));
                    }
                    for (nr, digest) in bytes.chunks_exact(size).enumerate() {
                        all.insert(name(&key, first + nr), digest.to_vec());
                    }
                }
                Step::Get(key, first, count) => {
                    let mut out = vec![0; count * size];
                    let found = cache.get(&key, first, size, &mut out);
                    let digests: Option<Vec<_>> = (0..count)
                        .map(|nr| all.get(&name(&key, first.checked_add(nr)?)))
                        .collect();
                    if found {
                        prop_assert_eq!(Some(out), digests.map(|all| all.into_iter().flatten().copied().collect()));
                    } else if entries == 1 {
                        prop_assert!(digests.is_none() || count == 0);
                    }
                }
                Step::Purge => {
                    cache.purge();
                    all.clear();
                }
            }
        }
    }
}
