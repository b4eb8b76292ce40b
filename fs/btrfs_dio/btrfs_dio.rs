// SPDX-License-Identifier: GPL-2.0

//! Direct reads of btrfs, extent by extent, below the VFS.
//!
//! # The path of a read
//!
//! btrfs offers each O_DIRECT read to this module, which serves or declines it. A read that is
//! declined goes on in btrfs as if the module were not there, and is counted by reason; nothing
//! falls back silently. A read that is served flows one way through these files:
//!
//! | file               | what happens there                                                      |
//! |--------------------|-------------------------------------------------------------------------|
//! | [`hook`]           | btrfs calls us; the read is admitted, or declined with a reason         |
//! | [`request`]        | the read as a whole: its windows, its one result                        |
//! | [`entry`]          | what each begins with: its memory, the size of the file, write-back     |
//! | [`asynchronous`]   | a read whose caller does not wait: issued, landed, completed            |
//! | [`attempt`]        | how a window is to be read, and how it is being tried                   |
//! | [`window`]         | one window: lock, plan, submit, wait, finish, or try again              |
//! | [`extents`]        | which extents the window has, under the lock of its range               |
//! | [`plan`]           | [`range`] of the file -> [`segment`]s, by kind of extent                |
//! | [`fetch`]          | what is read from devices, into what memory; [`budget`] of ours         |
//! | [`checksum`]       | expected values looked up                                               |
//! | [`checksum_cache`] | expected values that have been looked up, in a [`checksum_group`] each  |
//! | [`stripe`]         | logical address -> stripe of a chunk, and [`mirror`]: which copy        |
//! | [`route`]          | fetches -> [`run`]s: what is read of a device in one go                 |
//! | [`bio`]            | runs -> bios, submitted together                                        |
//! | [`completion`]     | what makes data that has arrived the right data                         |
//! | [`verify`]         | checksums computed and compared                                         |
//! | [`recovery`]       | what one copy cannot supply is read from another, or rebuilt            |
//! | [`repair`]         | bad copies are written anew                                             |
//! | [`delivery`]       | what we write to the caller: [`hole`], [`inline`], [`compressed`]       |
//! | [`cache`]          | decompressed extents, for who reads them piece by piece                 |
//! | [`unstable`]       | files whose readers write to their buffers: bounced for a while         |
//! | [`stats`]          | what happened, for people; [`devices`]: to which device                 |
//!
//! # What is guaranteed
//!
//! * A byte that is delivered was in the file at one moment during the read. Data with checksums is
//!   verified; for data without, the extent is still the file's after the read.
//! * The caller's pages are pinned before the extent lock is taken, those of the first window before
//!   any lock of the filesystem, and let go after it is released: there are no page faults, and no
//!   folio locks, under it.
//! * The extents of a window are those of one moment: mapped under the extent lock, with no ordered
//!   extent in the range, or at a glance if there is only one. Their checksums and their places on
//!   devices are looked up without it, and count if the extents still are the file's then. Checksums
//!   that have to be read from a device are, if somebody waits, while the data is on its way.
//! * A copy is blamed for what it gave to private memory only, while the extent was the file's. What
//!   is written to it is a block that was verified there, under the lock of its range.
//! * An error is returned if no copy, and no way to rebuild it, supplies a block; never other data.
//! * One read has at most [`request::WINDOW`] bytes of the caller's memory pinned, or
//!   [`request::LARGEST`] if its caller does not or may not wait; a bio for each run of these on a
//!   device; at most [`budget::WINDOW`] of bounce memory, of which there is a limit for each filesystem;
//!   and less than 1 MiB of memory beside, whatever its length.
//! * A read whose caller does not wait is completed once, and nothing of iocb, file or filesystem is
//!   touched after that.
//! * A read that may not wait is answered as a whole, or not at all.
//! * The module can be unloaded at any moment, unless somebody has its file in debugfs open: reads
//!   that run are waited for.
//!
//! No `unsafe` here, and no bindings: both are in [`safe`], whose types enforce the above.

use kernel::prelude::*;

#[path = "../../rust/bindings.rs"]
mod bindings;
#[path = "../../rust/safe.rs"]
mod safe;

mod asynchronous;
mod attempt;
mod bio;
mod blame;
mod bounce_queue;
mod budget;
mod cache;
mod checksum;
mod checksum_cache;
mod checksum_group;
mod completion;
mod compressed;
mod delivery;
mod devices;
mod entry;
mod error;
mod extents;
mod fair_share;
mod fetch;
mod few;
mod hole;
mod hook;
mod inline;
mod mirror;
mod plan;
mod range;
mod recovery;
mod repair;
mod request;
mod resources;
mod route;
mod run;
mod segment;
mod stats;
mod stripe;
mod unstable;
mod verify;
mod window;

#[cfg(CONFIG_KUNIT = "y")]
#[path = "../../tests/kunit/suites.rs"]
mod kunit_suites;

use safe::{
    block::account::Accounts,
    btrfs::hook::Registration,
    debugfs::Dir, //
};

module! {
    type: Module,
    name: "btrfs_dio",
    authors: ["The btrfs_dio authors"],
    description: "Direct reads of btrfs, extent by extent",
    license: "GPL",
    imports_ns: ["BTRFS_DIO"],
    params: {
        decoded_cache_kib: u32 {
            default: crate::cache::BY_MEMORY_KIB,
            description: "Memory for decompressed extents in KiB, 0 for none; not given: 2 % of all, 128 MiB at most",
        },
        checksum_cache_kib: u32 {
            default: crate::checksum_cache::DEFAULT_SIZE_KIB,
            description: "Memory for checksums that were looked up in KiB, 0 for none",
        },
    },
}

/// The loaded module.
///
/// Fields are dropped in the order they are declared in: first no read can come or run any more,
/// then what people look at goes, and at last what both have used.
#[pin_data]
struct Module {
    #[pin]
    registration: Registration<hook::Engine>,
    _files: Dir,
    _accounts: Accounts,
}

impl kernel::InPlaceModule for Module {
    fn init(_module: &'static kernel::ThisModule) -> impl PinInit<Self, Error> {
        try_pin_init!(Self {
            _: { safe::layout::check()? },
            _accounts: Accounts::new()?,
            registration <- Registration::new(hook::Engine::new()),
            // Last: if a file were open when loading fails, it would outlive the module.
            _files: {
                let dir = Dir::new(c"btrfs_dio");
                dir.add::<stats::Counters>(c"stats");
                dir.add::<devices::Devices>(c"devices");
                dir
            },
        })
    }
}
