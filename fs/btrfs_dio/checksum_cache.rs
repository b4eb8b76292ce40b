// SPDX-License-Identifier: GPL-2.0

//! Checksums that have been looked up, so that a small read need not search the checksum tree.
//!
//! # What an entry stands for
//!
//! The checksums of blocks that lie together, each of which was referenced by a file, and held
//! nothing but what that file had written, in an epoch of the filesystem: the time in which one
//! transaction is the latest there is (`ExtentLock::epoch()`). An entry is of use in its epoch only.
//!
//! In that time it cannot become wrong. Disk space that is freed is pinned until the transaction
//! that freed it is on disk, and only then written again; whoever makes a file refer to what was
//! written does so in a later transaction, so in a later epoch. (`btrfs_finish_extent_commit()`, and
//! the states at the top of fs/btrfs/transaction.c.) What a file has written with checksums is not
//! overwritten where it is, and space it has only reserved is not read. So for an extent that is
//! mapped, under a lock of its range that is older than the look at the epoch, an entry of the epoch
//! has what the checksum tree has. So it has for one that is looked at before the epoch is, and still
//! is the file's after the entry has been read.
//!
//! Even so only the first look at data relies on it: what does not match is read again with the
//! checksums of the tree.
//!
//! # Locking
//!
//! Each entry has a sequence number, odd while somebody fills it. Who reads it compares the number
//! before and after, and finds nothing if it has changed; who fills it and finds it odd, or changed
//! meanwhile, does not. The words are loaded with acquire and stored with release semantics: who has
//! seen one word of a later filling sees its number, too. Any context, never waits.

use crate::safe::btrfs::fs::FsId;
use kernel::{
    prelude::*,
    sync::atomic::{
        Acquire,
        Atomic,
        Relaxed,
        Release, //
    },
};

/// The size in KiB, if the one who loads the module does not say otherwise.
pub(crate) const DEFAULT_SIZE_KIB: u32 = 1024;

/// Bytes of checksums in an entry.
pub(crate) const ENTRY: usize = 256;

/// Most checksums in an entry: a bit for each.
const MOST: usize = u64::BITS as usize;

const WORD: usize = size_of::<u64>();
const WORDS: usize = ENTRY / WORD;

/// What is in an entry, but for the checksums.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Key {
    /// The filesystem, as long as it is mounted.
    pub(crate) fs: usize,
    /// Its epoch.
    pub(crate) epoch: u64,
    /// Logical address of the first block that the entry has room for.
    pub(crate) start: u64,
}

impl Key {
    /// Returns the key of what starts at `start`. The epoch is to be looked at as said above.
    pub(crate) fn new(fs: FsId, epoch: u64, start: u64) -> Self {
        Self {
            fs: fs.0,
            epoch,
            start,
        }
    }

    /// Mixes what tells entries of one epoch apart.
    fn hash(&self) -> usize {
        // CAST: Widening, and any bits do.
        let word = (self.start ^ (self.fs as u64) << 16).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        (word >> 32) as usize
    }
}

/// An entry.
struct Entry {
    /// Odd while it is being filled.
    sequence: Atomic<u64>,
    fs: Atomic<u64>,
    epoch: Atomic<u64>,
    start: Atomic<u64>,
    /// When the cache was purged last, as it was when the entry was filled.
    purged: Atomic<u64>,
    /// A bit for each checksum that is there.
    there: Atomic<u64>,
    digests: [Atomic<u64>; WORDS],
}

impl Entry {
    fn new() -> Self {
        Self {
            sequence: Atomic::new(0),
            fs: Atomic::new(0),
            epoch: Atomic::new(0),
            start: Atomic::new(0),
            purged: Atomic::new(0),
            there: Atomic::new(0),
            digests: [const { Atomic::new(0) }; WORDS],
        }
    }

    /// Returns whether it is filled for a key.
    fn holds(&self, key: &Key, purged: u64) -> bool {
        self.start.load(Acquire) == key.start
            && self.epoch.load(Acquire) == key.epoch
            // CAST: Widening.
            && self.fs.load(Acquire) == key.fs as u64
            && self.purged.load(Acquire) == purged
    }
}

/// The bits of `count` checksums from the one of number `first` on. `None` if there is none, or no
/// place for all of them.
fn places(first: usize, count: usize) -> Option<u64> {
    let bits = u64::MAX.checked_shr(u64::BITS.checked_sub(u32::try_from(count).ok()?)?)?;
    let end = first.checked_add(count)?;
    (end <= MOST).then(|| bits << first)
}

