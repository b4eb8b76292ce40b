// SPDX-License-Identifier: GPL-2.0

//! Which copy to read.

/// A copy as the choice sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Copy {
    /// On a device that is there.
    Good,
    /// On a device that is there, but better left alone.
    Avoided,
    /// On a device that is not there.
    Missing,
}

/// Chooses as the filesystem does: one copy for each process, if it is fit; else the first that is.
///
/// `copy` tells of each of the `copies` copies. Returns a number below `copies`, the preferred one
/// if none is fit, and 0 if there are no copies.
///
/// Rule: `find_live_mirror()` with `BTRFS_READ_POLICY_PID`, fs/btrfs/volumes.c.
pub(crate) fn by_pid(pid: i32, copies: u32, copy: impl Fn(u32) -> Copy) -> u32 {
    let Some(preferred) = pid.unsigned_abs().checked_rem(copies) else {
        return 0;
    };
    for acceptable in [(|copy| copy == Copy::Good) as fn(Copy) -> bool, |copy| {
        copy != Copy::Missing
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
