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
pub unsafe fn kmap_local_page(page: *mut page) -> *mut c_void {
    page.cast()
}

/// Undoes that.
///
/// # Safety
///
/// `addr` must be of the last page that was mapped.
pub unsafe fn kunmap_local(addr: *const c_void) {
    let _ = addr;
}
