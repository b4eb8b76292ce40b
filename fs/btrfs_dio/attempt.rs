// SPDX-License-Identifier: GPL-2.0

//! How a window is to be read, and how it is being tried.

use crate::{
    budget::{
        Credit,
        Reservation, //
    },
    completion::Outcome,
    run::Spots,
    safe::{
        owner::Owner,
        patience::Patience, //
    },
};
use kernel::sizes::SZ_64K;

/// How often to wait for writes in the range before the read is left to btrfs.
pub(crate) const LOCK_TRIES: u32 = 64;

/// Largest window that is looked at without locking it, and that is waited for where it is issued, if
/// its checksums have to be. In bytes.
pub(crate) const SMALL: usize = SZ_64K;

/// How a read is to be served.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Manner {
    /// Whether it may wait.
    pub(crate) patience: Patience,
    /// I/O priority.
    pub(crate) ioprio: u16,
    /// Process that reads, by which the copy is chosen.
    pub(crate) pid: i32,
    /// The owner of the requests, for a worker; `None` if that is the current task.
    pub(crate) owner: Option<Owner>,
    /// All bits that are set in the address or the length of any piece of the caller's memory.
    pub(crate) alignment: usize,
}

/// Where data from devices goes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Placement {
    /// Straight into the caller's memory, where it can.
    Direct,
    /// Into private memory, where nobody changes it before it is verified.
    Private,
}

/// How a window is being tried.
pub(crate) struct Attempt {
    pub(crate) manner: Manner,
    pub(crate) placement: Placement,
    /// Bounce memory that the reader has waited for.
    pub(crate) reserved: Option<Reservation>,
    /// How strictly the limit of bounce memory applies.
    pub(crate) credit: Credit,
    /// The spots of the attempt before, to be read again, if they are to be the same ones.
    pub(crate) spots: Spots,
    /// What the attempt before came to, if that was because a copy seemed to be bad, or is missing.
    pub(crate) failed: Option<Outcome>,
    /// Whether checksums that have to be read first may be read while data is on its way: who tries
    /// waits for both.
    pub(crate) may_put_off: bool,
}

impl Attempt {
    /// Makes the first attempt.
    pub(crate) fn first(manner: &Manner) -> Self {
        Self {
            manner: *manner,
            placement: Placement::Direct,
            reserved: None,
            credit: Credit::None,
            spots: Spots::new(),
            failed: None,
            may_put_off: false,
        }
    }
}
