// SPDX-License-Identifier: GPL-2.0

//! Counters, and the file that shows them: `/sys/kernel/debug/btrfs_dio/stats`.
//!
//! One line for each counter, `name value`. Totals since the module was loaded.

use crate::{
    error::Reason,
    safe::{
        block::account,
        counters,
        debugfs,
        decode, //
    },
    segment::Source,
};
use kernel::{
    seq_file::SeqFile,
    seq_print,
    sync::atomic::{
        ordering::Relaxed,
        Atomic, //
    }, //
};

/// What is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Counter {
    /// Reads served.
    Reads,
    /// Bytes that served reads have returned.
    Bytes,
    /// Reads that completed after the call that issued them.
    Queued,
    /// Reads that were told to wait.
    WouldWait,
    /// Segments that were read from devices as they are.
    Regular,
    /// Segments that were read from devices and decompressed.
    Compressed,
    /// Segments that were copied out of the metadata.
    Inline,
    /// Segments of holes.
    Hole,
    /// Segments of space that has not been written.
    Prealloc,
    /// Blocks that went through private memory, as the caller wanted part of them.
    Bounced,
    /// Bios submitted.
    Bios,
    /// Blocks of a copy whose checksum did not match in private memory.
    ChecksumMismatches,
    /// Windows whose checksums did not match, and did when read again into private memory: somebody
    /// else wrote to the caller's.
    BufferChanged,
    /// Windows of asynchronous reads that had to be read again.
    Reread,
    /// Windows in which a device failed.
    IoErrors,
    /// Blocks that came from another copy than the one read first.
    Recovered,
    /// Those of them that were rebuilt from parity.
    Rebuilt,
    /// Copies of blocks that were bad, and were written anew.
    Repaired,
    /// Blocks of which a bad copy was left as it was.
    Unrepaired,
    /// Blocks that no copy could supply.
    Lost,
    /// Parts of compressed extents that had been decompressed before, and kept.
    CacheHits,
    /// Such parts that had not been.
    CacheMisses,
    /// Lookups of checksums that were known, in one group of blocks.
    ChecksumHits,
    /// Such lookups for which the checksum tree was searched.
    ChecksumMisses,
    /// Windows whose checksums were looked up while their data was on its way.
    ChecksumsLate,
    /// Windows whose checksums several CPUs computed.
    ChecksumsShared,
    /// Windows that were planned without locking them.
    Unlocked,
    /// Reads that completed later, and that a worker brought to their end.
    ByWorker,
    /// Reads that waited for bounce memory.
    BounceWaits,
    /// Windows that were read into private memory, as the caller's was seen to change shortly before.
    BouncedUnstable,
    /// Reads left to btrfs, for this reason.
    Declined(Reason),
}

/// All counters, in the order they are shown in; the position of each is its number.
const COUNTERS: [(Counter, &str); 40] = [
    (Counter::Reads, "reads"),
    (Counter::Bytes, "bytes"),
    (Counter::Queued, "queued"),
    (Counter::WouldWait, "would_wait"),
    (Counter::Regular, "regular"),
    (Counter::Compressed, "compressed"),
    (Counter::Inline, "inline"),
    (Counter::Hole, "hole"),
    (Counter::Prealloc, "prealloc"),
    (Counter::Bounced, "bounced"),
    (Counter::Bios, "bios"),
    (Counter::ChecksumMismatches, "csum_mismatches"),
    (Counter::BufferChanged, "buffer_changed"),
    (Counter::Reread, "reread"),
    (Counter::IoErrors, "io_errors"),
    (Counter::Recovered, "recovered"),
    (Counter::Rebuilt, "rebuilt"),
    (Counter::Repaired, "repaired"),
    (Counter::Unrepaired, "unrepaired"),
    (Counter::Lost, "lost"),
    (Counter::CacheHits, "cache_hits"),
    (Counter::CacheMisses, "cache_misses"),
    (Counter::ChecksumHits, "csum_cache_hits"),
    (Counter::ChecksumMisses, "csum_cache_misses"),
    (Counter::ChecksumsLate, "csum_late"),
    (Counter::ChecksumsShared, "csum_shared"),
    (Counter::Unlocked, "unlocked"),
    (Counter::ByWorker, "by_worker"),
    (Counter::BounceWaits, "bounce_waits"),
    (Counter::BouncedUnstable, "bounced_unstable"),
    (Counter::Declined(Reason::Unaligned), "declined_unaligned"),
    (Counter::Declined(Reason::Verity), "declined_verity"),
    (Counter::Declined(Reason::Encrypted), "declined_encrypted"),
    (Counter::Declined(Reason::Features), "declined_features"),
    (Counter::Declined(Reason::Iterator), "declined_iterator"),
    (Counter::Declined(Reason::Fault), "declined_fault"),
    (Counter::Declined(Reason::Checksum), "declined_checksum"),
    (Counter::Declined(Reason::Memory), "declined_memory"),
    (Counter::Declined(Reason::Busy), "declined_busy"),
    (Counter::Declined(Reason::Mapping), "declined_mapping"),
];

