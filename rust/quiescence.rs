// SPDX-License-Identifier: GPL-2.0

//! The end of functions of ours that others have called.

use crate::bindings;

/// When it is dropped, functions that have done their work, but not returned yet, are waited for:
/// those that completed what is then known to be completed.
///
/// One in an interrupt is waited for by RCU, one in a task by the RCU of tasks. Sleeps.
pub(crate) struct Quiescence;

impl Drop for Quiescence {
    fn drop(&mut self) {
        // SAFETY: It only waits, in the context of whoever unloads the module.
        unsafe { bindings::bdio_synchronize_tails() }
    }
}
