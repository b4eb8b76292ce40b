// SPDX-License-Identifier: GPL-2.0

//! What the module keeps for all reads.

use crate::{
    budget::Budgets,
    cache::{
        self,
        Cache, //
    },
    checksum_cache::ChecksumCache,
    safe::{
        block::{
            flight::{
                FlightPool,
                Queues, //
            },
            pool::BioPool, //
        },
        decode::Decoders,
        memalloc,
        shrinker::Shrinker,
        workqueue::Queue, //
    },
    unstable::Unstable,
};
use kernel::{
    prelude::*,
    sync::Arc, //
};

/// What all reads share, from loading the module to unloading it.
#[pin_data]
pub(crate) struct Resources {
    /// Where asynchronous reads are brought to their end. Dropped first: that waits for its work,
    /// which may queue some of `further`'s.
    pub(crate) queue: Queue,
    /// Where those are that take a CPU for long. Its work may queue some of `further`'s as well.
    pub(crate) long: Queue,
    /// Where those are read again that keep direct writers away, and those that btrfs reads on.
    pub(crate) further: Queue,
    /// Where those go on that have waited for bounce memory, each with a worker for as long as its device
    /// takes. The others do not wait for them.
    resumed: Queue,
    /// Where other CPUs help to verify and to decompress, and repairs are written.
    pub(crate) helpers: Queue,
    /// The bios of all reads.
    #[pin]
    pub(crate) pool: BioPool,
    /// Where those are that nobody waits for, each with a bio.
    #[pin]
    flights: FlightPool,
    /// What decompresses.
    #[pin]
    pub(crate) decoders: Decoders,
    /// How much bounce memory the reads of each filesystem may have.
    #[pin]
    pub(crate) budgets: Budgets,
    /// Checksums that have been looked up.
    pub(crate) checksums: ChecksumCache,
    /// The files that are read through private memory for a while.
    pub(crate) unstable: Unstable,
    /// What has been decompressed, as long as the machine does not need the memory.
    cache: Shrinker<Cache>,
}

impl Resources {
    /// Allocates all there is. May sleep.
    pub(crate) fn new() -> impl PinInit<Self, Error> {
        try_pin_init!(Self {
            queue: Queue::new(c"btrfs_dio")?,
            long: Queue::unbound(c"btrfs_dio_long")?,
            further: Queue::unbound(c"btrfs_dio_further")?,
            resumed: Queue::unbound(c"btrfs_dio_resumed")?,
            helpers: Queue::unbound(c"btrfs_dio_help")?,
            pool <- BioPool::new(),
            flights <- FlightPool::new(),
            decoders <- Decoders::new(),
            budgets <- Budgets::new(),
            checksums: {
                let kib = crate::module_parameters::checksum_cache_kib.value();
                ChecksumCache::new(cache::bytes(kib))?
            },
            unstable: Unstable::new(),
            cache: {
                let kib = crate::module_parameters::decoded_cache_kib.value();
                let limit = cache::limit(kib, memalloc::memory());
                Shrinker::new(Arc::pin_init(Cache::new(limit), GFP_KERNEL)?)?
            },
        })
    }

    /// Returns what has been decompressed.
    pub(crate) fn cache(&self) -> &Cache {
        self.cache.target()
    }
}

impl Queues for Resources {
    fn landing(&self) -> &Queue {
        &self.queue
    }

    fn landing_long(&self) -> &Queue {
        &self.long
    }

    fn going_on(&self) -> &Queue {
        &self.further
    }

    fn resuming(&self) -> &Queue {
        &self.resumed
    }

    fn flights(&self) -> &FlightPool {
        &self.flights
    }
}
