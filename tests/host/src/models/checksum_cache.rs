// SPDX-License-Identifier: GPL-2.0

//! The cache of checksums, which nobody locks.
//!
//! Who reads is a thread that is spawned, and who fills the one that spawns it: loom only tries to
//! have a thread come before the last access of another one, so it is to be the one that fills. What
//! is read then may be as old as the memory model lets it be.

use crate::checksum_cache::{ChecksumCache, Key, ENTRY};
use kernel::sync::model::check;
use loom::{sync::Arc, thread};

/// Room for one entry, with atomics as they are here: all keys have the same one.
const SIZE: usize = 1000;
/// The words of an entry, and what comes before; and what the cache has.
const ATOMICS: usize = ENTRY / 8 + 6 + 1;

const DIGEST: usize = 8;
/// The digests of two blocks.
type Digests = [u8; 2 * DIGEST];

/// What was there before.
const OLD: Key = Key {
    fs: 1,
    epoch: 1,
    start: 1 << 20,
};
/// Keys of which one part is another one each.
const NEW: [Key; 3] = [
    Key { fs: 2, ..OLD },
    Key { epoch: 2, ..OLD },
    Key {
        start: 2 << 20,
        ..OLD
    },
];

/// Digests that no other key has.
fn digests(key: &Key) -> Digests {
    let part = (key.start >> 20) as u8;
    [part | (key.epoch as u8) << 2 | (key.fs as u8) << 4; 2 * DIGEST]
}

/// A cache that is full of something else.
fn cache() -> Arc<ChecksumCache> {
    let cache = ChecksumCache::new(SIZE).unwrap();
    cache.insert(&OLD, 0, DIGEST, &[0xee; ENTRY]);
    Arc::new(cache)
}

/// Returns whether both digests of a key are found, which are then right.
fn found(cache: &ChecksumCache, key: &Key) -> bool {
    let mut out = [0; 2 * DIGEST];
    let found = cache.get(key, 0, DIGEST, &mut out);
    assert!(!found || out == digests(key), "{key:?}: {out:x?}");
    found
}

/// Has a thread read a key while `fill` is called.
fn read_while(cache: &Arc<ChecksumCache>, key: Key, fill: impl FnOnce()) {
    let reader = {
        let cache = cache.clone();
        thread::spawn(move || found(&cache, &key))
    };
    fill();
    reader.join().unwrap();
}

/// Who reads while somebody fills the entry finds what is there for the key, or nothing; never what
/// was there before, or a bit of each.
///
/// Finds: any store of a part of the key, or the last of the number, relaxed; any load of a part of the
/// key, or the first of the number, relaxed; a part that is not compared; a number that is not looked
/// at again, that may be odd, or that is even again before all is there.
#[test]
fn who_reads_finds_all_or_nothing() {
    for key in NEW {
        check(ATOMICS, Some(3), move || {
            let cache = cache();
            read_while(&cache, key, || {
                cache.insert(&key, 0, DIGEST, &digests(&key))
            });
            assert!(found(&cache, &key));
        });
    }
}

/// So does who reads a digest while it is added beside another one of its key.
///
/// Finds: the store or the load of what is there, relaxed; as above, what has to do with the number.
#[test]
fn who_reads_finds_what_is_added_or_nothing() {
    check(ATOMICS, None, || {
        let [key, ..] = NEW;
        let cache = cache();
        cache.insert(&key, 0, DIGEST, &digests(&key)[..DIGEST]);
        read_while(&cache, key, || {
            cache.insert(&key, 1, DIGEST, &digests(&key)[..DIGEST])
        });
        assert!(found(&cache, &key));
    });
}

/// So does who reads while the entry is filled for another key, and then for the own one again.
///
/// Finds: the store or the load of a word, relaxed; a number that is only compared by whether it is
/// odd, or that is the same after two fillings.
#[test]
fn who_reads_is_not_deceived_by_two_fillings() {
    for other in NEW {
        check(ATOMICS, Some(2), move || {
            let key = Key {
                fs: 3,
                epoch: 3,
                start: 3 << 20,
            };
            let cache = cache();
            cache.insert(&key, 0, DIGEST, &digests(&key));
            read_while(&cache, key, || {
                cache.insert(&other, 0, DIGEST, &digests(&other));
                cache.insert(&key, 0, DIGEST, &digests(&key));
            });
            assert!(found(&cache, &key));
        });
    }
}

/// Two who fill the entry at the same time, for the same key or for two: what is found then is right,
/// and something is.
///
/// Finds: who fills though another one does, or has since it looked; `cmpxchg` that does not acquire,
/// so that what another key had is taken to be there; what is there of another key, and is kept.
#[test]
fn two_do_not_fill_an_entry_together() {
    let [one, _, another] = NEW;
    for other in [another, one] {
        check(ATOMICS, None, move || {
            let cache = cache();
            let filler = {
                let cache = cache.clone();
                // The second block only.
                thread::spawn(move || cache.insert(&other, 1, DIGEST, &digests(&other)[..DIGEST]))
            };
            cache.insert(&one, 0, DIGEST, &digests(&one));
            filler.join().unwrap();
            let mut out = [0; DIGEST];
            let there = [(one, 0), (one, 1), (other, 0), (other, 1)].map(|(key, first)| {
                let there = cache.get(&key, first, DIGEST, &mut out);
                assert!(
                    !there || out == digests(&key)[..DIGEST],
                    "{key:?}: {out:x?}"
                );
                there
            });
            assert!(there.contains(&true));
        });
    }
}

/// What was filled for a filesystem that was unmounted is not found for one that is taken for it,
/// while somebody fills entries for others.
///
/// Finds: an entry that is not marked with how often the cache has been purged, or whose mark is not
/// looked at; a cache that is not purged.
#[test]
fn what_was_purged_stays_away() {
    check(ATOMICS, Some(3), || {
        let [key, _, other] = NEW;
        let cache = cache();
        cache.insert(&key, 0, DIGEST, &[0xdd; 2 * DIGEST]);
        let filler = {
            let cache = cache.clone();
            thread::spawn(move || cache.insert(&other, 0, DIGEST, &digests(&other)))
        };
        cache.purge();
        assert!(!found(&cache, &key));
        cache.insert(&key, 1, DIGEST, &digests(&key)[..DIGEST]);
        assert!(!found(&cache, &key));
        filler.join().unwrap();
        cache.insert(&key, 0, DIGEST, &digests(&key)[..DIGEST]);
        cache.insert(&key, 1, DIGEST, &digests(&key)[..DIGEST]);
        assert!(found(&cache, &key));
    });
}
