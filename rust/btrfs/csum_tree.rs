// SPDX-License-Identifier: GPL-2.0

//! The checksum tree.
//!
//! C header: [`fs/btrfs/file-item.h`](srctree/fs/btrfs/file-item.h)

use super::{
    fs::FsInfo,
    path::Path, //
};
use crate::{
    bindings,
    safe::patience::Patience, //
};
use kernel::{
    bindings as kbindings,
    error::to_result,
    prelude::*, //
};

/// Blocks that one search looks up at most: the size of the bitmap on the stack.
const MAX_BLOCKS: usize = 1024;
const WORD_BITS: usize = usize::BITS as usize;

/// Looks up the checksums of the blocks from `logical` on into `out`, one after the other.
///
/// How many follows from the length of `out`. If the space is of an extent of a file that is current
/// afterwards, then they are those of its content. With
/// `generation`, the one of the extent, a search may be answered by the last committed tree without
/// taking locks of the present one: a lookup there of an extent that is referenced can miss, if it
/// was relocated since, but not be wrong (`btrfs_lookup_bio_sums()`, fs/btrfs/file-item.c).
///
/// Returns `false` if one of them is missing. Sleeps, or fails with `EAGAIN`, as `patience` says.
/// `EIO`, `EUCLEAN`, `ENOMEM` as for any metadata; `EINVAL` if `out` is no multiple of `digest_size`.
pub(crate) fn lookup(
    fs: FsInfo<'_>,
    logical: u64,
    generation: u64,
    digest_size: usize,
    out: &mut [u8],
    patience: Patience,
) -> Result<bool> {
    let block = u64::from(fs.block_size());
    let chunk = MAX_BLOCKS.saturating_mul(digest_size);
    if digest_size == 0 || out.len() % digest_size != 0 {
        return Err(EINVAL);
    }
    // SAFETY: The filesystem is mounted.
    let root = unsafe { bindings::btrfs_csum_root(fs.as_raw(), logical) };
    if root.is_null() {
        return Err(EUCLEAN);
    }
    let committed = generation != 0 && generation < fs.epoch();
    let mut at = logical;
    for out in out.chunks_mut(chunk) {
        let blocks = out.len() / digest_size;
        // CAST: Widening.
        let len = block.checked_mul(blocks as u64).ok_or(EINVAL)?;
        let end = at.checked_add(len).ok_or(EUCLEAN)?;
        let search = Search {
            root,
            start: at,
            last: end.saturating_sub(1),
            blocks,
            per_leaf: fs.checksums_per_leaf(),
            patience,
        };
        let found = (committed && search.commit_root(fs, out)?) || search.live_root(out)?;
        if !found {
            return Ok(false);
        }
        at = end;
    }
    Ok(true)
}

/// One search.
///
/// # Invariants
///
/// * `root` is the checksum root of a mounted filesystem.
/// * `start..=last` is a range of `blocks` blocks, at most [`MAX_BLOCKS`].
struct Search {
    root: *mut bindings::btrfs_root,
    start: u64,
    last: u64,
    blocks: usize,
    /// How many checksums a leaf of the tree has room for.
    per_leaf: usize,
    patience: Patience,
}

impl Search {
    /// Searches the last committed tree.
    fn commit_root(&self, fs: FsInfo<'_>, out: &mut [u8]) -> Result<bool> {
        let fs_info = fs.as_raw();
        let mut path = Path::new();
        path.search_commit_root(true);
        // SAFETY: The filesystem is mounted. The semaphore is held over the whole search, so that
        // no commit comes between two of its steps; it is released by the task that took it.
        unsafe {
            let sem = &raw mut (*fs_info).commit_root_sem;
            match self.patience {
                Patience::Wait => kbindings::down_read(sem),
                Patience::Nowait if kbindings::down_read_trylock(sem) == 1 => {}
                Patience::Nowait => return Err(EAGAIN),
            }
            let found = self.run(&mut path, out);
            path.release();
            kbindings::up_read(sem);
            found
        }
    }

    /// Searches the present tree.
    fn live_root(&self, out: &mut [u8]) -> Result<bool> {
        self.run(&mut Path::new(), out)
    }

    /// Searches with `path`, which must be empty.
    fn run(&self, path: &mut Path, out: &mut [u8]) -> Result<bool> {
        if self.blocks <= WORD_BITS {
            return self.run_with(path, out, &mut [0; 1]);
        }
        self.run_with(path, out, &mut [0; MAX_BLOCKS / WORD_BITS])
    }

    /// Searches, with a bitmap of zeros that has room for a bit for each block.
    fn run_with(&self, path: &mut Path, out: &mut [u8], bitmap: &mut [usize]) -> Result<bool> {
        match self.patience {
            Patience::Nowait => path.nowait(),
            Patience::Wait if self.blocks > self.per_leaf => path.read_ahead(),
            Patience::Wait => {}
        }
        // SAFETY: The root is valid by the type invariants. By the same, `out` has room for the
        // digest of each block, and `bitmap` a bit for it.
        to_result(unsafe {
            bindings::btrfs_lookup_csums_bitmap(
                self.root,
                &mut path.0,
                self.start,
                self.last,
                out.as_mut_ptr(),
                bitmap.as_mut_ptr(),
            )
        })?;
        let found: usize = bitmap.iter().map(|word| word.count_ones() as usize).sum();
        Ok(found == self.blocks)
    }
}
