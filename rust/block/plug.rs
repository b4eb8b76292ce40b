// SPDX-License-Identifier: GPL-2.0

//! Plugs: bios that are submitted together reach their devices together.
//!
//! C header: [`include/linux/blkdev.h`](srctree/include/linux/blkdev.h)

use core::mem::MaybeUninit;
use kernel::bindings;

/// Calls `f` with a plug in place. Task context; `f` must not wait for what it submits.
pub(crate) fn plugged<R>(f: impl FnOnce() -> R) -> R {
    let mut plug = MaybeUninit::<bindings::blk_plug>::uninit();
    // SAFETY: `plug` stays where it is until the matching call below, which is made by the same
    // task: panics do not unwind in the kernel. An outer plug of the task makes both no-ops.
    unsafe { bindings::blk_start_plug(plug.as_mut_ptr()) };
    let ret = f();
    // SAFETY: Started above.
    unsafe { bindings::blk_finish_plug(plug.as_mut_ptr()) };
    ret
}
