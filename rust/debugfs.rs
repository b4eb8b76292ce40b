// SPDX-License-Identifier: GPL-2.0

//! A file in debugfs.
//!
//! Not the abstraction of the kernel crate: its files do not keep the module that implements them,
//! so closing one that was opened before the module went away runs code that is gone.
//!
//! C header: [`include/linux/debugfs.h`](srctree/include/linux/debugfs.h)

use crate::bindings;
use core::marker::PhantomData;
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

/// A directory with one file, which vanish when this is dropped.
///
/// # Invariants
///
/// `dir` is what creating the directory returned.
pub(crate) struct File<T: Show> {
    dir: *mut kbindings::dentry,
    _show: PhantomData<T>,
}

// SAFETY: A directory may be removed by any task.
unsafe impl<T: Show> Send for File<T> {}
// SAFETY: A shared reference is of no use.
unsafe impl<T: Show> Sync for File<T> {}

impl<T: Show> File<T> {
    /// Makes `file` in `dir`. If that fails there is none, as is the custom of debugfs. May sleep.
    pub(crate) fn new(dir: &CStr, file: &CStr) -> Self {
        Self {
            // INVARIANT: As said.
            // SAFETY: The names are strings. The function may be called for as long as the file
            // exists or is open: its owner is this module.
            dir: unsafe {
                bindings::bdio_debugfs_create(
                    dir.as_char_ptr(),
                    file.as_char_ptr(),
                    Some(show::<T>),
                )
            },
            _show: PhantomData,
        }
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

impl<T: Show> Drop for File<T> {
    fn drop(&mut self) {
        // SAFETY: By the type invariants; an error that was returned is ignored by the function.
        // On return the callback does not run any more.
        unsafe { bindings::bdio_debugfs_remove(self.dir) }
    }
}
