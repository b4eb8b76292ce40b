// SPDX-License-Identifier: GPL-2.0

//! Sets of bios in flight, and what happens when the last of them has ended: [`wait_for`] wakes a
//! task, [`launch`](super::flight::launch) sends a worker.
//!
//! ## States
//!
//! A [`Countdown`] counts the bios in flight, and one more for as long as the submitter may add some:
//!
//! | it is at  | who may touch the set                        | next                          |
//! |-----------|----------------------------------------------|-------------------------------|
//! | n + 1     | the submitter, and n completions             | one of them counts down       |
//! | n > 0     | n completions                                | a completion counts down      |
//! | 0         | whoever counted down to 0                    | the hold ends, the set lands  |
//!
//! A completion gives back the bio before it counts down: once the set has landed the read may be
//! completed, and file, filesystem and module may go away.
//!
//! C header: [`include/linux/bio.h`](srctree/include/linux/bio.h)

use super::{
    account::Charge,
    bio::{
        ended,
        LentBio,
        ReadBio, //
    },
    countdown::Countdown,
    pool::BioPool, //
};
use crate::{
    bindings as our_bindings,
    safe::{
        bell::Bell,
        btrfs::device::{
            DeviceHold,
            OpenDevice, //
        },
        vecs::Span, //
    },
};
use core::{
    cell::Cell,
    marker::PhantomData,
    ptr::NonNull, //
};
use kernel::{
    bindings,
    container_of,
    error::to_result,
    prelude::*, //
};

/// Bios in flight.
///
/// # Invariants
///
/// * `countdown` has a count for each bio in flight that has this set as `bi_private`, and one until
///   [`Self::seal`].
/// * `fs_info` is a filesystem on whose devices a hold is ours, until it has come to 0.
/// * `landed` may be called with this set, once, when it has come to 0.
pub(super) struct Core {
    countdown: Countdown,
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
            countdown: Countdown::new(),
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
        // SAFETY: By the contract; nobody else may touch the set any more if it was the last.
        unsafe {
            if Self::is_last(this) {
                Self::land(this);
            }
        }
    }

    /// Returns whether all bios have succeeded. To be asked when it has landed.
    pub(super) fn status(&self) -> Result {
        to_result(self.countdown.error())
    }

    /// Returns the filesystem, on whose devices a hold is ours until the set has landed.
    pub(super) fn fs_info(&self) -> *mut our_bindings::btrfs_fs_info {
        self.fs_info
    }

    /// Counts the submitter out, and returns whether that was the last: then the hold has ended, and
    /// the set is the caller's.
    ///
    /// # Safety
    ///
    /// As for [`Self::seal`].
    unsafe fn is_last(this: NonNull<Self>) -> bool {
        // SAFETY: Live by the contract.
        let last = unsafe { this.as_ref() }.countdown.is_last();
        if last {
            // SAFETY: The last.
            unsafe { Self::end_hold(this) };
        }
        last
    }

    /// Ends the hold.
    ///
    /// # Safety
    ///
    /// The caller must have counted `this` down to 0 just now.
    unsafe fn end_hold(this: NonNull<Self>) {
        // SAFETY: By the contract the set is the caller's. By the type invariants a hold is ours, and
        // ends here, while the read has not been completed, which keeps the filesystem.
        unsafe { our_bindings::btrfs_bio_counter_sub(this.as_ref().fs_info, 1) };
    }

    /// Lands.
    ///
    /// # Safety
    ///
    /// The caller must have counted `this` down to 0, and have ended the hold.
    unsafe fn land(this: NonNull<Self>) {
        // SAFETY: By the contract the set is the caller's, who was the one to count it down to 0.
        unsafe { (this.as_ref().landed)(this) }
    }
}

/// Who may add bios to a set. `'p` is how long the memory is valid that they read into, which is
/// until the set has landed.
#[derive(Clone, Copy)]
pub(crate) struct Submitter<'s, 'p> {
    core: &'s Core,
    /// A bio that can be used, once.
    spare: Option<&'s Cell<Option<LentBio>>>,
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
            spare: None,
            _memory: PhantomData,
        }
    }

    /// Returns the same, with a bio that can be used.
    ///
    /// # Safety
    ///
    /// It must stay until the set has landed.
    pub(super) unsafe fn with_spare(self, spare: &'s Cell<Option<LentBio>>) -> Self {
        Self {
            spare: Some(spare),
            ..self
        }
    }

    /// Makes a read as [`ReadBio::over`] does, by allocating a bio or by one that there is.
    pub(crate) fn read(
        self,
        pool: &'p BioPool,
        device: &OpenDevice,
        physical: u64,
        span: Span<'p>,
        ioprio: u16,
        charge: Charge,
    ) -> Result<ReadBio<'p>> {
        match self.spare.and_then(Cell::take) {
            Some(bio) => Ok(ReadBio::over_lent(
                bio, device, physical, span, ioprio, charge,
            )),
            None => ReadBio::over(pool, device, physical, span, ioprio, charge),
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
        self.core.countdown.add();
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
        self.core.countdown.fail(error.to_errno());
    }
}

/// Ends a bio of a set. Any context, hard interrupts included: does not sleep.
///
/// # Safety
///
/// Only to be called by the block layer, or by who rebuilds stripes, once, with a bio of
/// [`Submitter::enlist`] that has been submitted.
unsafe extern "C" fn end_io(bio: *mut bindings::bio) {
    // SAFETY: `bi_private` was set by `enlist()`, and the set lives at least until it has been
    // counted down for this bio, below. The bio is valid until it is put, which frees it. Who counts
    // down to 0 has the set.
    unsafe {
        let core = NonNull::new_unchecked((*bio).bi_private.cast::<Core>());
        let status = match (*bio).bi_status {
            0 => Ok(()),
            status => to_result(bindings::blk_status_to_errno(status)),
        };
        let error = status.err().map_or(0, Error::to_errno);
        let countdown = &core.as_ref().countdown;
        if countdown.end(error, || ended(bio, status)) {
            Core::end_hold(core);
            Core::land(core);
        }
    }
}

/// A set that a task waits for.
#[pin_data]
struct Waiting {
    core: Core,
    #[pin]
    done: Bell,
}

/// Calls `f` with a new set, to submit bios to, and `meanwhile` while they are under way; then waits
/// for all of them.
///
/// Returns what both did, and whether all bios succeeded: `EIO` or the like if not. Task context,
/// sleeps. Both run to their end even if a bio fails meanwhile. `meanwhile` has no hold on the
/// devices, which ends with the last bio, whatever this task does: it may read metadata.
pub(crate) fn wait_for<'p, R, M>(
    hold: DeviceHold<'_>,
    f: impl FnOnce(Submitter<'_, 'p>) -> R,
    meanwhile: impl FnOnce() -> M,
) -> (R, M, Result) {
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
    let done = meanwhile();
    if !landed {
        // Rung by the last that counts down.
        waiting.done.wait();
    }
    (ret, done, waiting.core.status())
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
