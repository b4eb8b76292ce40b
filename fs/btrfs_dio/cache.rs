// SPDX-License-Identifier: GPL-2.0

//! Decompressed extents that are kept for a while.
//!
//! An extent has to be read and decompressed from its start. Whoever reads a compressed file in
//! pieces smaller than its extents, one after the other, would have that done for each piece.
//!
//! # What an entry stands for
//!
//! The bytes that the extent with these checksums decompresses to. To look one up takes the
//! checksums that the filesystem has for the extent now, all of them: an entry whose checksums
//! differ is dropped, so what is delivered is as good as what would be read and verified again.
//! Extents without checksums are not kept.
//!
//! # What there can be
//!
//! Never more than the limit, counting the checksums and the memory around. Readers may still use
//! an entry that has been dropped; it is freed when the last of them is done. The entry that has
//! not been used for longest goes first, when there is no room for a new one or when the kernel
//! needs memory.
//!
//! # Locking
//!
//! One spinlock. Under it nothing is allocated and nothing freed: what is taken out is put into
//! [`Gone`], which is dropped after the lock. It is taken in task context only, and no other lock
//! is taken under it.

use crate::safe::{
    decode::Compression,
    memalloc::Scope,
    shrinker::Shrink, //
};
use core::mem::{
    size_of,
    take, //
};
use kernel::{
    new_spinlock,
    page::PAGE_SIZE,
    prelude::*,
    rbtree::{
        RBTree,
        RBTreeNodeReservation, //
    },
    sync::{
        atomic::{
            Atomic,
            Relaxed, //
        },
        Arc,
        SpinLock, //
    },
};

/// The limit, if the one who loads the module does not say otherwise: not so many KiB, but 2 % of all
/// memory, as much as dm-bufio takes (`DM_BUFIO_MEMORY_PERCENT`, drivers/md/dm-bufio.c), and no more
/// than [`MOST`].
///
/// Without us such data is in the page cache, and charged to the cgroup of who reads it. What is here
/// is nobody's: no cgroup is charged, and none gives it back when it runs short, but the whole machine
/// does. So there must not be much of it unless somebody who may decide that has said so.
pub(crate) const BY_MEMORY_KIB: u32 = u32::MAX;
const SHARE: usize = 50;
/// In bytes.
pub(crate) const MOST: usize = 128 << 20;

/// Returns the limit in bytes, if it is said to be so many KiB, and there are so many bytes of memory.
pub(crate) fn limit(kib: u32, memory: usize) -> usize {
    match kib {
        BY_MEMORY_KIB => (memory / SHARE).min(MOST),
        _ => bytes(kib),
    }
}

/// Returns how many bytes so many KiB are, or the most there can be.
pub(crate) fn bytes(kib: u32) -> usize {
    usize::try_from(u64::from(kib) << 10).unwrap_or(usize::MAX)
}

/// Most places for extents that have been asked for.
const PLACES: usize = 1 << 20;

/// What an entry takes beside its data and its checksums, in bytes: an upper bound of the nodes of
/// both trees and of the counted object, with what the allocator rounds up.
const OVERHEAD: usize = 512;

const _: () = assert!(2 * (size_of::<Key>() + size_of::<Entry>() + 64) <= OVERHEAD);

/// Most entries taken out in one go while the lock is held.
const BATCH: usize = 64;

/// Returns how many bytes an allocation of `len` bytes takes: the allocator has sizes that are powers of
/// two, and some between. What is in single pages, and takes a list of them, is taken to be, too.
fn taken(len: usize) -> usize {
    len.checked_next_power_of_two().unwrap_or(usize::MAX)
}

/// Tells extents apart.
///
/// An address that is used again has another generation, or other checksums.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Key {
    /// The filesystem, as long as it is mounted.
    pub(crate) fs: usize,
    /// Logical address in bytes.
    pub(crate) logical: u64,
    /// Size on disk in bytes.
    pub(crate) disk_len: u32,
    /// Size of the decompressed extent in bytes.
    pub(crate) ram_bytes: u32,
    /// The transaction that wrote it.
    pub(crate) generation: u64,
    /// How it is compressed.
    pub(crate) how: Compression,
}

impl Key {
    /// The first key that a filesystem can have.
    const fn first(fs: usize) -> Self {
        Self {
            fs,
            logical: 0,
            disk_len: 0,
            ram_bytes: 0,
            generation: 0,
            how: Compression::Zlib,
        }
    }

