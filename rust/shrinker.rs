// SPDX-License-Identifier: GPL-2.0

//! What can be given back when memory is short.
//!
//! C header: [`include/linux/shrinker.h`](srctree/include/linux/shrinker.h)

use crate::bindings;
use core::ptr::NonNull;
use kernel::{
    bindings as kbindings,
    prelude::*,
    sync::Arc, //
};

/// Something that memory can be had from.
///
/// Both functions are called by whoever needs memory, under whatever lock that task holds: neither
/// may allocate, nor wait for a lock that somebody allocates under.
pub(crate) trait Shrink: Send + Sync + 'static {
    /// The name in debugfs.
    const NAME: &'static CStr;

    /// Returns how many pages can be freed. A guess is enough.
    fn count(&self) -> usize;

    /// Frees about `pages` pages, and returns how many it freed.
    fn scan(&self, pages: usize) -> usize;
}

/// The registration of a [`Shrink`], which lasts until it is dropped. Holds a reference to it.
///
/// # Invariants
///
/// `shrinker` is registered, with the callbacks for `T` and a pointer to `*target`.
pub(crate) struct Shrinker<T: Shrink> {
    shrinker: NonNull<kbindings::shrinker>,
    target: Arc<T>,
}

// SAFETY: A shrinker may be freed by any task; an `Arc` of a `Shrink` may be sent.
unsafe impl<T: Shrink> Send for Shrinker<T> {}
// SAFETY: All that is done through a shared reference is to look at `target`, which is `Sync`.
unsafe impl<T: Shrink> Sync for Shrinker<T> {}

impl<T: Shrink> Shrinker<T> {
    /// Registers `target`. May sleep; fails with `ENOMEM`.
    pub(crate) fn new(target: Arc<T>) -> Result<Self> {
        // SAFETY: The name is a string, of which a copy is made.
        let shrinker = unsafe { bindings::bdio_shrinker_alloc(T::NAME.as_char_ptr()) };
        let shrinker = NonNull::new(shrinker).ok_or(ENOMEM)?;
        // SAFETY: The shrinker is valid, and nobody else's until it is registered. The callbacks
        // find `*target`, which does not move and exists as long as the registration.
        // INVARIANT: As just done.
        unsafe {
            let raw = shrinker.as_ptr();
            (*raw).count_objects = Some(count_callback::<T>);
            (*raw).scan_objects = Some(scan_callback::<T>);
            (*raw).private_data = Arc::as_ptr(&target).cast_mut().cast();
            kbindings::shrinker_register(raw);
        }
        Ok(Self { shrinker, target })
    }

    /// Returns what is registered.
    pub(crate) fn target(&self) -> &Arc<T> {
        &self.target
    }
}

impl<T: Shrink> Drop for Shrinker<T> {
    fn drop(&mut self) {
        // SAFETY: By the type invariants it is registered. On return no callback runs, and none
        // will any more; `target` is dropped after that.
        unsafe { kbindings::shrinker_free(self.shrinker.as_ptr()) }
    }
}

/// Finds what a shrinker shrinks.
///
/// # Safety
///
/// `shrinker` must be that of a [`Shrinker<T>`] that is not dropped before the end of `'a`.
unsafe fn target<'a, T: Shrink>(shrinker: *mut kbindings::shrinker) -> &'a T {
    // SAFETY: By the contract, and the type invariants of `Shrinker`.
    unsafe { &*(*shrinker).private_data.cast::<T>() }
}

// CAST: Back to what they are in C.
const SHRINK_EMPTY: usize = bindings::BDIO_SHRINK_EMPTY as usize;
const SHRINK_STOP: usize = bindings::BDIO_SHRINK_STOP as usize;

/// The callback that counts.
///
/// # Safety
///
/// Only for the core of memory management to call, with a shrinker that is registered.
unsafe extern "C" fn count_callback<T: Shrink>(
    shrinker: *mut kbindings::shrinker,
    _control: *mut kbindings::shrink_control,
) -> usize {
    // SAFETY: A registration waits for its callbacks before it goes away.
    match unsafe { target::<T>(shrinker) }.count() {
        0 => SHRINK_EMPTY,
        pages => pages.min(SHRINK_EMPTY >> 1),
    }
}

/// The callback that frees.
///
/// # Safety
///
/// As for [`count_callback`]; `control` must be valid.
unsafe extern "C" fn scan_callback<T: Shrink>(
    shrinker: *mut kbindings::shrinker,
    control: *mut kbindings::shrink_control,
) -> usize {
    // SAFETY: `control` is valid for the duration of this call.
    let pages = unsafe { (*control).nr_to_scan };
    // SAFETY: As in `count_callback()`.
    match unsafe { target::<T>(shrinker) }.scan(pages) {
        0 => SHRINK_STOP,
        freed => freed.min(SHRINK_EMPTY >> 1),
    }
}
