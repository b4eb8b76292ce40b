// SPDX-License-Identifier: GPL-2.0

//! A bell that one task waits for, and that is rung as often as others have something for it.
//!
//! C header: [`include/linux/completion.h`](srctree/include/linux/completion.h)

use kernel::{
    bindings,
    prelude::*,
    types::Opaque, //
};

/// A bell.
///
/// # Invariants
///
/// `rung` is initialised.
#[pin_data]
pub(crate) struct Bell {
    #[pin]
    rung: Opaque<bindings::completion>,
}

// SAFETY: A completion may be used by any task.
unsafe impl Send for Bell {}
// SAFETY: As above.
unsafe impl Sync for Bell {}

/// How often a second a task that waits for a device wakes up and sleeps again.
///
/// The watchdog of hung tasks takes a task for one that has not slept anew for as long as it is told,
/// which is 1 second at least. `blk_io_schedule()` asks how long that is; modules cannot.
const SLICES_PER_SECOND: u32 = 2;

impl Bell {
    /// Makes a bell that has not been rung.
    pub(crate) fn new() -> impl PinInit<Self> {
        pin_init!(Self {
            // INVARIANT: Initialised here.
            rung <- Opaque::ffi_init(|rung: *mut bindings::completion| {
                // SAFETY: Memory for a completion.
                unsafe { bindings::init_completion(rung) }
            }),
        })
    }

    /// Rings it once. Any context. Afterwards the bell may be gone, if who waits for it lets it go.
    pub(crate) fn ring(&self) {
        // SAFETY: By the type invariants.
        unsafe { bindings::complete(self.rung.get()) }
    }

    /// Waits until it has been rung once more than it has been waited for, as for a device. Sleeps.
    ///
    /// The watchdog of hung tasks does not mind, however long that takes.
    pub(crate) fn wait(&self) {
        // CAST: Widening.
        let slice = (bindings::HZ / SLICES_PER_SECOND).max(1) as usize;
        // SAFETY: By the type invariants.
        while unsafe { bindings::wait_for_completion_io_timeout(self.rung.get(), slice) } == 0 {}
    }

    /// Waits until the bell has been rung, or the task is killed: then it fails with `EINTR`. Sleeps.
    ///
    /// No other signal ends the wait, and the watchdog of hung tasks does not mind it.
    pub(crate) fn wait_killable(&self) -> Result {
        // SAFETY: By the type invariants.
        let ret = unsafe { bindings::wait_for_completion_killable(self.rung.get()) };
        kernel::error::to_result(ret).map_err(|_| EINTR)
    }
}
