// SPDX-License-Identifier: GPL-2.0

//! Files that are kept open.
//!
//! C header: [`include/linux/file.h`](srctree/include/linux/file.h)

use core::ptr::NonNull;
use kernel::bindings;

/// A reference to an open file, and by it to its inode and its filesystem, which cannot be unmounted
/// meanwhile.
///
/// # Invariants
///
/// `file` is a reference of ours.
pub(crate) struct OpenFile {
    file: NonNull<bindings::file>,
}

// SAFETY: A reference to a file may be given back by any task.
unsafe impl Send for OpenFile {}
// SAFETY: By reference nothing is done with it.
unsafe impl Sync for OpenFile {}

impl OpenFile {
    /// Keeps it open once more.
    pub(crate) fn again(&self) -> Self {
        // SAFETY: By the type invariants the file is there. A reference is taken.
        // INVARIANT: It is ours.
        unsafe { bindings::get_file(self.file.as_ptr()) };
        Self { file: self.file }
    }

    /// Takes over a reference; `None` for null.
    ///
    /// # Safety
    ///
    /// It must be the caller's.
    pub(super) unsafe fn from_raw(file: *mut bindings::file) -> Option<Self> {
        // INVARIANT: By the contract.
        NonNull::new(file).map(|file| Self { file })
    }
}

impl Drop for OpenFile {
    fn drop(&mut self) {
        // SAFETY: By the type invariants.
        unsafe { bindings::fput(self.file.as_ptr()) }
    }
}
