// SPDX-License-Identifier: GPL-2.0

//! Parameters of the module that can be set at run time.

use crate::bindings;

/// Which copy of data is read: `read_policy`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ReadPolicy {
    /// The one on the device that has least to do.
    Spread,
    /// The one that the filesystem would read.
    Fs,
}

/// Returns the policy as of now. Any context.
pub(crate) fn read_policy() -> ReadPolicy {
    // SAFETY: A variable that is there as long as the module, and may change, hence volatile.
    let policy = unsafe { (&raw const bindings::bdio_read_policy).read_volatile() };
    if policy == bindings::BDIO_POLICY_FS {
        ReadPolicy::Fs
    } else {
        ReadPolicy::Spread
    }
}

/// Returns the limit of the bounce memory of a filesystem in KiB, 0 if none is set. Any context.
pub(crate) fn bounce_kib() -> u32 {
    // SAFETY: As above.
    unsafe { (&raw const bindings::bdio_bounce_kib).read_volatile() }
}