/// The cache.
pub(crate) struct ChecksumCache {
    /// As many as a power of two, or none.
    entries: KVVec<Entry>,
    /// How often a filesystem has been unmounted.
    purged: Atomic<u64>,
}

impl ChecksumCache {
    /// Makes a cache of at most `size` bytes; one that keeps nothing if that is too little for an
    /// entry. May sleep; fails with `ENOMEM`.
    pub(crate) fn new(size: usize) -> Result<Self> {
        let most = size / size_of::<Entry>();
        let count = most.checked_ilog2().map_or(0, |log| 1usize << log);
        let mut entries = KVVec::with_capacity(count, GFP_KERNEL)?;
        for _ in 0..count {
            entries.push(Entry::new(), GFP_KERNEL)?;
        }
        Ok(Self {
            entries,
            purged: Atomic::new(0),
        })
    }

    fn entry(&self, key: &Key) -> Option<&Entry> {
        self.entries
            .get(key.hash() & self.entries.len().wrapping_sub(1))
    }

    /// Copies checksums of `size` bytes into `out`, from the one of number `first` of the key on.
    /// Returns whether all were there; if not, `out` is of no use.
    pub(crate) fn get(&self, key: &Key, first: usize, size: usize, out: &mut [u8]) -> bool {
        self.copy(key, first, size, out).is_some()
    }

    fn copy(&self, key: &Key, first: usize, size: usize, out: &mut [u8]) -> Option<()> {
        let entry = self.entry(key)?;
        let wanted = places(first, out.len().checked_div(size)?)?;
        let sequence = entry.sequence.load(Acquire);
        let found = sequence & 1 == 0
            && entry.holds(key, self.purged.load(Relaxed))
            && entry.there.load(Acquire) & wanted == wanted;
        if !found {
            return None;
        }
        let start = first.checked_mul(size)?;
        let mut copied = 0usize;
        while copied < out.len() {
            let from = start.checked_add(copied)?;
            let bytes = entry.digests.get(from / WORD)?.load(Acquire).to_ne_bytes();
            let rest = bytes.get(from % WORD..)?;
            let len = rest.len().min(out.len().saturating_sub(copied));
            let to = copied.checked_add(len)?;
            out.get_mut(copied..to)?.copy_from_slice(rest.get(..len)?);
            copied = to;
        }
        (entry.sequence.load(Relaxed) == sequence).then_some(())
    }

    /// Keeps checksums of `size` bytes, from the one of number `first` of the key on: beside those
    /// that are there, if they are of the same key. Does nothing if there is no room for them, or if
    /// somebody else is at it.
    pub(crate) fn insert(&self, key: &Key, first: usize, size: usize, digests: &[u8]) {
        let Some(entry) = self.entry(key) else {
            return;
        };
        let (Some(added), Some(start)) = (
            digests
                .len()
                .checked_div(size)
                .and_then(|count| places(first, count)),
            first.checked_mul(size),
        ) else {
            return;
        };
        if start.saturating_add(digests.len()) > ENTRY {
            return;
        }
        let sequence = entry.sequence.load(Relaxed);
        let filling = sequence.wrapping_add(1);
        if sequence & 1 != 0 || entry.sequence.cmpxchg(sequence, filling, Acquire).is_err() {
            return;
        }
        let purged = self.purged.load(Relaxed);
        let there = if entry.holds(key, purged) {
            entry.there.load(Relaxed)
        } else {
            // CAST: Widening.
            entry.fs.store(key.fs as u64, Release);
            entry.epoch.store(key.epoch, Release);
            entry.start.store(key.start, Release);
            entry.purged.store(purged, Release);
            0
        };
        entry.there.store(there | added, Release);
        let mut left = digests;
        let mut skip = start % WORD;
        for word in entry.digests.iter().skip(start / WORD) {
            let mut bytes = word.load(Relaxed).to_ne_bytes();
            let (now, later) = left.split_at(left.len().min(WORD.saturating_sub(skip)));
            for (to, from) in bytes.iter_mut().skip(skip).zip(now) {
                *to = *from;
            }
            word.store(u64::from_ne_bytes(bytes), Release);
            (left, skip) = (later, 0);
            if left.is_empty() {
                break;
            }
        }
        entry.sequence.store(filling.wrapping_add(1), Release);
    }

    /// Forgets all there is: a filesystem is unmounted, and another one may be taken for it.
    ///
    /// Nobody may be reading from that one any more.
    pub(crate) fn purge(&self) {
        self.purged.add(1u64, Relaxed);
    }
}
