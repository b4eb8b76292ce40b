// SPDX-License-Identifier: GPL-2.0

//! One read as a whole.
//!
//! # States
//!
//! | state     | who owns it                               | ends by                                |
//! |-----------|-------------------------------------------|----------------------------------------|
//! | offered   | btrfs; we have a [`DirectRead`]           | served, declined, or detached          |
//! | served    | nobody: `read_iter` returns the result    |                                        |
//! | declined  | btrfs, untouched                          |                                        |
//! | detached  | its set of bios, see [`asynchronous`]     | completed, once                        |
//!
//! A read whose caller waits is served in windows, one after the other, by the task that issued it.
//! One whose caller does not, or that may not wait, is served in one.

use crate::{
    asynchronous::{
        self,
        Issued, //
    },
    entry::{
        bytes_to_read,
        memory_for,
        not_pinned,
        Entry, //
    },
    error::{
        Reason,
        Stop, //
    },
    range::Range,
    resources::Resources,
    safe::{
        drain::Drain,
        patience::Patience,
        read::DirectRead,
        task,
        user_pages::UserPages, //
    },
    window::{
        self,
        Manner, //
    },
};
use kernel::{
    prelude::*,
    sizes::{
        SZ_16M,
        SZ_4M, //
    },
};

/// How much of a read is worked on at a time, in bytes, if its caller waits: what bounds the memory
/// that is pinned, and the memory of our own.
pub(crate) const WINDOW: usize = SZ_4M;
/// How much is, if the caller does not wait, or may not: all of the read. A longer one is served as
/// if its caller waited, or told to wait.
pub(crate) const LARGEST: usize = SZ_16M;

/// What was seen of a read when it was admitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Shape {
    /// The size of the file in bytes, then.
    pub(crate) size: u64,
    /// All bits that are set in the address or the length of any piece of the buffer.
    pub(crate) alignment: usize,
}

/// Serves an admitted read.
///
/// Task context; sleeps, unless the read must not; no lock of the filesystem held.
pub(crate) fn serve(
    resources: &Drain<Resources>,
    read: &mut DirectRead<'_>,
    shape: &Shape,
) -> Result<Issued, Stop> {
    let inode = read.inode();
    let pos = u64::try_from(read.pos()).map_err(|_| Reason::Unaligned)?;
    // CAST: Widening.
    let block = inode.fs().block_size() as usize;
    let count = read.count();
    let manner = Manner {
        patience: if read.is_nowait() {
            Patience::Nowait
        } else {
            Patience::Wait
        },
        ioprio: read.ioprio(),
        pid: task::current_pid(),
        // Of a read that begins within a block, so is the memory of later windows to their blocks.
        // CAST: Only low bits matter.
        alignment: shape.alignment | (pos as usize & block.saturating_sub(1)),
    };

    let likely = bytes_to_read(pos, count, shape.size);
    if likely == 0 {
        return Ok(Issued::Now(0));
    }
    let at_once = likely <= LARGEST;
    if manner.patience == Patience::Nowait && !at_once {
        return Err(Stop::WouldWait);
    }
    let later = !read.is_sync() && at_once;
    let whole = later || manner.patience == Patience::Nowait;
    let most = if whole {
        // With what lies before it in its first block: it must not be cut.
        LARGEST.saturating_add(block)
    } else {
        WINDOW
    };
    // Before any lock: this may fault, and what it faults in may be this file.
    let want = memory_for(pos, likely, count, most, block)?;
    if later {
        return asynchronous::issue(resources, read, likely, want, &manner);
    }
    let mut pages = UserPages::none();
    pin(&mut pages, read, want, &manner)?;
    let Some(Entry { inode, total }) = Entry::new(read, count, &manner)? else {
        return Ok(Issued::Now(0));
    };
    let mut done = 0usize;
    while done < total {
        // CAST: Widening.
        let pos = pos.checked_add(done as u64).ok_or(Reason::Mapping)?;
        let left = total.saturating_sub(done);
        if done > 0 {
            if whole {
                break;
            }
            let want = memory_for(pos, left, count.saturating_sub(done), most, block)?;
            pin(&mut pages, read, want, &manner)?;
        }
        // Fewer pages than are left if the file has grown since, more if it has shrunk. A window
        // can be cut short: then the next one begins in the midst of these pages.
        let mut within = 0usize;
        while within < left.min(pages.len()) {
            let range = Range::new(
                pos.checked_add(within as u64).ok_or(Reason::Mapping)?,
                left.min(pages.len()).saturating_sub(within),
                pages.len().saturating_sub(within),
                block,
            )?
            .at(within);
            let read = window::read(resources, inode.count(), &range, &pages, &manner)?;
            within = within.saturating_add(read);
        }
        done = done.saturating_add(within);
    }
    Ok(Issued::Now(done))
}

/// Pins the next `len` bytes of the buffer.
fn pin<'r>(
    pages: &mut UserPages<'r>,
    read: &mut DirectRead<'r>,
    len: usize,
    manner: &Manner,
) -> Result<(), Stop> {
    pages
        .pin(read, len, manner.patience)
        .map_err(|error| not_pinned(error, manner.patience))
}
