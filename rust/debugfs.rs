// SPDX-License-Identifier: GPL-2.0

//! Files in debugfs.
//!
//! Not the abstraction of the kernel crate: its files do not keep the module that implements them,
//! so closing one that was opened before the module went away runs code that is gone.
//!
//! C header: [`include/linux/debugfs.h`](srctree/include/linux/debugfs.h)

use crate::bindings;
use kernel::{
    bindings as kbindings,
    prelude::*,
    seq_file::SeqFile, //
};

/// What a file shows.
pub(crate) trait Show {
    /// Prints it. Task context, may sleep.
    fn show(file: &SeqFile);
}

/// A directory with files, which vanish when this is dropped.
///
/// # Invariants
///
/// `dir` is what creating the directory returned.
pub(crate) struct Dir {
    dir: *mut kbindings::dentry,
}

// SAFETY: A directory may be removed by any task.
unsafe impl Send for Dir {}
// SAFETY: Files may be added by any task.
unsafe impl Sync for Dir {}

impl Dir {
    /// Makes a directory. If that fails there is none, as is the custom of debugfs. May sleep.
    pub(crate) fn new(name: &CStr) -> Self {
        Self {
            // INVARIANT: As said.
            // SAFETY: The name is a string.
            dir: unsafe { bindings::bdio_debugfs_create(name.as_char_ptr()) },
        }
    }

    /// Adds a file. May sleep.
    pub(crate) fn add<T: Show>(&self, name: &CStr) {
        // SAFETY: By the type invariants; an error is passed on. The name is a string. The function
        // may be called for as long as the file exists or is open: its owner is this module.
        unsafe { bindings::bdio_debugfs_file(self.dir, name.as_char_ptr(), Some(show::<T>)) }
    }
}

/// The callback of the file.
///
/// # Safety
///
/// Only for `bdio_file_show()` to call, with the file that is being shown.
unsafe extern "C" fn show<T: Show>(file: *mut kbindings::seq_file) {
    // SAFETY: The file is valid for the duration of this call.
    T::show(unsafe { SeqFile::from_raw(file) })
}

impl Drop for Dir {
    fn drop(&mut self) {
        // SAFETY: By the type invariants; an error that was returned is ignored by the function.
        // On return the callback does not run any more.
        unsafe { bindings::bdio_debugfs_remove(self.dir) }
    }
}
