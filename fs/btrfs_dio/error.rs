// SPDX-License-Identifier: GPL-2.0

//! Why a read is not served.

use kernel::{
    alloc::AllocError,
    prelude::*, //
};

/// Why a read was left to btrfs. Each has a counter of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reason {
    /// Offset, length or memory is no multiple of 512 bytes.
    Unaligned,
    /// The file is sealed with fs-verity.
    Verity,
    /// The file is encrypted.
    Encrypted,
    /// The filesystem has a feature that changes what is on disk in ways not known here.
    Features,
    /// The buffer is of a kind not known here, or overlaps itself.
    Iterator,
    /// The buffer is not there, or nothing a device can write to.
    Fault,
    /// A checksum is missing.
    Checksum,
    /// Memory is short.
    Memory,
    /// The range kept changing.
    Busy,
    /// The metadata cannot be read, or makes no sense.
    Mapping,
}

/// How the serving of a read ends early.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stop {
    /// The read is left to btrfs, untouched.
    Decline(Reason),
    /// The read has this result: one that btrfs could not repeat, or would have as well.
    Fail(Error),
    /// The read would have to wait, and may not.
    WouldWait,
    /// There is no bounce memory now: to be tried again with so many bytes of it, once the reader has
    /// waited for them without a lock.
    Budget(usize),
    /// The extents have changed before all was known of them: to be tried again.
    Stale,
    /// A device cannot write to the caller's memory: to be tried again with private memory.
    Misfit,
    /// There is no room for all runs: to be tried again with more.
    NoRoom,
    /// No device that is there has some of it: to be rebuilt, if it can be.
    Absent,
}

impl From<Reason> for Stop {
    fn from(reason: Reason) -> Self {
        Self::Decline(reason)
    }
}

impl From<AllocError> for Stop {
    fn from(_: AllocError) -> Self {
        Self::Decline(Reason::Memory)
    }
}

impl Stop {
    /// What an error in the metadata, or in finding one's way by it, means for the read: btrfs will
    /// meet it as well, and knows what to say.
    pub(crate) fn from_mapping(error: Error) -> Self {
        if error == ENOMEM {
            Self::Decline(Reason::Memory)
        } else if error == EAGAIN {
            Self::WouldWait
        } else {
            Self::Decline(Reason::Mapping)
        }
    }

    /// What an error of writing back means for the read: it is told only once.
    pub(crate) fn from_write_back(error: Error) -> Self {
        if error == EAGAIN {
            Self::WouldWait
        } else {
            Self::Fail(error)
        }
    }
}
