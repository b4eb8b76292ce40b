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
    attempt::Manner,
    budget::Reservation,
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
        btrfs::inode::DioCount,
        drain::Drain,
        owner::Owner,
        patience::Patience,
        read::DirectRead,
        task,
        user_pages::UserPages, //
    },
    window,
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

/// How often to begin a read again, because the file has grown, before it is served otherwise.
const GROWTH_TRIES: u32 = 4;

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
        owner: None,
        // Of a read that begins within a block, so is the memory of later windows to their blocks.
        // CAST: Only low bits matter.
        alignment: shape.alignment | (pos as usize & block.saturating_sub(1)),
    };

    let mut size = shape.size;
    for _ in 0..GROWTH_TRIES {
        let likely = bytes_to_read(pos, count, size);
        if likely == 0 {
            return Ok(Issued::Now(0));
        }
        // What begins before the memory for it is known to suffice is served in one window.
        let whole = likely <= LARGEST && (manner.patience == Patience::Nowait || !read.is_sync());
        if !whole {
            break;
        }
        // With what lies before it in its first block: it must not be cut.
        let most = LARGEST.saturating_add(block);
        // Before any lock: this may fault, and what it faults in may be this file.
        let want = memory_for(pos, likely, count, most, block)?;
        let issued = if read.is_sync() {
            read_at_once(resources, read, likely, want, &manner)
        } else {
            asynchronous::issue(resources, read, likely, want, &manner)
        };
        match issued? {
            Some(issued) => return Ok(issued),
            None => size = inode.size(),
        }
    }
    match manner.patience {
        Patience::Nowait => Err(Stop::WouldWait),
        Patience::Wait => read_in_windows(resources, read, size, &manner).map(Issued::Now),
    }
}

/// Reads in one window what is there without waiting, into the first `want` bytes of the buffer.
///
/// `None` if the file has grown since it was looked at: the read is as it was.
fn read_at_once(
    resources: &Resources,
    read: &mut DirectRead<'_>,
    likely: usize,
    want: usize,
    manner: &Manner,
) -> Result<Option<Issued>, Stop> {
    // As long as nothing has been taken of the buffer.
    let count = read.count();
    let mut pages = UserPages::none();
    pin(&mut pages, read, want, manner)?;
    let entry = Entry::new(read.inode(), read.pos(), count, manner.patience)?;
    let Some(Entry { inode, total }) = entry else {
        return Ok(Some(Issued::Now(0)));
    };
    if total > likely {
        drop(pages);
        read.rewind();
        return Ok(None);
    }
    let pos = u64::try_from(read.pos()).map_err(|_| Reason::Unaligned)?;
    // CAST: Widening.
    let block = read.inode().fs().block_size() as usize;
    let range = Range::new(pos, total, pages.len(), block)?;
    let dio = inode.count();
    let read = window::read(resources, dio, &range, &pages, manner, &mut None)?;
    Ok(Some(Issued::Now(read)))
}

/// How far a read in windows has got.
struct Progress<'r> {
    /// The caller's memory of the window that is read.
    pages: UserPages<'r>,
    /// How much of that has been read, in bytes.
    within: usize,
    /// How much has been read before, in bytes.
    done: usize,
    /// Bounce memory that was waited for.
    reserved: Option<Reservation>,
}

/// Reads all that is there, in windows one after the other, of a file that had `size` bytes.
///
/// Task context, sleeps; no lock of the filesystem held.
fn read_in_windows(
    resources: &Resources,
    read: &mut DirectRead<'_>,
    size: u64,
    manner: &Manner,
) -> Result<usize, Stop> {
    let pos = u64::try_from(read.pos()).map_err(|_| Reason::Unaligned)?;
    // As long as nothing has been taken of the buffer.
    let count = read.count();
    // CAST: Widening.
    let block = read.inode().fs().block_size() as usize;
    let mut progress = Progress {
        pages: UserPages::none(),
        within: 0,
        done: 0,
        reserved: None,
    };
    // Before any lock: this may fault, and what it faults in may be this file.
    let want = memory_for(pos, bytes_to_read(pos, count, size), count, WINDOW, block)?;
    pin(&mut progress.pages, read, want, manner)?;
    loop {
        let entry = Entry::new(read.inode(), read.pos(), count, manner.patience)?;
        let Some(Entry { inode, total }) = entry else {
            return Ok(0);
        };
        let step = read_windows(
            resources,
            read,
            inode.count(),
            (count, total),
            manner,
            &mut progress,
        );
        // What is waited for may be held by a reader that waits for this lock.
        drop(inode);
        match step {
            // If the file has become shorter meanwhile, then by more than what was left.
            Ok(()) => return Ok(progress.done.min(total)),
            Err(Stop::Budget(bytes)) => {
                // What was waited for before was too little.
                progress.reserved = None;
                let budget = resources.budgets.of(read.inode().fs().id())?;
                progress.reserved = Some(budget.wait(Owner::current(), bytes)?);
            }
            Err(stop) => return Err(stop),
        }
    }
}

/// Reads on up to the first `total` bytes of a read of `count`, as far as there is bounce memory.
fn read_windows<'r>(
    resources: &Resources,
    read: &mut DirectRead<'r>,
    inode: &DioCount<'_>,
    (count, total): (usize, usize),
    manner: &Manner,
    progress: &mut Progress<'r>,
) -> Result<(), Stop> {
    let begin = u64::try_from(read.pos()).map_err(|_| Reason::Unaligned)?;
    // CAST: Widening.
    let block = read.inode().fs().block_size() as usize;
    loop {
        // CAST: Widening.
        let done = progress.done as u64;
        let pos = begin.checked_add(done).ok_or(Reason::Mapping)?;
        let left = total.saturating_sub(progress.done);
        // Fewer pages than are left if the file has grown since, more if it has shrunk. A window
        // can be cut short: then the next one begins in the midst of these pages.
        let pages = &progress.pages;
        while progress.within < left.min(pages.len()) {
            // CAST: Widening.
            let pos = pos
                .checked_add(progress.within as u64)
                .ok_or(Reason::Mapping)?;
            let valid = left.min(pages.len()).saturating_sub(progress.within);
            let room = pages.len().saturating_sub(progress.within);
            let range = Range::new(pos, valid, room, block)?.at(progress.within);
            let reserved = &mut progress.reserved;
            let read = window::read(resources, inode, &range, pages, manner, reserved)?;
            progress.within = progress.within.saturating_add(read);
        }
        progress.done = progress.done.saturating_add(progress.within);
        progress.within = 0;
        if progress.done >= total {
            return Ok(());
        }
        // CAST: Widening.
        let pos = begin
            .checked_add(progress.done as u64)
            .ok_or(Reason::Mapping)?;
        let left = total.saturating_sub(progress.done);
        let room = count.saturating_sub(progress.done);
        let want = memory_for(pos, left, room, WINDOW, block)?;
        pin(&mut progress.pages, read, want, manner)?;
    }
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
