// SPDX-License-Identifier: GPL-2.0

//! Sets of bios in flight, and what happens when the last of them has ended: [`wait_for`] wakes a
//! task, [`launch`](super::flight::launch) sends a worker.
//!
//! ## States
//!
//! `pending` counts the bios in flight, and one more for as long as the submitter may add some:
//!
//! | `pending` | who may touch the set                        | next                          |
//! |-----------|----------------------------------------------|-------------------------------|
//! | n + 1     | the submitter, and n completions             | one of them counts down       |
//! | n > 0     | n completions                                | a completion counts down      |
//! | 0         | whoever counted down to 0                    | the hold ends, the set lands  |
//!
//! A completion gives back the bio before it counts down: once the set has landed the read may be
//! completed, and file, filesystem and module may go away.
//!
//! C header: [`include/linux/bio.h`](srctree/include/linux/bio.h)

use super::bio::{
    ended,
    ReadBio, //
};
use crate::{
    bindings as our_bindings,
    safe::{
        bell::Bell,
        btrfs::device::DeviceHold, //
    },
};
use core::{
    marker::PhantomData,
    ptr::NonNull, //
};
use kernel::{
    bindings, container_of,
    error::to_result,
    prelude::*,
    sync::atomic::{
        ordering::{
            Full,
            Relaxed, //
        },
        Atomic, //
    },
};

/// Bios in flight.
///
/// # Invariants
///
/// * `pending` is the number of bios in flight that have this set as `bi_private`, plus one until
///   [`Self::seal`].
/// * `fs_info` is a filesystem on whose devices a hold is ours, until `pending` is 0.
/// * `landed` may be called with this set, once, when `pending` is 0.
pub(super) struct Core {
    pending: Atomic<i32>,
    /// The first error as an errno, 0 if there was none.
    error: Atomic<i32>,
    fs_info: *mut our_bindings::btrfs_fs_info,
    landed: unsafe fn(NonNull<Core>),
}

impl Core {
    /// Makes a set without bios, which takes over a hold.
    ///
    /// # Safety
    ///
    /// It must be sealed, once. `landed` must be fit to be called with it, in any context, once.
    pub(super) unsafe fn new(hold: DeviceHold<'_>, landed: unsafe fn(NonNull<Core>)) -> Self {
        // INVARIANT: No bio yet, not sealed, and the hold is ours now.
        Self {
            pending: Atomic::new(1),
            error: Atomic::new(0),
            fs_info: hold.into_raw(),
            landed,
        }
    }

    /// Counts the submitter out. Any context. Afterwards the set may be gone.
    ///
    /// # Safety
    ///
    /// `this` must be a live set that has not been sealed.
    pub(super) unsafe fn seal(this: NonNull<Self>) {
        // SAFETY: By the contract.
        unsafe { Self::count_down(this) }
    }

    /// Returns whether all bios have succeeded. To be asked when it has landed.
    pub(super) fn status(&self) -> Result {
        to_result(self.error.load(Relaxed))
    }

    /// Returns the filesystem, on whose devices a hold is ours until the set has landed.
    pub(super) fn fs_info(&self) -> *mut our_bindings::btrfs_fs_info {
        self.fs_info
    }

    /// Notes an error, if it is the first.
    fn fail(&self, error: i32) {
        let _ = self.error.cmpxchg(0, error, Relaxed);
    }

    /// Counts down, and returns whether that was the last: then the hold has ended, and the set is
    /// the caller's.
    ///
    /// # Safety
    ///
    /// `this` must be live, and one count of `pending` the caller's.
    unsafe fn is_last(this: NonNull<Self>) -> bool {
        // SAFETY: Live by the contract.
        let core = unsafe { this.as_ref() };
        // INVARIANT: One less. Everything before it happens before the set lands.
        // ORDERING: Full, so that all that other completions did is seen through the last of them.
        if core.pending.fetch_sub(1, Full) != 1 {
            return false;
        }
        // SAFETY: By the type invariants a hold is ours, and ends here, while the read has not been
        // completed, which keeps the filesystem.
        unsafe { our_bindings::btrfs_bio_counter_sub(core.fs_info, 1) };
        true
    }

    /// Counts down, and lands if that was the last.
    ///
    /// # Safety
    ///
    /// As for [`Self::is_last`].
    unsafe fn count_down(this: NonNull<Self>) {
        // SAFETY: By the contract; once it is the last nobody else may touch the set any more, and
        // `landed` is called once.
        unsafe {
            if Self::is_last(this) {
                (this.as_ref().landed)(this);
            }
        }
    }
}

