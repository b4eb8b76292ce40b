// SPDX-License-Identifier: GPL-2.0

//! Sets of bios that nobody waits for: when the last has ended, a worker takes over.
//!
//! ## States
//!
//! | state     | who owns the cargo                       | ends by                             |
//! |-----------|------------------------------------------|-------------------------------------|
//! | boarding  | the submitter, in a [`Ticket`]           | [`launch`]                          |
//! | in flight | nobody; bios write to memory it holds    | the last bio, which queues the work |
//! | landed    | the worker                               | [`Cargo::land`], by value           |

use super::batch::{
    Core,
    Submitter, //
};
use crate::{
    bindings as our_bindings,
    safe::{
        btrfs::device::DeviceHold,
        drain::Passage,
        workqueue::Queue, //
    },
};
use core::{
    mem::MaybeUninit,
    ptr::NonNull, //
};
use kernel::{
    alloc::Flags,
    bindings,
    container_of,
    prelude::*,
    types::Opaque, //
};

/// What goes along with bios, and is there for them.
pub(crate) trait Cargo: Send + Sync + Sized + 'static {
    /// What the module keeps for all flights.
    type Base: AsRef<Queue> + Send + Sync + 'static;

    /// Called when all bios have ended, with whether they succeeded. Task context, sleeps.
    fn land(self, base: &Self::Base, status: Result);
}

/// Memory for a flight.
pub(crate) struct Ticket<T: Cargo>(KBox<MaybeUninit<Flight<T>>>);

impl<T: Cargo> Ticket<T> {
    /// Allocates. `ENOMEM`.
    pub(crate) fn new(gfp: Flags) -> Result<Self> {
        Ok(Self(KBox::new_uninit(gfp)?))
    }
}

/// A flight.
///
/// # Invariants
///
/// From [`launch`] on it owns itself, until `landed` has run and `run` takes it back.
struct Flight<T: Cargo> {
    core: Core,
    work: Opaque<bindings::work_struct>,
    passage: Passage<T::Base>,
    cargo: T,
}

/// Launches a flight: `f` is called to submit bios that read into memory of the cargo. When these
/// have ended, or at once if there are none, the cargo lands.
///
/// Task context, may sleep. On return the cargo may have landed already.
pub(crate) fn launch<T: Cargo>(
    ticket: Ticket<T>,
    passage: Passage<T::Base>,
    hold: DeviceHold<'_>,
    cargo: T,
    f: impl for<'p> FnOnce(&'p T, &'p T::Base, Submitter<'_, 'p>),
) {
    let flight = KBox::write(
        ticket.0,
        Flight {
            // SAFETY: Sealed below, and `landed()` is meant for the sets of this type.
            core: unsafe { Core::new(hold, landed::<T>) },
            work: Opaque::uninit(),
            passage,
            cargo,
        },
    );
    let flight = KBox::into_raw(flight);
    // SAFETY: The flight is live until it has landed, which is after it has been sealed; `f` is
    // done with it by then, since what it gets are references it cannot keep. The bios it submits
    // borrow the cargo, which does not move or change before they have ended.
    unsafe {
        init_work::<T>(flight);
        f(
            &(*flight).cargo,
            &*(*flight).passage,
            Submitter::new(&(*flight).core),
        );
        Core::seal(NonNull::new_unchecked(&raw mut (*flight).core));
    }
}

/// Prepares the work of a flight.
///
/// # Safety
///
/// `flight` must be live, and not be shared yet.
unsafe fn init_work<T: Cargo>(flight: *mut Flight<T>) {
    // SAFETY: By the contract.
    unsafe {
        our_bindings::bdio_init_work(Opaque::cast_into(&raw const (*flight).work), Some(run::<T>))
    }
}

/// Queues the work of a flight. Any context.
///
/// # Safety
///
/// Only for the set of a `Flight<T>` that has landed.
unsafe fn landed<T: Cargo>(core: NonNull<Core>) {
    // SAFETY: The set lies in a flight, which nobody else touches any more until the work runs; the
    // queue is there as long as the passage.
    unsafe {
        let flight = container_of!(core.as_ptr(), Flight<T>, core);
        let base: &T::Base = &*(*flight).passage;
        let queue: &Queue = base.as_ref();
        queue.queue(Opaque::cast_into(&raw const (*flight).work));
    }
}

/// The work of a flight. Task context.
///
/// # Safety
///
/// Only for the workqueue to call, with the work of a `Flight<T>` that has landed.
unsafe extern "C" fn run<T: Cargo>(work: *mut bindings::work_struct) {
    // SAFETY: The work lies in a flight that was made by `KBox::into_raw()`, and is ours now.
    let flight = unsafe {
        let flight = container_of!(Opaque::cast_from(work), Flight<T>, work);
        KBox::from_raw(flight.cast_mut())
    };
    let status = flight.core.status();
    let Flight { passage, cargo, .. } = KBox::into_inner(flight);
    cargo.land(&passage, status);
    // Last: from here on the module may go away, but for this function, which its queue waits for.
    drop(passage);
}
