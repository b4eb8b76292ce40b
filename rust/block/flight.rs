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
//! | diverted  | the other worker                         | [`Cargo::go_on`], or parked         |
//! | parked    | whoever has the [`Parked`]               | [`Parked::resume`]: another worker      |

use super::{
    batch::{
        Core,
        Submitter, //
    },
    bio::{
        LentBio,
        ReadBio, //
    },
    pool::BioPool, //
};
use crate::{
    bindings as our_bindings,
    safe::{
        btrfs::device::DeviceHold,
        drain::Passage,
        memalloc::Inherited,
        patience::Patience,
        workqueue::Queue, //
    },
};
use core::{
    cell::Cell,
    mem::{
        ManuallyDrop,
        MaybeUninit, //
    },
    ptr::{
        self,
        NonNull, //
    },
};
use kernel::{
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

    /// Returns whether [`Self::land`] may keep a CPU for long. Any context; called before it, once
    /// [`Self::touch_down`] says that a worker is needed.
    fn is_long(&self) -> bool;

    /// Called when all bios have ended, with whether they succeeded. Task context, sleeps, but waits
    /// for nobody who waits for a flight to land. Returns whether that was all: then the cargo is
    /// dropped. If not, another worker calls [`Self::go_on`].
    fn land(&mut self, base: &Self::Base, status: Result) -> bool;

    /// Called if [`Self::land`] says so, or [`Parked::resume`]. Task context, sleeps, and may wait for
    /// other flights to land. Returns whether that was all: then the cargo is dropped. If not,
    /// [`Self::park`] is called.
    fn go_on(&mut self, base: &Self::Base) -> bool;

    /// Called if [`Self::go_on`] says so: somebody keeps it, and lets it go on later. Task context.
    fn park(parked: Parked<Self>);
}

/// Where workers are.
pub(crate) trait Queues {
    /// Returns where those are that land soon: on the CPU that ended the last bio, one after the other.
    fn landing(&self) -> &Queue;
    /// Returns where those are that may keep a CPU for long: on any CPU, so that no other read waits
    /// for one of them.
    fn landing_long(&self) -> &Queue;
    /// Returns where those are that go on after they have landed. None that lands waits for one of them.
    fn going_on(&self) -> &Queue;
    /// Returns where those are that go on after they have been parked. None of the others waits for one of
    /// them.
    fn resuming(&self) -> &Queue;
    /// Returns what flights are allocated from.
    fn flights(&self) -> &FlightPool;
}

/// Bytes in front of a bio that a flight can take.
const ROOM: usize = 1472;

/// What flights are allocated from: each has a bio, the first one of its set.
///
/// A flight is held for longer than a bio, by who may need memory for other things before it lands. So
/// the reserve of the pool helps if there is none for a moment; it does not promise that there will be.
#[pin_data]
pub(crate) struct FlightPool {
    #[pin]
    bios: BioPool,
}

impl FlightPool {
    /// Makes a pool. May sleep.
    pub(crate) fn new() -> impl PinInit<Self, Error> {
        try_pin_init!(Self {
            // Bios without vectors of their own.
            bios <- BioPool::with_room(ROOM, 0),
        })
    }
}

/// A flight that has not been launched.
pub(crate) struct Ticket<T: Cargo>(Berth<T>);

impl<T: Cargo> Ticket<T> {
    /// Allocates, and makes the cargo where it stays. `ENOMEM` if it may not sleep.
    #[inline(always)]
    pub(crate) fn new(
        passage: Passage<T::Base>,
        cargo: impl Init<T>,
        patience: Patience,
    ) -> Result<Self> {
        let (bio, flight) = Berth::<T>::allocate(passage.flights(), patience)?;
        // SAFETY: All fields of memory that is ours alone are written, but for those that need not
        // be initialised; the initialiser does not fail.
        // INVARIANT: So it is initialised, and in front of a bio of a pool that the passage leads to.
        unsafe {
            (&raw mut (*flight).scopes).write(Inherited::of_this_task());
            (&raw mut (*flight).bio).write(bio);
            match cargo.__init(&raw mut (*flight).cargo) {
                Ok(()) => {}
                Err(never) => match never {},
            }
            (&raw mut (*flight).passage).write(ManuallyDrop::new(passage));
            Ok(Self(Berth(NonNull::new_unchecked(flight))))
        }
    }