    /// Mixes all fields. Not 0.
    fn fingerprint(&self) -> u64 {
        // CAST: Widening, or the number of a variant.
        let words = [
            self.fs as u64,
            self.logical,
            u64::from(self.disk_len) << 32 | u64::from(self.ram_bytes),
            self.generation,
            self.how as u64,
        ];
        let mut hash = 0u64;
        for word in words {
            hash = (hash ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            hash ^= hash >> 32;
        }
        hash | 1
    }
}

/// A decompressed extent, and the checksums of what it was decompressed from.
pub(crate) struct Decoded {
    data: KVVec<u8>,
    digests: KVVec<u8>,
}

impl Decoded {
    /// Returns the decompressed bytes.
    pub(crate) fn data(&self) -> &[u8] {
        &self.data
    }
}

/// An entry of the cache.
struct Entry {
    /// Its place in the order of use.
    used: u64,
    /// What it counts for, in bytes.
    size: usize,
    decoded: Arc<Decoded>,
}

/// What the lock is for.
///
/// # Invariants
///
/// * Each entry has exactly one element in `order`: its `used`, with its key; and there are no
///   others.
/// * `bytes` is the sum of the sizes of the entries, and the limit of the cache at most.
/// * All places in `order` are less than `next`.
#[derive(Default)]
struct Inner {
    entries: RBTree<Key, Entry>,
    /// Keys in the order of use, that used longest ago first.
    order: RBTree<u64, Key>,
    next: u64,
    bytes: usize,
}

/// What has been taken out of the cache. To be dropped without the lock: memory is freed.
#[derive(Default)]
struct Gone {
    entries: RBTree<Key, Entry>,
    order: RBTree<u64, Key>,
}

impl Inner {
    /// Takes an entry out, if there is one; returns what it counted for.
    fn remove(&mut self, key: &Key, gone: &mut Gone) -> Option<usize> {
        let entry = self.entries.get(key)?;
        let (used, size) = (entry.used, entry.size);
        // INVARIANT: Both elements are taken out, and the size with them. Since nothing is added
        // meanwhile none is taken out twice, and so `insert` has none to give back and free.
        if let Some(node) = self.entries.remove_node(key) {
            gone.entries.insert(node);
        }
        if let Some(node) = self.order.remove_node(&used) {
            gone.order.insert(node);
        }
        self.bytes = self.bytes.saturating_sub(size);
        Some(size)
    }

    /// Takes the entry out that was used longest ago; returns what it counted for, `None` if there
    /// are no entries.
    fn remove_oldest(&mut self, gone: &mut Gone) -> Option<usize> {
        let key = *self.order.cursor_front()?.current().1;
        self.remove(&key, gone)
    }

    /// Makes an entry the one that was used last.
    fn touch(&mut self, key: &Key) {
        let next = self.next;
        let Some(entry) = self.entries.get_mut(key) else {
            return;
        };
        // The one that is read in pieces mostly is that already.
        if entry.used.saturating_add(1) == next {
            return;
        }
        if let Some(node) = self.order.remove_node(&entry.used) {
            // INVARIANT: The element is back in another place, which the entry says as well. The
            // memory is that of the node: nothing is allocated or freed.
            entry.used = next;
            self.order
                .insert(node.into_reservation().into_node(next, *key));
            self.next = next.saturating_add(1);
        }
    }
}

/// The cache.
#[pin_data]
pub(crate) struct Cache {
    /// Most bytes that it may have; 0 if it is off.
    limit: usize,
    /// Fingerprints of extents that have been asked for, each at the place that it hashes to; 0 if
    /// there was none. Only advice, so without a lock.
    seen: KVVec<Atomic<u64>>,
    #[pin]
    inner: SpinLock<Inner>,
}

impl Cache {
    /// Makes a cache of at most `limit` bytes, 0 for one that keeps nothing. May sleep; fails with
    /// `ENOMEM`.
    pub(crate) fn new(limit: usize) -> impl PinInit<Self, Error> {
        // Twice as many as there can be entries of the largest extents, as long as that is not out of
        // all proportion: what is not asked for again before that many others have been would not be
        // here any more.
        let places = match limit {
            0 => 0,
            _ => (limit >> 16).clamp(16, PLACES).next_power_of_two(),
        };
        try_pin_init!(Self {
            limit,
            seen: {
                let mut seen = KVVec::with_capacity(places, GFP_KERNEL)?;
                for _ in 0..places {
                    seen.push(Atomic::new(0), GFP_KERNEL)?;
                }
                seen
            },
            inner <- new_spinlock!(Inner::default(), "btrfs_dio_cache"),
        }? Error)
    }

    /// Returns the extent if it is there, and has been made from data with these `digests`.
    ///
    /// `digests` are all checksums of the extent as it is on disk, one after the other. If they are
    /// others than those of the entry, that is dropped. Task context, does not sleep.
    pub(crate) fn lookup(&self, key: &Key, digests: &[u8]) -> Option<Arc<Decoded>> {
        if self.limit == 0 {
            return None;
        }
        let mut gone = Gone::default();
        let mut inner = self.inner.lock();
        let decoded = inner.entries.get(key)?.decoded.clone();
        if decoded.digests.as_slice() == digests {
            inner.touch(key);
            return Some(decoded);
        }
        inner.remove(key, &mut gone);
        drop(inner);
        // Not before the lock is: it may be the last reference.
        drop(decoded);
        None
    }

