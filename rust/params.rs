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
    // SAFETY: A question without conditions.
    unsafe { bindings::bdio_slow_copy_ms() }
}

/// Returns the policy as of now. Any context.
pub(crate) fn read_policy() -> ReadPolicy {
    // SAFETY: A question without conditions.
    let policy = unsafe { bindings::bdio_read_policy() };
    // CAST: A small number.
    if policy as u32 == bindings::BDIO_POLICY_FS {
        ReadPolicy::Fs
    } else {
        ReadPolicy::Spread
    }
}
