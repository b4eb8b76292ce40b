// SPDX-License-Identifier: GPL-2.0

//! Scopes in which allocations must not enter the filesystem.
//!
//! C header: [`include/linux/sched/mm.h`](srctree/include/linux/sched/mm.h)

use crate::bindings;
use kernel::types::NotThreadSafe;

/// While it lives, every allocation of this task behaves as with `GFP_NOFS`.
///
/// Needed wherever a lock is held that memory reclaim may want: under the extent bit, writing back
/// a dirty folio of the same file would wait for us. Task context.
///
/// # Invariants
///
/// `flags` is what `memalloc_nofs_save()` of the current task returned.
#[must_use = "the scope ends when this is dropped"]
pub(crate) struct NofsScope {
    flags: u32,
    _not_send: NotThreadSafe,
}

impl NofsScope {
    /// Enters the scope. Scopes nest, and the inner one must end first.
    pub(crate) fn enter() -> Self {
        Self {
            // INVARIANT: Just returned by the function.
            // SAFETY: It only sets a flag of the current task.
            flags: unsafe { bindings::bdio_memalloc_nofs_save() },
            _not_send: NotThreadSafe,
        }
    }
}

impl Drop for NofsScope {
    fn drop(&mut self) {
        // SAFETY: By the type invariants `flags` comes from the matching save, and as the type is
        // not `Send`, of this task.
        unsafe { bindings::bdio_memalloc_nofs_restore(self.flags) }
    }
}
