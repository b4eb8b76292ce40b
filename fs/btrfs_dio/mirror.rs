// SPDX-License-Identifier: GPL-2.0

//! Which copy to read.

use crate::{
    safe::block::account::Why,
    stripe::STRIPE_LEN, //
};

/// A copy as the choice sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Candidate {
    /// On a device that is there.
    Good {
        /// How much is in flight to it, in bytes, or [`UNKNOWN`].
        in_flight: u64,
    },
    /// On a device that is there, but better left alone.
    Avoided,
    /// On a device that is not there.
    Missing,
}

/// How much is in flight to a device of which that is not known.
pub(crate) const UNKNOWN: u64 = u64::MAX;
/// Least length of a read of which several copies are read, in bytes.
const LONG: usize = 256 << 10;
/// How much of the address space has one device's turn among equals, in bytes: what is read in a
/// row stays together.
const NEAR: u64 = 1 << 20;

/// Chooses as the filesystem does: one copy for each process, if it is fit; else the first that is.
///
/// `copy` tells of each of the `copies` copies. Returns a number below `copies`, the preferred one
/// if none is fit, and 0 if there are no copies.
///
/// Rule: `find_live_mirror()` with `BTRFS_READ_POLICY_PID`, fs/btrfs/volumes.c.
pub(crate) fn by_pid(pid: i32, copies: u32, copy: impl Fn(u32) -> Candidate) -> u32 {
    let Some(preferred) = pid.unsigned_abs().checked_rem(copies) else {
        return 0;
    };
    let good = |copy| matches!(copy, Candidate::Good { .. });
    for acceptable in [good as fn(Candidate) -> bool, |copy| {
        copy != Candidate::Missing
    }] {
        if acceptable(copy(preferred)) {
            return preferred;
        }
        if let Some(first) = (0..copies).find(|n| acceptable(copy(*n))) {
            return first;
        }
    }
    preferred
}

/// Chooses the copy on the device that has least to do, and says why. Among equals, and among those
/// that are not good, `address` decides; so it does if of one of the good ones it is not known: it
/// must not get all that is read, nor nothing.
///
/// `copy` and what is returned are as with [`by_pid`].
pub(crate) fn spread(address: u64, copies: u32, copy: impl Fn(u32) -> Candidate) -> (u32, Why) {
    let Some(turn) = (address / NEAR).checked_rem(u64::from(copies)) else {
        return (0, Why::Only);
    };
    // CAST: Less than `copies`.
    let turn = turn as u32;
    // Less is better; what is not good comes last.
    let rank = |n: u32| match copy(n) {
        Candidate::Good { in_flight } => (0u8, in_flight),
        Candidate::Avoided => (1, 0),
        Candidate::Missing => (2, 0),
    };
    let (mut best, mut best_rank, mut equals) = (turn, rank(turn), 1u32);
    let mut unknown = best_rank == (0, UNKNOWN);
    // From the one whose turn it is on.
    let nth = |n: u32| turn.wrapping_add(n).checked_rem(copies).unwrap_or(0);
    for n in (1..copies).map(nth) {
        let other = rank(n);
        unknown |= other == (0, UNKNOWN);
        if other < best_rank {
            (best, best_rank, equals) = (n, other, 1);
        } else if other == best_rank {
            equals = equals.saturating_add(1);
        }
    }
    if unknown && equals < copies {
        let good = |n: &u32| matches!(copy(*n), Candidate::Good { .. });
        return ((0..copies).map(nth).find(good).unwrap_or(best), Why::Near);
    }
    let why = if equals > 1 { Why::Near } else { Why::Least };
    (best, why)
}

/// Returns how much of a read of `len` bytes to read of each of `devices` devices, if it is worth
/// while to read it of more than one: an equal part, in whole stripes.
pub(crate) fn share(len: usize, devices: u32) -> Option<usize> {
    if len < LONG || devices < 2 {
        return None;
    }
    // CAST: Widening; small.
    len.checked_div(devices as usize)?
        .checked_next_multiple_of(STRIPE_LEN as usize)
}