    /// Returns the cargo.
    pub(crate) fn cargo(&mut self) -> &mut T {
        self.0.cargo()
    }

    /// Keeps it, without any bio, until somebody lets it go on.
    pub(crate) fn park(self) -> Parked<T> {
        Parked(self.0)
    }
}

/// A flight without a bio in flight, that a worker takes over when somebody says so.
pub(crate) struct Parked<T: Cargo>(Berth<T>);

impl<T: Cargo> Parked<T> {
    /// Returns the cargo.
    pub(crate) fn cargo(&mut self) -> &mut T {
        self.0.cargo()
    }

    /// Has a worker call [`Cargo::go_on`], for somebody who has kept it. Any context.
    pub(crate) fn resume(self) {
        self.go_on(T::Base::resuming);
    }

    /// Has a worker of a queue call [`Cargo::go_on`]. Any context.
    fn go_on(self, queue: impl FnOnce(&T::Base) -> &Queue) {
        let flight = self.0.into_raw();
        // SAFETY: The flight is ours, and its work is not queued: if it was, it has begun. The queue is
        // there as long as the passage, and its destruction waits for this work.
        unsafe {
            let queue: *const Queue = queue(&(*flight).passage);
            init_work(flight, go_on::<T>);
            (*queue).queue(Opaque::cast_into(&raw const (*flight).work));
        }
    }
}

/// A flight, owned.
///
/// # Invariants
///
/// It is an initialised flight, but for `core` and `work`, that lies in front of a bio of the pool that
/// its passage leads to, which it owns.
struct Berth<T: Cargo>(NonNull<Flight<T>>);

// SAFETY: The cargo may be used by any task, and so may all else that is in a flight.
unsafe impl<T: Cargo> Send for Berth<T> {}
// SAFETY: By reference nothing that is in a flight can be reached.
unsafe impl<T: Cargo> Sync for Berth<T> {}

impl<T: Cargo> Berth<T> {
    /// How far a flight lies in front of its bio.
    const OFFSET: usize = {
        assert!(size_of::<Flight<T>>() <= ROOM);
        assert!(ROOM % align_of::<Flight<T>>() == 0 && align_of::<Flight<T>>() <= 16);
        ROOM + ReadBio::FRONT_PAD
    };

    /// Allocates a bio without a device, and returns where the flight is in front of it.
    fn allocate(
        pool: &FlightPool,
        patience: Patience,
    ) -> Result<(NonNull<bindings::bio>, *mut Flight<T>)> {
        let gfp = match patience {
            Patience::Wait => our_bindings::NOFS,
            Patience::Nowait => our_bindings::NOWAIT,
        };
        // SAFETY: The pool is initialised; no device.
        let bio = unsafe {
            bindings::bio_alloc_bioset(
                ptr::null_mut(),
                0,
                our_bindings::READ_OPF,
                gfp,
                pool.bios.as_raw(),
            )
        };
        let bio = NonNull::new(bio).ok_or(ENOMEM)?;
        // SAFETY: The pool has allocated as much in front of it.
        Ok((bio, unsafe { bio.as_ptr().byte_sub(Self::OFFSET).cast() }))
    }

    /// Returns the cargo.
    fn cargo(&mut self) -> &mut T {
        // SAFETY: By the type invariants it is initialised, and ours.
        unsafe { &mut (*self.0.as_ptr()).cargo }
    }

    /// Lets it own itself.
    fn into_raw(self) -> *mut Flight<T> {
        ManuallyDrop::new(self).0.as_ptr()
    }
}

