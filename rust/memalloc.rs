// SPDX-License-Identifier: GPL-2.0

//! Scopes in which allocations must not enter the filesystem, and how much memory there is.
//!
//! C header: [`include/linux/sched/mm.h`](srctree/include/linux/sched/mm.h)

use crate::bindings;
use kernel::types::NotThreadSafe;

/// While it lives, every allocation of this task behaves as with `GFP_NOFS`, or as the scope was told.
///
/// Needed wherever a lock is held that memory reclaim may want: under the extent bit, writing back
/// a dirty folio of the same file would wait for us. Task context.
///
/// # Invariants
///
/// `flags` is what `memalloc_flags_save()` of the current task returned.
#[must_use = "the scope ends when this is dropped"]
pub(crate) struct Scope {
    flags: u32,
    _not_send: NotThreadSafe,
}

impl Scope {
    /// Enters the scope of `GFP_NOFS`. Scopes nest, and the inner one must end first.
    pub(crate) fn nofs() -> Self {
        Self {
            // INVARIANT: Just returned by the function.
            // SAFETY: It only sets a flag of the current task.
            flags: unsafe { bindings::bdio_memalloc_nofs_save() },
            _not_send: NotThreadSafe,
        }
    }
}

impl Drop for Scope {
    fn drop(&mut self) {
        // SAFETY: By the type invariants `flags` comes from the matching save, and as the type is
        // not `Send`, of this task.
        unsafe { bindings::bdio_memalloc_flags_restore(self.flags) }
    }
}

/// Returns how much memory there is that the kernel can allocate for itself, in bytes.
pub(crate) fn memory() -> usize {
    // SAFETY: A question about numbers.
    unsafe { bindings::bdio_memory() }
}

/// The scopes that a task is in, for a worker that does something on its behalf: whoever waits for the
/// task, and must not be waited for by it, waits for the worker.
#[derive(Clone, Copy)]
pub(crate) struct Inherited(u32);

impl Inherited {
    /// Looks at what this task is in. Task context.
    pub(crate) fn of_this_task() -> Self {
        // SAFETY: It only looks at the current task.
        Self(unsafe { bindings::bdio_memalloc_flags() })
    }

    /// Enters the same scopes. Task context.
    pub(crate) fn enter(self) -> Scope {
        Scope {
            // INVARIANT: Just returned by the function.
            // SAFETY: It only sets flags of the current task.
            flags: unsafe { bindings::bdio_memalloc_flags_save(self.0) },
            _not_send: NotThreadSafe,
        }
    }
}
