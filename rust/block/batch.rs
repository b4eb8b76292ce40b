// SPDX-License-Identifier: GPL-2.0

//! A set of bios in flight that one task waits for.
//!
//! ## States
//!
//! `pending` counts the bios in flight, and one more for as long as the submitter may add some:
//!
//! | `pending` | who may touch the batch                    | next |
//! |-----------|--------------------------------------------|------|
//! | n + 1     | the submitter, and n completions           | a completion or the submitter counts down |
//! | n > 0     | n completions; the submitter sleeps        | a completion counts down |
//! | 0         | whoever counted down to 0, to wake the submitter, unless it is the submitter | the submitter goes on, alone |
//!
//! A completion gives back the bio and its hold on the devices before it counts down: once the
//! count is 0 the submitter may return, and file, filesystem and module may go away. The last it
//! touches is the `struct completion`, which allows that.
//!
//! C headers: [`include/linux/bio.h`](srctree/include/linux/bio.h),
//! [`include/linux/completion.h`](srctree/include/linux/completion.h)

use super::bio::ReadBio;
use crate::{
    bindings as our_bindings,
    safe::btrfs::fs::FsInfo, //
};
use core::marker::PhantomData;
use kernel::{
    bindings,
    prelude::*,
    sync::atomic::{
        ordering::{
            Full,
            Relaxed, //
        },
        Atomic, //
    },
    types::Opaque, //
};

/// How long to sleep before looking again, in seconds: below what the watchdog of hung tasks
/// minds, since a device that takes its time is no fault of the task.
const WAIT_SLICE_SECONDS: usize = 30;

/// Bios in flight, and the task that waits for them.
///
/// `'p` is how long the memory is valid that they read into: longer than the batch, which
/// [`with_batch`] ends only when no bio is left.
///
/// # Invariants
///
/// * `pending` is the number of bios in flight that have this batch as `bi_private`, plus one
///   until [`Self::wait`] has begun.
/// * `fs_info` is the filesystem that the holds of these bios are of.
#[pin_data]
pub(crate) struct Batch<'p> {
    pending: Atomic<i32>,
    /// The first error of a bio as `blk_status_t`, 0 if there was none.
    status: Atomic<i32>,
    fs_info: *mut our_bindings::btrfs_fs_info,
    #[pin]
    done: Opaque<bindings::completion>,
    _memory: PhantomData<fn(&'p ()) -> &'p ()>,
}

/// Calls `f` with a new batch, to submit bios to; then waits for all of them.
///
/// Returns what `f` did, and whether all bios succeeded: `EIO` or the like if not. Task context,
/// sleeps. `f` runs to its end even if a bio fails meanwhile.
pub(crate) fn with_batch<'p, R>(fs: FsInfo<'_>, f: impl FnOnce(&Batch<'p>) -> R) -> (R, Result) {
    let fs_info = fs.as_raw();
    pin_init::stack_pin_init!(let batch = pin_init!(Batch {
        // INVARIANT: No bio yet, and `wait` has not begun.
        pending: Atomic::new(1),
        status: Atomic::new(0),
        fs_info,
        done <- Opaque::ffi_init(|done: *mut bindings::completion| {
            // SAFETY: `done` is memory for a completion.
            unsafe { bindings::init_completion(done) }
        }),
        _memory: PhantomData,
    }));
    let ret = f(&batch);
    let status = batch.wait();
    (ret, status)
}

impl<'p> Batch<'p> {
    /// Submits a bio, to a device of the filesystem of the batch: another is refused with `EXDEV`.
    ///
    /// Task context, may sleep.
    pub(crate) fn submit(&self, bio: ReadBio<'_, 'p>) -> Result {
        if !core::ptr::eq(bio.hold().fs_info(), self.fs_info) {
            return Err(EXDEV);
        }
        let bio = bio.into_raw();
        // INVARIANT: Counted before it can complete.
        self.pending.add(1, Relaxed);
        // SAFETY: The bio is ours to submit. Its memory is valid for `'p`, and the batch stays
        // where it is until `wait()` has seen the bio end: `with_batch()` hands out nothing but a
        // reference that cannot outlive the call of `f`.
        unsafe {
            (*bio.as_ptr()).bi_private = core::ptr::from_ref(self).cast_mut().cast();
            (*bio.as_ptr()).bi_end_io = Some(end_io);
            bindings::submit_bio(bio.as_ptr());
        }
        Ok(())
    }

    /// Waits until no bio is left.
    fn wait(&self) -> Result {
        // INVARIANT: The one that stood for the submitter.
        if self.pending.fetch_sub(1, Full) != 1 {
            // SAFETY: The completion is initialised. It is completed once, by the last bio.
            while unsafe {
                bindings::wait_for_completion_io_timeout(
                    self.done.get(),
                    WAIT_SLICE_SECONDS.saturating_mul(bindings::HZ as usize),
                )
            } == 0
            {}
        }
        match self.status.load(Relaxed) {
            0 => Ok(()),
            // CAST: A `blk_status_t` was stored.
            // SAFETY: A function of a number.
            status => kernel::error::to_result(unsafe {
                bindings::blk_status_to_errno(status as bindings::blk_status_t)
            }),
        }
    }
}

/// Ends a bio of a batch. Any context, hard interrupts included: does not sleep.
///
/// # Safety
///
/// Only to be called by the block layer, once, with a bio that [`Batch::submit`] has submitted.
unsafe extern "C" fn end_io(bio: *mut bindings::bio) {
    // SAFETY: `bi_private` was set by `submit()`, and the batch lives at least until `pending` has
    // been counted down for this bio, below.
    let batch = unsafe { &*(*bio).bi_private.cast::<Batch<'static>>() };
    // SAFETY: The bio is valid until it is put.
    let status = unsafe { (*bio).bi_status };
    if status != 0 {
        let _ = batch.status.cmpxchg(0, i32::from(status), Relaxed);
    }
    let done = batch.done.get();
    // SAFETY: The hold of the bio, which `submit()` has left to us, is given back here, while the submitter still
    // waits and so keeps the filesystem. Putting the bio frees it.
    unsafe {
        our_bindings::btrfs_bio_counter_sub(batch.fs_info, 1);
        bindings::bio_put(bio);
    }
    // INVARIANT: One bio less. Everything above happens before the submitter goes on.
    // ORDERING: Full, so that all that other completions did is seen through the last of them.
    if batch.pending.fetch_sub(1, Full) == 1 {
        // SAFETY: `wait()` does not return before this completes; see the table above.
        unsafe { bindings::complete(done) }
    }
}
