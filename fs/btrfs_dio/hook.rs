// SPDX-License-Identifier: GPL-2.0

//! Where btrfs offers us a read: it is admitted, or declined with a reason.

use crate::{
    asynchronous::Issued,
    error::{
        Reason,
        Stop, //
    },
    request::{
        self,
        Shape, //
    },
    resources::Resources,
    safe::{
        btrfs::{
            fs::FsId,
            hook::{
                Server,
                Verdict, //
            },
        },
        drain::Drain,
        params::{
            self,
            ReadPolicy, //
        },
        quiescence::Quiescence,
        read::{
            Buffer,
            DirectRead, //
        },
        trace,
    },
    stats::{
        self,
        Counter, //
    },
};
use kernel::{
    block::SECTOR_SHIFT,
    page::PAGE_SIZE,
    prelude::*, //
};

/// Alignment of offsets, lengths and memory, in bytes: what most devices read at a time, and can be
/// written to.
const SECTOR_SIZE: u32 = 1 << SECTOR_SHIFT;

/// What serves reads.
///
/// Fields are dropped in the order they are declared in: first reads in flight are waited for, then
/// the functions that have completed them, and may not have returned yet.
#[pin_data]
pub(crate) struct Engine {
    #[pin]
    resources: Drain<Resources>,
    _quiescence: Quiescence,
}

impl Engine {
    /// Makes an engine. May sleep.
    pub(crate) fn new() -> impl PinInit<Self, Error> {
        try_pin_init!(Self {
            resources <- Drain::new(Resources::new()),
            _quiescence: Quiescence,
        })
    }
}

impl Server for Engine {
    fn read(&self, read: &mut DirectRead<'_>) -> Verdict {
        let (offset, length) = (read.pos(), read.count());
        trace::read_begin(read.inode(), offset, length);
        let outcome = match admit(read) {
            Ok(Admission::Read(shape)) => match accessed(read) {
                Ok(()) => request::serve(&self.resources, read, &shape),
                Err(stop) => Err(stop),
            },
            Ok(Admission::Nothing) => Ok(Issued::Now(0)),
            Err(reason) => Err(Stop::Decline(reason)),
        };
        let result = match outcome {
            Ok(Issued::Now(bytes)) => {
                stats::count(Counter::Reads);
                // CAST: Widening.
                stats::add(Counter::Bytes, bytes as u64);
                Ok(bytes)
            }
            // It may have been completed already: nothing of it is there any more.
            Ok(Issued::Later) => return Verdict::Queued,
            Err(Stop::Fail(error)) => {
                stats::count(Counter::Reads);
                Err(error)
            }
            Err(Stop::WouldWait) if read.is_nowait() => {
                stats::count(Counter::WouldWait);
                Err(EAGAIN)
            }
            Err(stop) => {
                let reason = match stop {
                    Stop::Decline(reason) => reason,
                    _ => Reason::Busy,
                };
                stats::count(Counter::Declined(reason));
                return Verdict::Declined;
            }
        };
        trace::read_end(read.inode(), offset, length, result);
        Verdict::Served(result)
    }

    fn unmount(&self, fs: FsId) {
        self.resources.cache().purge(fs.0);
        self.resources.checksums.purge();
        self.resources.budgets.forget(fs);
    }
}

/// What an admitted read is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Admission {
    /// One that is served.
    Read(Shape),
    /// One behind the end of the file, which has been served: it returns nothing.
    Nothing,
}

/// Moves the access time if that is due, as XFS and ext4 do before a direct read.
///
/// btrfs moves it only for what it reads through the page cache: inline and compressed extents.
fn accessed(read: &DirectRead<'_>) -> Result<(), Stop> {
    if read.count() == 0 {
        return Ok(());
    }
    read.note_access().map_err(|_| Stop::WouldWait)
}

/// Decides by what can be seen without any lock whether a read is one we serve.
fn admit(read: &DirectRead<'_>) -> Result<Admission, Reason> {
    let inode = read.inode();
    let fs = inode.fs();
    // CAST: Widening.
    let block = fs.block_size() as usize;
    // A block that spans pages need not be contiguous in memory.
    if block > PAGE_SIZE
        || !block.is_power_of_two()
        || fs.has_indirect_mapping()
        || params::read_policy() == ReadPolicy::Fs && !fs.reads_by_pid()
    {
        return Err(Reason::Features);
    }
    if read.buffer() == Buffer::Other {
        return Err(Reason::Iterator);
    }
    let offset = u64::try_from(read.pos()).map_err(|_| Reason::Unaligned)?;
    let size = inode.size();
    if offset >= size {
        // Nothing to read, so nothing to align. Final: the file may be growing.
        return Ok(Admission::Nothing);
    }
    let alignment = read.alignment();
    // CAST: Only low bits matter; widening.
    if (offset as usize | alignment) & (SECTOR_SIZE as usize - 1) != 0 {
        return Err(Reason::Unaligned);
    }
    if inode.has_verity() {
        return Err(Reason::Verity);
    }
    if inode.is_encrypted() {
        return Err(Reason::Encrypted);
    }
    if read.ranges_overlap() {
        return Err(Reason::Iterator);
    }
    Ok(Admission::Read(Shape { size, alignment }))
}
