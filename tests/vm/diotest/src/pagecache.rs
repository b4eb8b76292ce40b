// SPDX-License-Identifier: GPL-2.0

//! How many pages of a file are in the page cache.

use crate::buffer::BLOCK;
use crate::sys;
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

/// Pages of `file` that mincore(2) finds. Looking does not bring any in.
pub fn pages(file: &File) -> io::Result<usize> {
    let len = file.metadata()?.len() as usize;
    if len == 0 {
        return Ok(0);
    }
    let mut present = vec![0u8; len.div_ceil(BLOCK)];
    // SAFETY: A new mapping, of which nothing is touched, with an answer vector
    // of one byte for each page; unmapped before anybody else knows of it.
    unsafe {
        let fd = file.as_raw_fd();
        let ptr = libc::mmap(
            std::ptr::null_mut(),
            len,
            libc::PROT_READ,
            libc::MAP_SHARED,
            fd,
            0,
        );
        if ptr == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let result = sys::check(libc::mincore(ptr, len, present.as_mut_ptr()) as isize);
        libc::munmap(ptr, len);
        result?;
    }
    Ok(present.iter().filter(|&&p| p & 1 != 0).count())
}

/// `Cached` of /proc/meminfo, in KiB.
pub fn cached_kib() -> io::Result<u64> {
    let text = std::fs::read_to_string("/proc/meminfo")?;
    let line = text.lines().find(|l| l.starts_with("Cached:"));
    let value = line.and_then(|l| l.split_whitespace().nth(1));
    value
        .and_then(|v| v.parse().ok())
        .ok_or_else(|| io::Error::other("no Cached in /proc/meminfo"))
}
