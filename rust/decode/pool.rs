// SPDX-License-Identifier: GPL-2.0

//! Decoders that many tasks share: as many as are needed at a time, up to a limit.
//!
//! The first decoder is made with the pool, and stays: whatever memory there is, a reader gets one in
//! the end. Others are made when all are in use, without waiting for memory. What was not needed for
//! [`PERIOD_SECONDS`] is freed.
//!
//! C header: [`include/linux/workqueue.h`](srctree/include/linux/workqueue.h)

use super::Decoder;
use crate::bindings;
use kernel::{
    bindings as kbindings,
    container_of,
    new_condvar,
    new_spinlock,
    prelude::*,
    sync::{
        atomic::{
            Atomic,
            Relaxed, //
        },
        CondVar,
        SpinLock, //
    },
    types::Opaque, //
};

/// How often decoders are freed that nobody has needed since the last time.
const PERIOD_SECONDS: usize = 5;

/// How many decoders there are, of all pools.
static MADE: Atomic<usize> = Atomic::new(0);

/// Returns how many decoders there are, of all pools.
pub(super) fn made() -> usize {
    MADE.load(Relaxed)
}

/// Decoders of one algorithm.
///
/// # Invariants
///
/// `idle` is initialised, and its function is [`trim`] for this type.
#[pin_data(PinnedDrop)]
pub(super) struct Pool<D: Decoder + 'static> {
    #[pin]
    state: SpinLock<State<D>>,
    #[pin]
    returned: CondVar,
    /// The most decoders there may be.
    most: usize,
    /// Queued as long as there are more decoders than the one that stays.
    #[pin]
    idle: Opaque<kbindings::delayed_work>,
}

// SAFETY: Delayed work may be queued and disabled by any task.
unsafe impl<D: Decoder + 'static> Send for Pool<D> {}
// SAFETY: As above; all else is behind a lock.
unsafe impl<D: Decoder + 'static> Sync for Pool<D> {}

struct State<D> {
    /// Decoders that nobody uses, the one that was used last on top. Has room for all.
    free: KVec<D>,
    /// How many decoders there are, free or in use: 1 at least.
    count: usize,
    /// How many more tasks are making. They may fail.
    making: usize,
    /// The fewest that were free at a time, since the last [`trim`].
    spare: usize,
}

impl<D: Decoder + 'static> Pool<D> {
    /// Makes a pool of one decoder, which can become `most`. May sleep; fails with `ENOMEM`.
    pub(super) fn new(most: usize) -> impl PinInit<Self, Error> {
        try_pin_init!(Self {
            state <- new_spinlock!(State::new(most)?, "btrfs_dio_decoders"),
            returned <- new_condvar!("btrfs_dio_decoder_returned"),
            most,
            // INVARIANT: As the type wants it.
            idle <- Opaque::ffi_init(|idle: *mut kbindings::delayed_work| {
                // SAFETY: Memory for delayed work, which stays where it is until that is disabled.
                unsafe { bindings::bdio_init_delayed_work(idle, Some(trim::<D>)) }
            }),
        })
    }

    /// Lends a decoder to `f`, after one is free.
    ///
    /// `f` may not ask for another one. Task context, sleeps.
    pub(super) fn with<R>(&self, f: impl FnOnce(&mut D) -> R) -> R {
        let mut decoder = self.take();
        let result = f(&mut decoder);
        self.put(decoder);
        result
    }

    /// Takes a decoder out: a free one, or else a new one, or else the next that is put back.
    fn take(&self) -> D {
        let mut may_make = true;
        loop {
            let mut state = self.state.lock();
            if let Some(decoder) = state.free.pop() {
                state.spare = state.spare.min(state.free.len());
                return decoder;
            }
            state.spare = 0;
            if !may_make || state.count.saturating_add(state.making) >= self.most {
                // Another may take what is put back, and then there may be memory.
                self.returned.wait(&mut state);
                may_make = true;
                continue;
            }
            state.making = state.making.saturating_add(1);
            drop(state);
            let made = make(GFP_NOWAIT);
            let mut state = self.state.lock();
            state.making = state.making.saturating_sub(1);
            if let Ok(decoder) = made {
                state.count = state.count.saturating_add(1);
                drop(state);
                self.expect_idle();
                return decoder;
            }
            may_make = false;
        }
    }

    /// Puts a decoder back, and wakes a task that waits for one.
    fn put(&self, decoder: D) {
        // There is room for all. Were there not, the decoder would be freed after the lock.
        let _no_room = self.state.lock().free.push_within_capacity(decoder);
        self.returned.notify_one();
    }

    /// Has [`trim`] run after a while.
    fn expect_idle(&self) {
        let period = PERIOD_SECONDS.saturating_mul(kbindings::HZ as usize);
        // SAFETY: By the type invariants the work is initialised. It stays until it is disabled.
        unsafe { bindings::bdio_queue_delayed_work(self.idle.get(), period) };
    }

    /// Frees what has not been needed since the last time, and returns whether more than one decoder
    /// is left. Task context, sleeps.
    fn free_spare(&self) -> bool {
        let mut state = self.state.lock();
        let mut spare = state.spare.min(state.count.saturating_sub(1));
        while spare > 0 {
            // At the bottom is the one that was used least recently.
            let Ok(decoder) = state.free.remove(0) else {
                break;
            };
            state.count = state.count.saturating_sub(1);
            spare = spare.saturating_sub(1);
            drop(state);
            free(decoder);
            state = self.state.lock();
        }
        state.spare = state.free.len();
        state.count > 1
    }
}

#[pinned_drop]
impl<D: Decoder + 'static> PinnedDrop for Pool<D> {
    fn drop(self: Pin<&mut Self>) {
        // SAFETY: By the type invariants the work is initialised. On return it does not run, nor
        // can it be queued.
        unsafe { kbindings::disable_delayed_work_sync(self.idle.get()) };
        while let Some(decoder) = { self.state.lock().free.pop() } {
            free(decoder);
        }
    }
}

impl<D: Decoder> State<D> {
    /// Makes one decoder, and room for `most`.
    fn new(most: usize) -> Result<Self> {
        let mut free = KVec::with_capacity(most, GFP_KERNEL)?;
        free.push(make(GFP_KERNEL)?, GFP_KERNEL)?;
        Ok(Self {
            free,
            count: 1,
            making: 0,
            spare: 0,
        })
    }
}

/// Makes a decoder. May sleep if `gfp` allows it; fails with `ENOMEM`.
fn make<D: Decoder>(gfp: kernel::alloc::Flags) -> Result<D> {
    let decoder = D::new(gfp)?;
    MADE.fetch_add(1, Relaxed);
    Ok(decoder)
}

/// Frees a decoder. Sleeps.
fn free<D: Decoder>(decoder: D) {
    MADE.fetch_sub(1, Relaxed);
    drop(decoder);
}

/// The work of a pool. Task context.
///
/// # Safety
///
/// Only for a workqueue to call, with the work of a `Pool<D>`.
unsafe extern "C" fn trim<D: Decoder + 'static>(work: *mut kbindings::work_struct) {
    // SAFETY: The work lies in delayed work, and that in a pool, whose drop waits for this function.
    let pool = unsafe {
        let idle = container_of!(work, kbindings::delayed_work, work);
        &*container_of!(Opaque::cast_from(idle), Pool<D>, idle)
    };
    if pool.free_spare() {
        pool.expect_idle();
    }
}
