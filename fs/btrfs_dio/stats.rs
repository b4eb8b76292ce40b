// SPDX-License-Identifier: GPL-2.0

//! Counters, and the file that shows them: `/sys/kernel/debug/btrfs_dio/stats`.
//!
//! One line for each counter, `name value`. Totals since the module was loaded.

use crate::{
    error::Reason,
    safe::{
        counters,
        debugfs, //
    },
};
use kernel::{
    seq_file::SeqFile,
    seq_print, //
};

/// What is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Counter {
    /// Reads served.
    Reads,
    /// Bytes that served reads have returned.
    Bytes,
    /// Segments that were read from devices.
    Regular,
    /// Segments that were copied out of the metadata.
    Inline,
    /// Segments of holes.
    Hole,
    /// Segments of space that has not been written.
    Prealloc,
    /// Bios submitted.
    Bios,
    /// Blocks whose checksum did not match.
    ChecksumMismatches,
    /// Windows in which a device failed.
    IoErrors,
    /// Reads left to btrfs, for this reason.
    Declined(Reason),
}

/// All counters, in the order they are shown in; the position of each is its number.
const COUNTERS: [(Counter, &str); 24] = [
    (Counter::Reads, "reads"),
    (Counter::Bytes, "bytes"),
    (Counter::Regular, "regular"),
    (Counter::Inline, "inline"),
    (Counter::Hole, "hole"),
    (Counter::Prealloc, "prealloc"),
    (Counter::Bios, "bios"),
    (Counter::ChecksumMismatches, "csum_mismatches"),
    (Counter::IoErrors, "io_errors"),
    (Counter::Declined(Reason::Async), "declined_async"),
    (Counter::Declined(Reason::Nowait), "declined_nowait"),
    (Counter::Declined(Reason::Unaligned), "declined_unaligned"),
    (Counter::Declined(Reason::Compressed), "declined_compressed"),
    (Counter::Declined(Reason::Raid56), "declined_raid56"),
    (Counter::Declined(Reason::Verity), "declined_verity"),
    (Counter::Declined(Reason::Encrypted), "declined_encrypted"),
    (Counter::Declined(Reason::Features), "declined_features"),
    (Counter::Declined(Reason::Iterator), "declined_iterator"),
    (Counter::Declined(Reason::Fault), "declined_fault"),
    (Counter::Declined(Reason::Checksum), "declined_checksum"),
    (Counter::Declined(Reason::Io), "declined_io"),
    (Counter::Declined(Reason::Memory), "declined_memory"),
    (Counter::Declined(Reason::Busy), "declined_busy"),
    (Counter::Declined(Reason::Mapping), "declined_mapping"),
];

/// The number of the first counter of reads left to btrfs.
const FIRST_DECLINED: u32 = 9;

const _: () = assert!(COUNTERS.len() <= counters::COUNT as usize);

impl Counter {
    /// Returns the position in [`COUNTERS`].
    const fn number(self) -> u32 {
        match self {
            Self::Reads => 0,
            Self::Bytes => 1,
            Self::Regular => 2,
            Self::Inline => 3,
            Self::Hole => 4,
            Self::Prealloc => 5,
            Self::Bios => 6,
            Self::ChecksumMismatches => 7,
            Self::IoErrors => 8,
            // CAST: The position of the variant, declared in the order of the table.
            Self::Declined(reason) => FIRST_DECLINED + reason as u32,
        }
    }
}

/// Adds 1 to a counter. Any context.
pub(crate) fn count(counter: Counter) {
    add(counter, 1);
}

/// Adds to a counter. Any context.
pub(crate) fn add(counter: Counter, value: u64) {
    counters::add(counter.number(), value);
}

/// The file that shows all counters.
pub(crate) type File = debugfs::File<Counters>;

/// Makes the file.
pub(crate) fn file() -> File {
    File::new(c"btrfs_dio", c"stats")
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
    }
}

/// Whether the number of each counter is its position in the table. For the tests.
#[cfg(CONFIG_KUNIT = "y")]
pub(crate) fn table_is_consistent() -> bool {
    (0u32..)
        .zip(&COUNTERS)
        .all(|(position, (counter, _))| counter.number() == position)
}