    /// Returns whether it is worth while to decompress the whole extent and insert it: if it has
    /// been asked for a moment ago.
    ///
    /// Who reads every extent once, or here and there, does not pay for what is not read. Any
    /// context.
    pub(crate) fn wants(&self, key: &Key) -> bool {
        // CAST: Widening.
        if taken(key.ram_bytes as usize).saturating_add(OVERHEAD) > self.limit {
            return false;
        }
        let fingerprint = key.fingerprint();
        // CAST: Any bits do. The number of places is a power of two.
        let place = (fingerprint >> 16) as usize & self.seen.len().saturating_sub(1);
        let Some(seen) = self.seen.get(place) else {
            return false;
        };
        let again = seen.load(Relaxed) == fingerprint;
        if !again {
            seen.store(fingerprint, Relaxed);
        }
        again
    }

    /// Keeps `data`, which the extent with these `digests` decompresses to.
    ///
    /// In place of what is there for the key, and of what was used longest ago. Does nothing if
    /// there are no digests, if it is too large, or without memory. Task context, may sleep; does
    /// not enter the filesystem.
    pub(crate) fn insert(&self, key: Key, digests: &[u8], data: KVVec<u8>) {
        // The errors are those of allocations.
        let _not_kept = self.try_insert(key, digests, data);
    }

    fn try_insert(&self, key: Key, digests: &[u8], data: KVVec<u8>) -> Result {
        let size = taken(data.capacity())
            .saturating_add(taken(digests.len()))
            .saturating_add(OVERHEAD);
        if digests.is_empty() || size > self.limit {
            return Ok(());
        }
        let flags = GFP_KERNEL | __GFP_NOWARN;
        let scope = Scope::nofs();
        let mut copy = KVVec::with_capacity(digests.len(), flags)?;
        copy.extend_from_slice(digests, flags)?;
        let decoded = Arc::new(
            Decoded {
                data,
                digests: copy,
            },
            flags,
        )?;
        let entry = RBTreeNodeReservation::new(flags)?;
        let order = RBTreeNodeReservation::new(flags)?;
        drop(scope);

        let mut gone = Gone::default();
        let mut inner = self.inner.lock();
        inner.remove(&key, &mut gone);
        while inner.bytes.saturating_add(size) > self.limit {
            if inner.remove_oldest(&mut gone).is_none() {
                break;
            }
        }
        // INVARIANT: There is no entry for the key, and room for this one: without any entry there
        // would be. Both elements are added, and the size with them.
        let used = inner.next;
        inner.next = used.saturating_add(1);
        inner.bytes = inner.bytes.saturating_add(size);
        inner.order.insert(order.into_node(used, key));
        inner.entries.insert(entry.into_node(
            key,
            Entry {
                used,
                size,
                decoded,
            },
        ));
        Ok(())
    }

    /// Drops all that there is of a filesystem. Task context, does not sleep under a lock.
    ///
    /// What readers of it add meanwhile may remain.
    pub(crate) fn purge(&self, fs: usize) {
        loop {
            let mut gone = Gone::default();
            let mut inner = self.inner.lock();
            for _ in 0..BATCH {
                let next = inner.entries.cursor_lower_bound(&Key::first(fs));
                let Some(key) = next.map(|at| *at.current().0).filter(|key| key.fs == fs) else {
                    return;
                };
                inner.remove(&key, &mut gone);
            }
        }
    }

    /// Drops all that there is. Task context, may sleep.
    pub(crate) fn purge_all(&self) {
        let mut inner = self.inner.lock();
        // INVARIANT: No entries, no elements, no bytes.
        let gone = (take(&mut inner.entries), take(&mut inner.order));
        inner.bytes = 0;
        drop(inner);
        drop(gone);
    }

    /// Returns the bytes that are kept, of which there are never more than the limit. Task context.
    pub(crate) fn bytes(&self) -> usize {
        self.inner.lock().bytes
    }
}

impl Shrink for Cache {
    const NAME: &'static CStr = c"btrfs_dio_cache";

    // Under the lock nothing is allocated, so nobody who has it waits for us.
    fn count(&self) -> usize {
        self.bytes() / PAGE_SIZE
    }

    fn scan(&self, pages: usize) -> usize {
        let want = pages.saturating_mul(PAGE_SIZE);
        let mut freed = 0usize;
        let mut gone = Gone::default();
        let mut inner = self.inner.lock();
        for _ in 0..BATCH {
            if freed >= want {
                break;
            }
            match inner.remove_oldest(&mut gone) {
                Some(size) => freed = freed.saturating_add(size),
                None => break,
            }
        }
        drop(inner);
        freed / PAGE_SIZE
    }
}
