// SPDX-License-Identifier: GPL-2.0

//! Sets of bios that nobody waits for: when the last has ended, a worker takes over.
//!
//! ## States
//!
//! | state     | who owns the cargo                       | ends by                             |
//! |-----------|------------------------------------------|-------------------------------------|
//! | boarding  | the submitter, in a [`Ticket`]           | [`launch`]                          |
//! | in flight | nobody; bios write to memory it holds    | the last bio, which queues the work |
//! | landed    | who ended the last bio                   | [`Cargo::touch_down`], or a worker  |
//! | taxiing   | the worker                               | [`Cargo::land`], or another worker  |
//! | diverted  | the other worker                         | [`Cargo::go_on`]                    |

use super::batch::{
    Core,
    Submitter, //
};
use crate::{
    bindings as our_bindings,
    safe::{
        btrfs::device::DeviceHold,
        drain::Passage,
        memalloc::Inherited,
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
    type Base: Queues + Send + Sync + 'static;

    /// Called when all bios have ended, with whether they succeeded, where the last of them ended:
    /// in any context, hard interrupts included. Returns whether that was all; if not, a worker
    /// calls [`Self::land`]. What is left in the cargo then must be fit to be dropped in any
    /// context.
    fn touch_down(&mut self, base: &Self::Base, status: Result) -> bool;

    /// Called when all bios have ended, with whether they succeeded. Task context, sleeps, but waits
    /// for nobody who waits for a flight to land. Returns whether that was all: then the cargo is
    /// dropped. If not, another worker calls [`Self::go_on`].
    fn land(&mut self, base: &Self::Base, status: Result) -> bool;

    /// Called if [`Self::land`] says so. Task context, sleeps, and may wait for other flights to
    /// land. Then the cargo is dropped.
    fn go_on(&mut self, base: &Self::Base);
}

/// Where workers are.
pub(crate) trait Queues {
    /// Returns where those are that land.
    fn landing(&self) -> &Queue;
    /// Returns where those are that go on. None that lands waits for one of them.
    fn going_on(&self) -> &Queue;
}

/// A flight that has not been launched.
pub(crate) struct Ticket<T: Cargo>(KBox<Flight<T>>);

impl<T: Cargo> Ticket<T> {
    /// Allocates, and makes the cargo where it stays. `ENOMEM`.
    #[inline(always)]
    pub(crate) fn new(cargo: impl Init<T>, gfp: Flags) -> Result<Self> {
        let mut memory = KBox::<Flight<T>>::new_uninit(gfp)?;
        let flight = memory.as_mut_ptr();
        // SAFETY: All fields of memory that is ours alone are written, but for those that need not
        // be initialised; the initialiser does not fail.
        unsafe {
            (&raw mut (*flight).passage).write(None);
            (&raw mut (*flight).scopes).write(Inherited::of_this_task());
            match cargo.__init(&raw mut (*flight).cargo) {
                Ok(()) => Ok(Self(memory.assume_init())),
                Err(never) => match never {},
            }
        }
    }

    /// Returns the cargo.
    pub(crate) fn cargo(&mut self) -> &mut T {
        &mut self.0.cargo
    }
}

/// A flight.
///
/// # Invariants
///
/// From [`launch`] on `core`, `work` and `passage` are initialised, and it owns itself, until
/// `landed` or `run` takes it back.
struct Flight<T: Cargo> {
    core: MaybeUninit<Core>,
    work: Opaque<bindings::work_struct>,
    passage: Option<Passage<T::Base>>,
    /// Of the task that launched it.
    scopes: Inherited,
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
    f: impl for<'p> FnOnce(&'p T, &'p T::Base, Submitter<'_, 'p>),
) {
    let mut flight = ticket.0;
    let passage: &Passage<T::Base> = flight.passage.insert(passage);
    let base: *const T::Base = &**passage;
    // SAFETY: Sealed below, and `landed()` is meant for the sets of this type.
    flight.core.write(unsafe { Core::new(hold, landed::<T>) });
    let flight = KBox::into_raw(flight);
    // SAFETY: The flight is live until it has landed, which is after it has been sealed, and so is
    // what the passage leads to; `f` is done with both by then, since what it gets are references
    // it cannot keep. The bios it submits borrow the cargo, which does not move or change before
    // they have ended.
    unsafe {
        init_work(flight, run::<T>);
        let core = (*flight).core.as_ptr().cast_mut();
        f(&(*flight).cargo, &*base, Submitter::new(&*core));
        Core::seal(NonNull::new_unchecked(core));
    }
}

/// Prepares the work of a flight.
///
/// # Safety
///
/// `flight` must be live, and not be shared, and `run` be meant for flights of that type.
unsafe fn init_work<T: Cargo>(
    flight: *mut Flight<T>,
    run: unsafe extern "C" fn(*mut bindings::work_struct),
) {
    // SAFETY: By the contract.
    unsafe { our_bindings::bdio_init_work(Opaque::cast_into(&raw const (*flight).work), Some(run)) }
}

/// Ends a flight, or queues the work that does. Any context.
///
/// # Safety
///
/// Only for the set of a `Flight<T>` that has landed.
unsafe fn landed<T: Cargo>(core: NonNull<Core>) {
    // SAFETY: The set lies in a flight, which nobody else touches any more until the work runs, if
    // it is queued. It was made by `KBox::into_raw()`.
    let flight = unsafe {
        let flight = container_of!(core.cast::<MaybeUninit<Core>>().as_ptr(), Flight<T>, core);
        &mut *flight
    };
    // SAFETY: By the type invariants it is initialised.
    let status = unsafe { core.as_ref() }.status();
    let Some(passage) = flight.passage.take() else {
        return;
    };
    if flight.cargo.touch_down(&passage, status) {
        // SAFETY: As above; nobody has the flight but us.
        drop(unsafe { KBox::from_raw(flight) });
        // Last: from here on the module may go away, but for this function, which its unloading
        // waits for.
        drop(passage);
        return;
    }
    let queue: *const Queue = passage.landing();
    let work = Opaque::cast_into(&raw const flight.work);
    flight.passage = Some(passage);
    // SAFETY: The work is initialised, and stays where it is until it runs. The queue is there as
    // long as the passage, and its destruction waits for this work.
    unsafe { (*queue).queue(work) };
}

/// The work of a flight. Task context.
///
/// # Safety
///
/// Only for the workqueue to call, with the work of a `Flight<T>` that has landed.
unsafe extern "C" fn run<T: Cargo>(work: *mut bindings::work_struct) {
    // SAFETY: The work lies in a flight that was made by `KBox::into_raw()`, and is ours now.
    let mut flight = unsafe {
        let flight = container_of!(Opaque::cast_from(work), Flight<T>, work);
        KBox::from_raw(flight.cast_mut())
    };
    // SAFETY: By the type invariants it is initialised.
    let status = unsafe { flight.core.assume_init_ref() }.status();
    let Some(passage) = flight.passage.take() else {
        return;
    };
    let scope = flight.scopes.enter();
    let landed = flight.cargo.land(&passage, status);
    drop(scope);
    if landed {
        drop(flight);
        // Last: from here on the module may go away, but for this function, which its queue waits
        // for.
        drop(passage);
        return;
    }
    let queue: *const Queue = passage.going_on();
    flight.passage = Some(passage);
    let flight = KBox::into_raw(flight);
    // SAFETY: The flight is ours, and the work has begun, so it is not queued. The queue is there as
    // long as the passage, and its destruction waits for this work.
    unsafe {
        init_work(flight, go_on::<T>);
        (*queue).queue(Opaque::cast_into(&raw const (*flight).work));
    }
}

/// The work of a flight that goes on. Task context.
///
/// # Safety
///
/// As for [`run`].
unsafe extern "C" fn go_on<T: Cargo>(work: *mut bindings::work_struct) {
    // SAFETY: As in `run()`.
    let mut flight = unsafe {
        let flight = container_of!(Opaque::cast_from(work), Flight<T>, work);
        KBox::from_raw(flight.cast_mut())
    };
    let Some(passage) = flight.passage.take() else {
        return;
    };
    let scope = flight.scopes.enter();
    flight.cargo.go_on(&passage);
    drop(scope);
    drop(flight);
    // Last, as in `run()`.
    drop(passage);
}