/// The number of the first counter of reads left to btrfs.
const FIRST_DECLINED: u32 = 30;

const _: () = assert!(COUNTERS.len() <= counters::COUNT as usize);

impl Counter {
    /// Returns the position in [`COUNTERS`].
    #[inline]
    const fn number(self) -> u32 {
        match self {
            Self::Reads => 0,
            Self::Bytes => 1,
            Self::Queued => 2,
            Self::WouldWait => 3,
            Self::Regular => 4,
            Self::Compressed => 5,
            Self::Inline => 6,
            Self::Hole => 7,
            Self::Prealloc => 8,
            Self::Bounced => 9,
            Self::Bios => 10,
            Self::ChecksumMismatches => 11,
            Self::BufferChanged => 12,
            Self::Reread => 13,
            Self::IoErrors => 14,
            Self::Recovered => 15,
            Self::Rebuilt => 16,
            Self::Repaired => 17,
            Self::Unrepaired => 18,
            Self::Lost => 19,
            Self::CacheHits => 20,
            Self::CacheMisses => 21,
            Self::ChecksumHits => 22,
            Self::ChecksumMisses => 23,
            Self::ChecksumsLate => 24,
            Self::ChecksumsShared => 25,
            Self::Unlocked => 26,
            Self::ByWorker => 27,
            Self::BounceWaits => 28,
            Self::BouncedUnstable => 29,
            // CAST: The position of the variant, declared in the order of the table.
            Self::Declined(reason) => FIRST_DECLINED + reason as u32,
        }
    }
}

/// Adds 1 to a counter. Any context.
#[inline]
pub(crate) fn count(counter: Counter) {
    add(counter, 1);
}

/// Adds to a counter. Any context.
#[inline]
pub(crate) fn add(counter: Counter, value: u64) {
    counters::add(counter.number(), value);
}

/// Private memory in use, in bytes, and the most there was at a time.
static PRIVATE: Atomic<usize> = Atomic::new(0);
static PRIVATE_PEAK: Atomic<usize> = Atomic::new(0);

/// Notes that so many bytes more of bounce memory are in use.
pub(crate) fn add_bounce_memory(bytes: usize) {
    let sum = PRIVATE.fetch_add(bytes, Relaxed).wrapping_add(bytes);
    // Of several at a time the highest may be missed, by what one of them adds.
    if sum > PRIVATE_PEAK.load(Relaxed) {
        PRIVATE_PEAK.store(sum, Relaxed);
    }
}

/// Notes that so many bytes less of bounce memory are in use.
pub(crate) fn sub_bounce_memory(bytes: usize) {
    PRIVATE.fetch_sub(bytes, Relaxed);
}

/// What a window consists of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    regular: u64,
    compressed: u64,
    inline: u64,
    hole: u64,
    prealloc: u64,
    /// Blocks that go through private memory.
    pub(crate) bounced: u64,
}

impl Tally {
    /// Counts a segment.
    pub(crate) fn count(&mut self, source: Source) {
        let field = match source {
            Source::Disk { .. } => &mut self.regular,
            Source::Compressed(_) => &mut self.compressed,
            Source::Inline => &mut self.inline,
            Source::Hole => &mut self.hole,
            Source::Prealloc => &mut self.prealloc,
        };
        *field = field.saturating_add(1);
    }

    /// Adds all to the counters: it has been served.
    pub(crate) fn note(&self) {
        let note = |counter, value| {
            if value > 0 {
                add(counter, value);
            }
        };
        note(Counter::Regular, self.regular);
        note(Counter::Compressed, self.compressed);
        note(Counter::Inline, self.inline);
        note(Counter::Hole, self.hole);
        note(Counter::Prealloc, self.prealloc);
        note(Counter::Bounced, self.bounced);
    }
}

/// What the file shows.
pub(crate) struct Counters;

impl debugfs::Show for Counters {
    fn show(file: &SeqFile) {
        let mut declined = 0u64;
        for (counter, name) in &COUNTERS {
            let value = counters::sum(counter.number());
            if matches!(counter, Counter::Declined(_)) {
                declined = declined.saturating_add(value);
            }
            seq_print!(file, "{name} {value}\n");
        }
        seq_print!(file, "declined {declined}\n");
        seq_print!(file, "private_bytes {}\n", PRIVATE.load(Relaxed));
        seq_print!(file, "private_bytes_peak {}\n", PRIVATE_PEAK.load(Relaxed));
        seq_print!(file, "account_sums {}\n", account::sums());
        seq_print!(file, "decoders {}\n", decode::decoders());
    }
}

/// Whether the number of each counter is its position in the table. For the tests.
#[cfg(CONFIG_KUNIT = "y")]
pub(crate) fn table_is_consistent() -> bool {
    (0u32..)
        .zip(&COUNTERS)
        .all(|(position, (counter, _))| counter.number() == position)
}
