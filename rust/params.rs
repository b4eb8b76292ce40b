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

/// Returns after how many milliseconds another copy is to be asked, too; 0 for never. Any context.
pub(crate) fn slow_copy_ms() -> u32 {
    // SAFETY: A variable that is there as long as the module, and may change, hence volatile.
    unsafe { (&raw const bindings::bdio_slow_copy_ms).read_volatile() }
}

/// Returns whether devices may be polled for reads of rings that poll. Any context.
pub(crate) fn iopoll() -> bool {
    // SAFETY: As above.
    unsafe { (&raw const bindings::bdio_iopoll).read_volatile() }
}

/// Returns the policy as of now. Any context.
pub(crate) fn read_policy() -> ReadPolicy {
    // SAFETY: As above.
    let policy = unsafe { (&raw const bindings::bdio_read_policy).read_volatile() };
    if policy == bindings::BDIO_POLICY_FS {
        ReadPolicy::Fs
    } else {
        ReadPolicy::Spread
    }
}
