// SPDX-License-Identifier: GPL-2.0

//! What was read of each device, and why: `/sys/kernel/debug/btrfs_dio/devices`.
//!
//! One line for each, `MAJOR:MINOR name value ...`. Totals since the module was loaded, but for what
//! is in flight.

use crate::safe::{
    block::account,
    debugfs, //
};
use kernel::{
    seq_file::SeqFile,
    seq_print, //
};

/// Bits of a device number that are the minor one: `MINORBITS`, include/linux/kdev_t.h.
const MINOR_BITS: u32 = 20;

/// What the file shows.
pub(crate) struct Devices;

impl debugfs::Show for Devices {
    fn show(file: &SeqFile) {
        for of in account::statements() {
            let (major, minor) = (of.device >> MINOR_BITS, of.device & ((1 << MINOR_BITS) - 1));
            seq_print!(
                file,
                "{major}:{minor} reads {} bytes {} errors {} in_flight {}",
                of.reads,
                of.bytes,
                of.errors,
                of.in_flight
            );
            for (reason, times) in of.chosen() {
                seq_print!(file, " {reason} {times}");
            }
            seq_print!(file, "\n");
        }
    }
}
