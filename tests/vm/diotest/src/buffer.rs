// SPDX-License-Identifier: GPL-2.0

//! Memory to read into: mappings of their own, page aligned and poisoned, so
//! that every byte the kernel should not have touched can be told.

use crate::sys;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::fd::{AsRawFd, FromRawFd};
use std::ptr::NonNull;

/// What memory that was never written holds.
pub const POISON: u8 = 0xa5;

/// Size of a page, and of a block of every file system here.
pub const BLOCK: usize = 4096;

/// A mapping, unmapped on drop.
pub struct Region {
    ptr: NonNull<u8>,
    len: usize,
}

// SAFETY: A mapping belongs to the process, not to a thread.
unsafe impl Send for Region {}

impl Region {
    fn map(len: usize, prot: i32, flags: i32, fd: i32) -> io::Result<Self> {
        // SAFETY: A new mapping at an address of the kernel's choice.
        let ptr = unsafe { libc::mmap(std::ptr::null_mut(), len, prot, flags, fd, 0) };
        if ptr == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let ptr = NonNull::new(ptr.cast()).expect("a mapping is never at zero");
        Ok(Self { ptr, len })
    }

    /// Anonymous memory full of poison.
    pub fn new(len: usize) -> io::Result<Self> {
        let mut region = Self::untouched(len)?;
        region.bytes_mut().fill(POISON);
        Ok(region)
    }

    /// Anonymous memory that is not there until it is touched.
    pub fn untouched(len: usize) -> io::Result<Self> {
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        Self::map(len, libc::PROT_READ | libc::PROT_WRITE, flags, -1)
    }

    /// Anonymous memory of huge pages reserved by the administrator.
    pub fn hugetlb(len: usize) -> io::Result<Self> {
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_HUGETLB;
        let mut region = Self::map(len, libc::PROT_READ | libc::PROT_WRITE, flags, -1)?;
        region.bytes_mut().fill(POISON);
        Ok(region)
    }

    /// Anonymous memory that the kernel is asked to back by huge pages.
    pub fn transparent(len: usize) -> io::Result<Self> {
        let mut region = Self::untouched(len)?;
        // SAFETY: The mapping is ours.
        unsafe { libc::madvise(region.ptr.as_ptr().cast(), len, libc::MADV_HUGEPAGE) };
        region.bytes_mut().fill(POISON);
        Ok(region)
    }

    /// The pages of a file.
    pub fn of_file(file: &File, len: usize) -> io::Result<Self> {
        let prot = libc::PROT_READ | libc::PROT_WRITE;
        Self::map(len, prot, libc::MAP_SHARED, file.as_raw_fd())
    }

    /// Has pages of a file come in only when they are touched.
    pub fn no_readahead(&mut self) -> io::Result<()> {
        // SAFETY: The mapping is ours.
        let ret = unsafe { libc::madvise(self.ptr.as_ptr().cast(), self.len, libc::MADV_RANDOM) };
        sys::check(ret as isize).map(drop)
    }

    /// `len` bytes of addresses, all of which are the same `unit` bytes of memory.
    pub fn alias(len: usize, unit: usize) -> io::Result<Self> {
        // SAFETY: A NUL-terminated string.
        let fd = sys::check(unsafe { libc::memfd_create(c"alias".as_ptr(), 0) } as isize)?;
        // SAFETY: The descriptor was just made.
        let file = unsafe { File::from_raw_fd(fd as i32) };
        file.set_len(unit as u64)?;
        let mut region = Self::untouched(len)?;
        for at in (0..len).step_by(unit) {
            region.put(at..len.min(at + unit), &file, 0)?;
        }
        Ok(region)
    }

    /// Pages of a file, in this order.
    pub fn of_pages(file: &File, order: &[usize]) -> io::Result<Self> {
        let mut region = Self::untouched(order.len() * BLOCK)?;
        for (nr, &page) in order.iter().enumerate() {
            region.put(nr * BLOCK..(nr + 1) * BLOCK, file, page * BLOCK)?;
        }
        Ok(region)
    }

    /// Has a part of the addresses be what is in a file from `offset` on.
    fn put(&mut self, range: Range<usize>, file: &File, offset: usize) -> io::Result<()> {
        assert!(range.end <= self.len);
        // SAFETY: Replaces a part of the mapping, inside its bounds.
        let ptr = unsafe {
            libc::mmap(
                self.ptr.as_ptr().add(range.start).cast(),
                range.len(),
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED | libc::MAP_FIXED,
                file.as_raw_fd(),
                offset as libc::off_t,
            )
        };
        match ptr {
            libc::MAP_FAILED => Err(io::Error::last_os_error()),
            _ => Ok(()),
        }
    }

    /// Changes what may be done with a part of the memory. Parts that may not
    /// be read must not be looked at with [`Region::bytes`].
    pub fn protect(&mut self, range: Range<usize>, prot: i32) -> io::Result<()> {
        assert!(range.end <= self.len);
        // SAFETY: The range is inside the mapping.
        let ret = unsafe {
            let start = self.ptr.as_ptr().add(range.start);
            libc::mprotect(start.cast(), range.len(), prot)
        };
        sys::check(ret as isize).map(drop)
    }

    /// The memory.
    pub fn bytes(&self) -> &[u8] {
        // SAFETY: Mapped, and written by the kernel only in calls that are over.
        unsafe { std::slice::from_raw_parts(self.ptr.as_ptr(), self.len) }
    }

