// SPDX-License-Identifier: GPL-2.0

//! Memory of our own that devices write into.
//!
//! Nobody else sees it, so what has been verified in it stays verified.
//!
//! C header: [`include/linux/mm.h`](srctree/include/linux/mm.h)

use super::{
    patience::Patience,
    vecs::Vecs, //
};
use crate::bindings;
use core::{
    mem::ManuallyDrop,
    ptr::NonNull, //
};
use kernel::{
    bindings as kbindings,
    page::PAGE_SIZE,
    prelude::*, //
};

/// Memory of `kvmalloc()`.
///
/// # Invariants
///
/// It is ours.
struct Memory(NonNull<u8>);

impl Memory {
    /// Allocates `len` bytes, which are charged to the memory cgroup of the current task, or to that
    /// which a worker works for. `ENOMEM`. Sleeps if `patience` says so.
    fn new(len: usize, patience: Patience) -> Result<Self> {
        // SAFETY: It only allocates.
        let memory = unsafe { bindings::bdio_alloc_bounce(len, patience == Patience::Wait) };
        // INVARIANT: Just allocated.
        Ok(Self(NonNull::new(memory.cast()).ok_or(ENOMEM)?))
    }

    /// Gives it away, to be freed by `kvfree()`.
    fn into_raw(self) -> NonNull<u8> {
        ManuallyDrop::new(self).0
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: By the type invariants.
        unsafe { kbindings::kvfree(self.0.as_ptr().cast()) }
    }
}

/// A buffer of whole pages that is private to us.
///
/// # Invariants
///
/// * `memory` is of `kvmalloc()`, ours, has room for `len` bytes, and starts at the beginning of a
///   page.
/// * `first` describes all of it if it is physically contiguous; if not, `rest` does, page by page.
pub(crate) struct PrivateBuffer {
    memory: NonNull<u8>,
    len: usize,
    first: kbindings::bio_vec,
    rest: KVVec<kbindings::bio_vec>,
}

// SAFETY: The vectors point to the pages of `memory`, which is ours and may be used by any task.
unsafe impl Send for PrivateBuffer {}
// SAFETY: By reference nothing is changed but through raw pointers.
unsafe impl Sync for PrivateBuffer {}

impl PrivateBuffer {
    /// Allocates a buffer of `len` bytes, in whole pages. What it holds is not defined until a
    /// device has written it.
    ///
    /// `ENOMEM`; `EINVAL` for a length of 0. Sleeps if `patience` says so.
    pub(crate) fn new(len: usize, patience: Patience) -> Result<Self> {
        if len == 0 {
            return Err(EINVAL);
        }
        let whole = len.checked_next_multiple_of(PAGE_SIZE).ok_or(EINVAL)?;
        let memory = Memory::new(whole, patience)?;
        let ptr = memory.0.as_ptr();
        if ptr.addr() % PAGE_SIZE != 0 {
            return Err(EINVAL);
        }
        let mut rest = KVVec::new();
        let vec = |offset: usize, len: usize| kbindings::bio_vec {
            // SAFETY: `offset` is within the memory, which is of `kvmalloc()`.
            bv_page: unsafe { bindings::bdio_kv_to_page(ptr.add(offset).cast()) },
            // CAST: A buffer is much shorter than 4 GiB: `u32::try_from()` below.
            bv_len: len as u32,
            bv_offset: 0,
        };
        u32::try_from(len).map_err(|_| EINVAL)?;
        // SAFETY: A question about an address.
        if unsafe { bindings::bdio_is_vmalloc(ptr.cast()) } {
            for offset in (0..len).step_by(PAGE_SIZE) {
                rest.push(
                    vec(offset, PAGE_SIZE.min(len.saturating_sub(offset))),
                    patience.gfp(),
                )?;
            }
        }
        // INVARIANT: As said above; what `kmalloc()` returns is contiguous.
        Ok(Self {
            first: vec(0, len),
            memory: memory.into_raw(),
            len,
            rest,
        })
    }

    /// Returns the physical address of `len` bytes of it, from offset `at` on; `None` if there are not
    /// as many, or if they do not lie within a page.
    pub(super) fn physical(&self, at: usize, len: usize) -> Option<kbindings::phys_addr_t> {
        let fits = at.checked_add(len)? <= self.len;
        if !fits || len == 0 || (at % PAGE_SIZE).checked_add(len)? > PAGE_SIZE {
            return None;
        }
        // SAFETY: `at` is within the memory, which is of `kvmalloc()`.
        Some(unsafe { bindings::bdio_kv_to_phys(self.memory.as_ptr().add(at).cast()) })
    }

    /// Returns the memory, for devices to write into.
    pub(crate) fn vecs(&self) -> Vecs<'_> {
        let vecs = if self.rest.is_empty() {
            core::slice::from_ref(&self.first)
        } else {
            &self.rest
        };
        // SAFETY: By the type invariants, for as long as `self` is borrowed.
        unsafe { Vecs::new(vecs) }
    }
}

impl Drop for PrivateBuffer {
    fn drop(&mut self) {
        // SAFETY: By the type invariants the memory is of `kvmalloc()`, and ours.
        unsafe { kbindings::kvfree(self.memory.as_ptr().cast()) }
    }
}

/// Buffers that devices have written, and that nobody writes any more.
///
/// # Invariants
///
/// The buffers are borrowed as mutable for `'b`, and used through this only: what is submitted
/// borrows them until it has ended, so no device writes to them.
pub(crate) struct Filled<'b>(&'b [PrivateBuffer]);

impl<'b> Filled<'b> {
    /// Takes buffers that all that was submitted for has arrived in.
    pub(crate) fn new(buffers: &'b mut [PrivateBuffer]) -> Self {
        // INVARIANT: Borrowed as mutable.
        Self(buffers)
    }

    /// Returns what the buffer of this number holds.
    pub(crate) fn bytes(&self, number: usize) -> Option<&'b [u8]> {
        let buffer = self.0.get(number)?;
        // SAFETY: By the invariants of the buffer there are `len` bytes, and by those of this type
        // nobody writes them. All of them have been written by a device, or are what the allocator
        // left there: bytes of an unknown value, which is one all the same.
        Some(unsafe { core::slice::from_raw_parts(buffer.memory.as_ptr(), buffer.len) })
    }
}