/// Who may add bios to a set. `'p` is how long the memory is valid that they read into, which is
/// until the set has landed.
#[derive(Clone, Copy)]
pub(crate) struct Submitter<'s, 'p> {
    core: &'s Core,
    _memory: PhantomData<fn(&'p ()) -> &'p ()>,
}

impl<'s, 'p> Submitter<'s, 'p> {
    /// Makes a submitter for a set.
    ///
    /// # Safety
    ///
    /// The set must not be sealed during `'s`, and `'p` must last until it has landed.
    pub(super) unsafe fn new(core: &'s Core) -> Self {
        Self {
            core,
            _memory: PhantomData,
        }
    }

    /// Submits a bio. Task context, may sleep.
    pub(crate) fn submit(self, bio: ReadBio<'p>) {
        let bio = self.enlist(bio);
        // SAFETY: The bio is ours to submit, and of this set.
        unsafe { bindings::submit_bio(bio.as_ptr()) }
    }

    /// Returns the set, to be looked at.
    pub(super) fn core(self) -> &'s Core {
        self.core
    }

    /// Makes a bio one of the set. It is to be submitted.
    pub(super) fn enlist(self, bio: ReadBio<'p>) -> NonNull<bindings::bio> {
        let bio = bio.into_raw();
        // INVARIANT: Counted before it can complete.
        self.core.pending.add(1, Relaxed);
        // SAFETY: The bio is ours. Its memory is valid for `'p`, and the set stays where it is until
        // it has landed.
        unsafe {
            (*bio.as_ptr()).bi_private = core::ptr::from_ref(self.core).cast_mut().cast();
            (*bio.as_ptr()).bi_end_io = Some(end_io);
        }
        bio
    }

    /// Makes the set fail, as a bio of it would that cannot be made.
    pub(crate) fn fail(self, error: Error) {
        self.core.fail(error.to_errno());
    }
}

/// Ends a bio of a set. Any context, hard interrupts included: does not sleep.
///
/// # Safety
///
/// Only to be called by the block layer, or by who rebuilds stripes, once, with a bio of
/// [`Submitter::enlist`] that has been submitted.
unsafe extern "C" fn end_io(bio: *mut bindings::bio) {
    // SAFETY: `bi_private` was set by `enlist()`, and the set lives at least until `pending` has
    // been counted down for this bio, below. The bio is valid until it is put, which frees it.
    unsafe {
        let core = NonNull::new_unchecked((*bio).bi_private.cast::<Core>());
        let status = match (*bio).bi_status {
            0 => Ok(()),
            status => to_result(bindings::blk_status_to_errno(status)),
        };
        if let Err(error) = status {
            core.as_ref().fail(error.to_errno());
        }
        ended(bio, status);
        Core::count_down(core);
    }
}

/// A set that a task waits for.
#[pin_data]
struct Waiting {
    core: Core,
    #[pin]
    done: Bell,
}

/// Calls `f` with a new set, to submit bios to; then waits for all of them.
///
/// Returns what `f` did, and whether all bios succeeded: `EIO` or the like if not. Task context,
/// sleeps. `f` runs to its end even if a bio fails meanwhile.
pub(crate) fn wait_for<'p, R>(
    hold: DeviceHold<'_>,
    f: impl FnOnce(Submitter<'_, 'p>) -> R,
) -> (R, Result) {
    pin_init::stack_pin_init!(let waiting = pin_init!(Waiting {
        // SAFETY: Sealed below, and `wake()` is meant for the sets of this type.
        core: unsafe { Core::new(hold, wake) },
        done <- Bell::new(),
    }));
    // SAFETY: Not sealed while `f` runs; it has landed before this function returns, and `'p` is a
    // lifetime of the caller's.
    let ret = f(unsafe { Submitter::new(&waiting.core) });
    // SAFETY: Live, not sealed before.
    let landed = unsafe { Core::is_last(NonNull::from(&waiting.core)) };
    if !landed {
        // Rung by the last that counts down.
        waiting.done.wait(None);
    }
    (ret, waiting.core.status())
}

/// Wakes the task that waits for a set.
///
/// # Safety
///
/// Only for the set of a [`Waiting`].
unsafe fn wake(core: NonNull<Core>) {
    // SAFETY: The set lies in a `Waiting`, whose task does not go on before the bell has been rung,
    // and which may go away then.
    unsafe {
        let waiting = container_of!(core.as_ptr(), Waiting, core);
        (*waiting).done.ring();
    }
}