    /// The memory.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: Mapped, and borrowed mutably from its only owner.
        unsafe { std::slice::from_raw_parts_mut(self.ptr.as_ptr(), self.len) }
    }

    /// A part of the memory, while the kernel may be writing to others.
    pub fn part(&self, range: Range<usize>) -> &[u8] {
        assert!(range.start <= range.end && range.end <= self.len);
        // SAFETY: Inside the mapping; nobody writes to it unless told to.
        unsafe { std::slice::from_raw_parts(self.ptr.as_ptr().add(range.start), range.len()) }
    }

    /// A part of the memory, while the kernel may be writing to others.
    pub fn part_mut(&mut self, range: Range<usize>) -> &mut [u8] {
        assert!(range.start <= range.end && range.end <= self.len);
        // SAFETY: As for `part`, and borrowed mutably from its only owner.
        unsafe { std::slice::from_raw_parts_mut(self.ptr.as_ptr().add(range.start), range.len()) }
    }

    /// A part of the memory as the kernel wants it told.
    pub fn iovec(&self, range: Range<usize>) -> libc::iovec {
        assert!(range.start <= range.end && range.end <= self.len);
        libc::iovec {
            // SAFETY: Inside the mapping.
            iov_base: unsafe { self.ptr.as_ptr().add(range.start) }.cast(),
            iov_len: range.len(),
        }
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        // SAFETY: The mapping is ours and nothing borrows it any more.
        unsafe { libc::munmap(self.ptr.as_ptr().cast(), self.len) };
    }
}

/// Buffers for one vectored read, each with untouchable-by-contract memory
/// before and after it.
pub struct Buffers {
    region: Region,
    parts: Vec<Range<usize>>,
}

impl Buffers {
    /// Buffers of the given lengths, each `shift` bytes past a page boundary.
    pub fn new(lens: &[usize], shift: usize) -> io::Result<Self> {
        let mut parts = Vec::with_capacity(lens.len());
        let mut at = BLOCK;
        for &len in lens {
            parts.push(at + shift..at + shift + len);
            at += (shift + len).next_multiple_of(BLOCK) + BLOCK;
        }
        let region = Region::new(at)?;
        Ok(Self { region, parts })
    }

    /// As the kernel wants them told.
    pub fn iovecs(&self) -> Vec<libc::iovec> {
        let iovec = |part: &Range<usize>| self.region.iovec(part.clone());
        self.parts.iter().map(iovec).collect()
    }

    /// Does what a read of `bytes` would.
    pub fn deliver(&mut self, bytes: &[u8]) {
        let mut rest = bytes;
        for part in &self.parts {
            let (here, after) = rest.split_at(part.len().min(rest.len()));
            self.region.bytes_mut()[part.start..part.start + here.len()].copy_from_slice(here);
            rest = after;
        }
    }

    /// Changes one byte, of a buffer or between them.
    pub fn spoil(&mut self, at: usize) {
        self.region.bytes_mut()[at] ^= 0xff;
    }

    /// The first `count` bytes, one buffer after the other.
    pub fn gathered(&self, count: usize) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(count);
        for part in &self.parts {
            let left = part.len().min(count - bytes.len());
            bytes.extend_from_slice(&self.region.bytes()[part.start..part.start + left]);
        }
        bytes
    }

    /// Checks what a read of `want` into these buffers left behind.
    ///
    /// `slack` bytes after the last wanted one, in this or the next buffers, may
    /// hold anything; if it is `usize::MAX`, so may every byte of every buffer
    /// past the count.
    pub fn verify(&self, want: &[u8], mut slack: usize) -> Result<(), String> {
        let bytes = self.region.bytes();
        let mut done = 0;
        let mut edge = 0;
        for (i, part) in self.parts.iter().enumerate() {
            let got = &bytes[part.clone()];
            let here = &want[done..want.len().min(done + got.len())];
            if let Some(at) = first_difference(&got[..here.len()], here) {
                return Err(format!(
                    "first differing byte at +{} (vector {i} +{at}): got {:#04x}, wanted {:#04x}",
                    done + at,
                    got[at],
                    here[at]
                ));
            }
            // Whatever lies between this buffer and the one before it.
            if let Some(at) = first_touched(&bytes[edge..part.start]) {
                let before = part.start - edge - at;
                return Err(format!("touched {before} bytes before vector {i}"));
            }
            // The rest of a block may be in the next vector.
            let spare = if done + here.len() == want.len() && !want.is_empty() {
                let spare = slack.min(got.len() - here.len());
                slack -= if slack == usize::MAX { 0 } else { spare };
                spare
            } else {
                0
            };
            let free = match slack {
                usize::MAX => got.len(),
                _ => here.len() + spare,
            };
            if let Some(at) = first_touched(&got[free..]) {
                return Err(format!("touched vector {i} +{} past the count", free + at));
            }
            edge = part.end;
            done += here.len();
        }
        match first_touched(&bytes[edge..]) {
            Some(at) => Err(format!("touched {at} bytes after the last vector")),
            None => Ok(()),
        }
    }
}

/// Where two slices of one length first differ.
pub fn first_difference(a: &[u8], b: &[u8]) -> Option<usize> {
    if a == b {
        return None;
    }
    a.iter().zip(b).position(|(a, b)| a != b)
}

/// Where memory that should hold poison does not.
fn first_touched(bytes: &[u8]) -> Option<usize> {
    bytes.iter().position(|&b| b != POISON)
}
