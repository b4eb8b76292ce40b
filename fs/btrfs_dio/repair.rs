// SPDX-License-Identifier: GPL-2.0

//! Bad copies are written anew.
//!
//! One by one, each under the lock of its place in the file, with no write under way there, and only
//! if the extents are still the very ones that were read: then the space is the file's, and nobody
//! else writes to it. What has no checksums is read once more under that lock, since it may have been
//! written in place. What is written comes from private memory, and goes through btrfs, which counts,
//! tells, and knows about replacement, parity and zones; and it is written by a worker, so that
//! nobody's lack of bandwidth keeps others out.
//!
//! Nothing is written if the filesystem is read-only, frozen, broken or shut down, or if the range is
//! not to be had: then the next who reads the block may have more luck.

use crate::{
    attempt::LOCK_TRIES,
    blame::locate,
    fetch::Memory,
    recovery::{
        Block,
        Next,
        Reader, //
    },
    safe::{
        btrfs::{
            device::DeviceHold,
            extent_lock::{
                ExtentLock,
                Writers, //
            },
            glance::Watch,
            repair::GoodBlock,
        },
        patience::Patience,
    },
    stats::{
        self,
        Counter, //
    },
};
use kernel::{
    prelude::*,
    time::{
        Delta,
        Instant,
        Monotonic, //
    },
};

/// How long a device may take to refuse a write before no more is written to it for this window.
///
/// btrfs writes each block to each bad mirror, whatever became of the one before, and counts each that
/// fails. So does this: of a device that refuses at once, one sector need not be like the others.
/// A device that runs into timeouts would hold up the reader for that long for each block.
const MOST_PATIENT: Delta = Delta::from_secs(5);

/// What has been found out about the devices while a window is repaired.
struct Progress {
    /// The devices that are slow to refuse, by [`Device::id`](crate::safe::btrfs::device::Device::id).
    ///
    /// The hold under which a device was found has ended. If another device has taken its place and
    /// its address since, that one is not repaired this time.
    dead: KVec<usize>,
    /// Whether nothing may be written to the filesystem.
    is_over: bool,
}

/// Writes the blocks that are good to those of their copies that are bad.
///
/// Task context, sleeps; no extent bit and no hold on devices held.
pub(crate) fn repair(reader: &Reader<'_>, blocks: &mut [Block], scratch: &mut [u8]) {
    let mut progress = Progress {
        dead: KVec::new(),
        is_over: false,
    };
    for block in blocks {
        // CAST: Widening.
        let bad = block.bad_copies().count() as u64;
        let written = match bad > 0 && block.is_good() && !progress.is_over {
            true => repair_block(reader, block, &mut progress, scratch).unwrap_or(0),
            false => 0,
        };
        stats::add(Counter::Repaired, written);
        stats::add(Counter::Unrepaired, bad.saturating_sub(written));
    }
}

/// Returns what tells the device of a copy of a block from others; `None` if it cannot be found.
///
/// Task context, sleeps; no hold on devices held.
fn device_of(reader: &Reader<'_>, block: &Block, copy: u32) -> Option<usize> {
    // Ends before anything is written, which takes a hold of its own.
    let hold = DeviceHold::take(reader.inode.inode().fs(), Patience::Wait).ok()?;
    let watch = Watch::new();
    let (_, stripe) = locate(&watch, &hold, block.logical, copy)?;
    Some(stripe?.device.id())
}

/// Writes a block, and returns how many copies of it were written. `None` if nothing may be written.
fn repair_block(
    reader: &Reader<'_>,
    block: &mut Block,
    progress: &mut Progress,
    scratch: &mut [u8],
) -> Option<u64> {
    let size = reader.plan.range.block;
    // CAST: Widening.
    let lock = ExtentLock::new(
        reader.inode,
        block.kept_at,
        size as u64,
        Writers::Allowed,
        LOCK_TRIES,
        Patience::Wait,
    )
    .ok()??;
    if !reader.plan.is_current() {
        return None;
    }
    if reader.plan.fetches.expected.is_none() {
        let block = core::slice::from_mut(block);
        reader.read(block, Next::Same, scratch).ok()?;
    }
    let Memory::Private { buffer, at } = block.memory else {
        return None;
    };
    if !block.is_good() {
        return None;
    }
    let good = GoodBlock {
        offset: block.file,
        logical: block.logical,
        len: size,
        buffer: reader.plan.fetches.private(buffer)?,
        at,
    };
    let mut written = 0u64;
    for copy in block.bad_copies() {
        let Some(device) = device_of(reader, block, copy) else {
            continue;
        };
        if progress.dead.contains(&device) {
            continue;
        }
        let begin = Instant::<Monotonic>::now();
        match good.write(&lock, &reader.resources.helpers, copy) {
            Ok(()) => written = written.saturating_add(1),
            Err(error) if error == EROFS => {
                progress.is_over = true;
                break;
            }
            Err(_) if begin.elapsed() >= MOST_PATIENT => {
                // Under the extent bit. If there is no memory the device is tried again.
                let _ = progress.dead.push(device, GFP_NOWAIT);
            }
            Err(_) => {}
        }
    }
    Some(written)
}
