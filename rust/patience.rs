// SPDX-License-Identifier: GPL-2.0

//! Whether a read may wait.

use kernel::alloc::{
    flags::*,
    Flags, //
};

/// Whether a read may wait for locks, metadata and memory. What would have to wait, and may not,
/// fails with `EAGAIN`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Patience {
    /// It may.
    Wait,
    /// It may not: `IOCB_NOWAIT`.
    Nowait,
}

impl Patience {
    /// Returns how to allocate memory.
    pub(crate) fn gfp(self) -> Flags {
        match self {
            Self::Wait => GFP_KERNEL,
            Self::Nowait => GFP_NOWAIT,
        }
    }
}
