// SPDX-License-Identifier: GPL-2.0

//! What C declares: here a `struct page` is the page itself.
#![allow(non_camel_case_types)]

use crate::page::PAGE_SIZE;
use core::ffi::c_void;

/// A page. Those that follow each other in memory are contiguous.
#[derive(Clone)]
#[repr(C, align(4096))]
pub struct page {
    pub bytes: [u8; PAGE_SIZE],
}

/// Contiguous memory.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct bio_vec {
    pub bv_page: *mut page,
    pub bv_len: u32,
    pub bv_offset: u32,
}

/// Maps a page.
///
/// # Safety
///
/// It must be one.
#[cfg(not(CONFIG_HIGHMEM))]
pub unsafe fn kmap_local_page(page: *mut page) -> *mut c_void {
    page.cast()
}

/// Undoes that.
///
/// # Safety
///
/// `addr` must be of the last page that was mapped.
#[cfg(not(CONFIG_HIGHMEM))]
pub unsafe fn kunmap_local(addr: *const c_void) {
    let _ = addr;
}

#[cfg(CONFIG_HIGHMEM)]
pub use alone::{kmap_local_page, kunmap_local};

/// Pages that are mapped one by one: whoever writes to what is beside one is found out.
#[cfg(CONFIG_HIGHMEM)]
mod alone {
    use super::{c_void, page, PAGE_SIZE};
    use std::cell::RefCell;

    const BESIDE: page = page {
        bytes: [0x96; PAGE_SIZE],
    };

    thread_local! {
        /// What is mapped, with something beside it, and where it belongs.
        static MAPPED: RefCell<Vec<(Box<[page; 3]>, *mut page)>> = const { RefCell::new(Vec::new()) };
    }

    /// Maps a page.
    ///
    /// # Safety
    ///
    /// It must be one, which nobody else uses.
    pub unsafe fn kmap_local_page(page: *mut page) -> *mut c_void {
        // SAFETY: By the contract.
        let there = unsafe { (*page).clone() };
        let mut three = Box::new([BESIDE, there, BESIDE]);
        let addr = (&raw mut three[1]).cast();
        MAPPED.with_borrow_mut(|mapped| mapped.push((three, page)));
        addr
    }

    /// Undoes that.
    ///
    /// # Safety
    ///
    /// `addr` must be of the last page that was mapped.
    pub unsafe fn kunmap_local(addr: *const c_void) {
        let last = MAPPED.with_borrow_mut(Vec::pop);
        let (mut three, page) = last.expect("nothing is mapped");
        assert!(
            (&raw mut three[1]).cast_const().cast() == addr,
            "not the last one"
        );
        assert!(
            three[0].bytes == BESIDE.bytes && three[2].bytes == BESIDE.bytes,
            "written beside a page"
        );
        // Who looks at it later is not to find what was there.
        let [_, there, _] = core::mem::replace(&mut *three, [BESIDE; 3]);
        // SAFETY: By the contract it was mapped, and is nobody else's.
        unsafe { *page = there }
    }
}
