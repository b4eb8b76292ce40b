// SPDX-License-Identifier: GPL-2.0

//! Paths: where a search in a tree of btrfs has ended, with locks on what it has passed.
//!
//! C header: [`fs/btrfs/ctree.h`](srctree/fs/btrfs/ctree.h)

use crate::bindings;

/// A path, which releases what it holds when it is dropped.
///
/// # Invariants
///
/// `0` is a path that only functions of btrfs have filled.
pub(super) struct Path(pub(super) bindings::btrfs_path);

impl Path {
    /// Makes an empty path. On the stack, as `BTRFS_PATH_AUTO_RELEASE()` does it.
    pub(super) fn new() -> Self {
        // INVARIANT: An empty path is all zeros.
        Self(bindings::btrfs_path::default())
    }

    /// Makes the search use the commit root, which needs no locks but `commit_root_sem`.
    pub(super) fn search_commit_root(&mut self, yes: bool) {
        self.0.set_search_commit_root(yes);
        self.0.set_skip_locking(yes);
    }

    /// Makes the search read the leaves that follow ahead.
    pub(super) fn read_ahead(&mut self) {
        // CAST: One of few values, that C keeps in a byte as well.
        self.0.reada = bindings::READA_FORWARD as u8;
    }

    /// Makes the search fail with `EAGAIN` where it would have to wait.
    pub(super) fn nowait(&mut self) {
        self.0.set_nowait(true);
    }

    /// Gives back all locks and references.
    pub(super) fn release(&mut self) {
        // SAFETY: By the type invariants the path is one that btrfs has filled.
        unsafe { bindings::btrfs_release_path(&mut self.0) }
    }
}

impl Drop for Path {
    fn drop(&mut self) {
        self.release();
    }
}
