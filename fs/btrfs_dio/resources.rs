// SPDX-License-Identifier: GPL-2.0

//! What the module keeps for all reads.

use crate::{
    budget::Budget,
    safe::{
        block::pool::BioPool,
        decode::Decoders,
        workqueue::Queue, //
    },
};
use kernel::{
    prelude::*,
    sync::Arc, //
};

/// What all reads share, from loading the module to unloading it.
#[pin_data]
pub(crate) struct Resources {
    /// Where asynchronous reads are brought to their end. Dropped first: that waits for its work.
    pub(crate) queue: Queue,
    /// The bios of all reads.
    #[pin]
    pub(crate) pool: BioPool,
    /// What decompresses.
    #[pin]
    pub(crate) decoders: Decoders,
    /// How much private memory there may be.
    pub(crate) budget: Arc<Budget>,
}

impl Resources {
    /// Allocates all there is. May sleep.
    pub(crate) fn new() -> impl PinInit<Self, Error> {
        try_pin_init!(Self {
            queue: Queue::new(c"btrfs_dio")?,
            pool <- BioPool::new(),
            decoders <- Decoders::new(),
            budget: Budget::new()?,
        })
    }
}

impl AsRef<Queue> for Resources {
    fn as_ref(&self) -> &Queue {
        &self.queue
    }
}
