// SPDX-License-Identifier: GPL-2.0

//! Where btrfs offers us a read: it is admitted, or declined with a reason.

use crate::{
    error::{
        Reason,
        Stop, //
    },
    request,
    safe::{
        block::pool::BioPool,
        btrfs::{
            fs::FsId,
            hook::{
                Server,
                Verdict, //
            },
        },
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
    page::PAGE_SIZE,
    prelude::*, //
};

/// What serves reads.
#[pin_data]
pub(crate) struct Engine {
    /// The bios of all reads.
    #[pin]
    pool: BioPool,
}

impl Engine {
    /// Makes an engine. May sleep.
    pub(crate) fn new() -> impl PinInit<Self, Error> {
        try_pin_init!(Self {
            pool <- BioPool::new(),
        })
    }
}

impl Server for Engine {
    const READ_ALIGN: u32 = 512;
    const MEMORY_ALIGN: u32 = 512;

    fn unmount(&self, _fs: FsId) {}

    fn read(&self, read: &mut DirectRead<'_>) -> Verdict {
        let (inode, offset, length) = (read.inode(), read.pos(), read.count());
        trace::read_begin(inode, offset, length);
        let outcome = match admit(read) {
            Ok(Admission::Read) => request::serve(&self.pool, read),
            Ok(Admission::Nothing) => Ok(0),
            Err(reason) => Err(Stop::Decline(reason)),
        };
        let result = match outcome {
            Ok(bytes) => {
                stats::count(Counter::Reads);
                // CAST: Widening.
                stats::add(Counter::Bytes, bytes as u64);
                Ok(bytes)
            }
            Err(Stop::Fail(error)) => {
                stats::count(Counter::Reads);
                Err(error)
            }
            Err(Stop::Decline(reason)) => {
                stats::count(Counter::Declined(reason));
                return Verdict::Declined;
            }
        };
        trace::read_end(inode, offset, length, result);
        Verdict::Served(result)
    }
}

/// What an admitted read is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Admission {
    /// One that is served.
    Read,
    /// One behind the end of the file, which has been served: it returns nothing.
    Nothing,
}

/// Decides by what can be seen without any lock whether a read is one we serve.
fn admit(read: &DirectRead<'_>) -> Result<Admission, Reason> {
    if !read.is_sync() {
        return Err(Reason::Async);
    }
    if read.is_nowait() {
        return Err(Reason::Nowait);
    }
    let inode = read.inode();
    let fs = inode.fs();
    // CAST: Widening.
    let block = fs.block_size() as usize;
    // A block that spans pages need not be contiguous in memory.
    if block > PAGE_SIZE
        || !block.is_power_of_two()
        || fs.has_indirect_mapping()
        || !fs.reads_by_pid()
    {
        return Err(Reason::Features);
    }
    if read.buffer() == Buffer::Other {
        return Err(Reason::Iterator);
    }
    let offset = u64::try_from(read.pos()).map_err(|_| Reason::Unaligned)?;
    if offset >= inode.size() {
        // Nothing to read, so nothing to align. Final: the file may be growing.
        return Ok(Admission::Nothing);
    }
    // CAST: Only low bits matter.
    let offset = offset as usize;
    if (offset | read.alignment()) & (block - 1) != 0 {
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
    Ok(Admission::Read)
}
