// SPDX-License-Identifier: GPL-2.0

//! Pools of bios.
//!
//! C header: [`include/linux/bio.h`](srctree/include/linux/bio.h)

use super::bio::ReadBio;
use kernel::{
    bindings,
    error::to_result,
    prelude::*,
    types::Opaque, //
};

/// Number of bios that are always there, whatever memory is left.
const RESERVE: u32 = 64;

/// A pool of bios, with a reserve that makes allocation succeed in the end.
///
/// # Invariants
///
/// `set` is an initialised `struct bio_set`.
#[pin_data(PinnedDrop)]
pub(crate) struct BioPool {
    #[pin]
    set: Opaque<bindings::bio_set>,
}

// SAFETY: A `struct bio_set` may be used from any thread, and does its own locking.
unsafe impl Send for BioPool {}
// SAFETY: As above.
unsafe impl Sync for BioPool {}

impl BioPool {
    /// Makes a pool. May sleep.
    pub(crate) fn new() -> impl PinInit<Self, Error> {
        Self::with_room(0, bindings::BIOSET_NEED_BVECS)
    }

    /// Makes a pool of bios each of which has `room` bytes of memory in front of it, and of what a bio
    /// of ours has there: a multiple of what anything is aligned to. `flags` are some of `BIOSET_*`. May
    /// sleep.
    pub(super) fn with_room(room: usize, flags: u32) -> impl PinInit<Self, Error> {
        let flags = flags | bindings::BIOSET_PERCPU_CACHE;
        // CAST: A small number.
        let front_pad = room.saturating_add(ReadBio::FRONT_PAD) as u32;
        try_pin_init!(Self {
            // INVARIANT: Initialised here, and `try_ffi_init` fails if that does.
            set <- Opaque::try_ffi_init(|set: *mut bindings::bio_set| {
                // SAFETY: `set` is memory for a bio set. It has to be zeroed first.
                unsafe {
                    core::ptr::write_bytes(set, 0, 1);
                    to_result(bindings::bioset_init(set, RESERVE, front_pad, flags as i32))
                }
            }),
        })
    }

    /// Returns the set for [`super::bio`] to allocate from.
    pub(super) fn as_raw(&self) -> *mut bindings::bio_set {
        self.set.get()
    }
}

#[pinned_drop]
impl PinnedDrop for BioPool {
    fn drop(self: Pin<&mut Self>) {
        // SAFETY: By the type invariants the set is initialised. Bios of it borrow from the pool
        // until they are submitted, and a batch waits for them after that, so none is left.
        unsafe { bindings::bioset_exit(self.set.get()) }
    }
}
