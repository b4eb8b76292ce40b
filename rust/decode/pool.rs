// SPDX-License-Identifier: GPL-2.0

//! A fixed number of decoders that many tasks share.

use super::Decoder;
use kernel::{
    new_condvar,
    new_spinlock,
    prelude::*,
    sync::{
        CondVar,
        SpinLock, //
    }, //
};

/// Decoders of one algorithm, the one that was used last on top.
#[pin_data]
pub(super) struct Pool<D: Decoder> {
    /// Those that nobody uses. Has room for all.
    #[pin]
    free: SpinLock<KVec<D>>,
    #[pin]
    returned: CondVar,
}

impl<D: Decoder> Pool<D> {
    /// Makes a pool of `count` decoders. May sleep; fails with `ENOMEM`.
    pub(super) fn new(count: usize) -> impl PinInit<Self, Error> {
        try_pin_init!(Self {
            free <- new_spinlock!(make(count)?, "btrfs_dio_decoders"),
            returned <- new_condvar!("btrfs_dio_decoder_returned"),
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

    /// Takes a decoder out.
    fn take(&self) -> D {
        let mut free = self.free.lock();
        loop {
            if let Some(decoder) = free.pop() {
                return decoder;
            }
            self.returned.wait(&mut free);
        }
    }

    /// Puts a decoder back. Whoever waits is woken each time, so that none is missed.
    fn put(&self, decoder: D) {
        // There is room for all. Were there not, the decoder would be freed after the lock.
        let _no_room = self.free.lock().push_within_capacity(decoder);
        self.returned.notify_one();
    }
}

/// Makes `count` decoders, and room for no more.
fn make<D: Decoder>(count: usize) -> Result<KVec<D>> {
    let mut all = KVec::with_capacity(count, GFP_KERNEL)?;
    for _ in 0..count {
        all.push(D::new()?, GFP_KERNEL)?;
    }
    Ok(all)
}