impl<T: Cargo> Drop for Berth<T> {
    fn drop(&mut self) {
        let flight = self.0.as_ptr();
        // SAFETY: By the type invariants it is initialised, and ours. The passage goes last: from there on
        // the module may go away, but for the function that has called this, which its unloading waits
        // for; and so may the pool.
        unsafe {
            let passage = ManuallyDrop::take(&mut (*flight).passage);
            let bio = (*flight).bio;
            ptr::drop_in_place(&raw mut (*flight).cargo);
            bindings::bio_put(bio.as_ptr());
            drop(passage);
        }
    }
}

/// A flight.
///
/// # Invariants
///
/// From [`launch`] on `core` and `work` are initialised, and it owns itself, until `landed` or `run`
/// takes it back.
struct Flight<T: Cargo> {
    core: MaybeUninit<Core>,
    work: Opaque<bindings::work_struct>,
    /// The one that it lies in front of.
    bio: NonNull<bindings::bio>,
    passage: ManuallyDrop<Passage<T::Base>>,
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
    hold: DeviceHold<'_>,
    f: impl for<'p> FnOnce(&'p T, &'p T::Base, Submitter<'_, 'p>),
) {
    let flight = ticket.0.into_raw();
    // SAFETY: The flight is live until it has landed, which is after it has been sealed, and so is
    // what the passage leads to; `f` is done with both by then, since what it gets are references
    // it cannot keep. The bios it submits borrow the cargo, which does not move or change before
    // they have ended. The set is sealed below, and `landed()` is meant for the sets of this type. The
    // bio stays as long as the flight, has no device, and was not used before.
    unsafe {
        (*flight).core.write(Core::new(hold, landed::<T>));
        init_work(flight, run::<T>);
        let spare = Cell::new(Some(LentBio::new((*flight).bio)));
        let core = (*flight).core.as_ptr().cast_mut();
        let submitter = Submitter::new(&*core).with_spare(&spare);
        f(&(*flight).cargo, &**(*flight).passage, submitter);
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
    // it is queued.
    let flight = unsafe {
        let flight = container_of!(core.cast::<MaybeUninit<Core>>().as_ptr(), Flight<T>, core);
        &mut *flight
    };
    // SAFETY: By the type invariants it is initialised.
    let status = unsafe { core.as_ref() }.status();
    if flight.cargo.touch_down(&flight.passage, status) {
        // INVARIANT: Ours, and initialised.
        drop(Berth(NonNull::from(flight)));
        return;
    }
    let queue: *const Queue = match flight.cargo.is_long() {
        false => flight.passage.landing(),
        true => flight.passage.landing_long(),
    };
    let work = Opaque::cast_into(&raw const flight.work);
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
    // SAFETY: The work lies in a flight, which is ours now.
    let (berth, flight) = unsafe { taken::<T>(work) };
    // SAFETY: By the type invariants it is initialised.
    let status = unsafe { flight.core.assume_init_ref() }.status();
    let scope = flight.scopes.enter();
    let landed = flight.cargo.land(&flight.passage, status);
    drop(scope);
    if landed {
        // The queue waits for this function, even if the module goes away.
        return drop(berth);
    }
    Parked(berth).go_on(T::Base::going_on);
}

/// The work of a flight that goes on. Task context.
///
/// # Safety
///
/// As for [`run`].
unsafe extern "C" fn go_on<T: Cargo>(work: *mut bindings::work_struct) {
    // SAFETY: As in `run()`.
    let (berth, flight) = unsafe { taken::<T>(work) };
    let scope = flight.scopes.enter();
    let done = flight.cargo.go_on(&flight.passage);
    drop(scope);
    if !done {
        return T::park(Parked(berth));
    }
    // The queue waits for this function, even if the module goes away.
    drop(berth);
}

/// Takes a flight back.
///
/// # Safety
///
/// As for [`run`]. The flight must not be used any more when the berth is dropped.
unsafe fn taken<'f, T: Cargo>(work: *mut bindings::work_struct) -> (Berth<T>, &'f mut Flight<T>) {
    // SAFETY: By the contract the work lies in a flight that is nobody else's.
    // INVARIANT: So it is ours.
    unsafe {
        let flight = container_of!(Opaque::cast_from(work), Flight<T>, work).cast_mut();
        (Berth(NonNull::new_unchecked(flight)), &mut *flight)
    }
}
