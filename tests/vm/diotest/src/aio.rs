// SPDX-License-Identifier: GPL-2.0

//! One read at a time through the asynchronous interfaces.

use crate::buffer::Region;
use crate::sys;
use anyhow::{Context, Result, anyhow, ensure};
use io_uring::{IoUring, opcode, types};
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

/// `struct iocb` of linux/aio_abi.h.
#[repr(C)]
#[derive(Default)]
struct Iocb {
    data: u64,
    key: u32,
    rw_flags: i32,
    opcode: u16,
    reqprio: i16,
    fildes: u32,
    buf: u64,
    nbytes: u64,
    offset: i64,
    reserved: u64,
    flags: u32,
    resfd: u32,
}

/// `struct io_event` of linux/aio_abi.h.
#[repr(C)]
#[derive(Default)]
struct Event {
    data: u64,
    obj: u64,
    res: i64,
    res2: i64,
}

/// A context that is destroyed on drop.
struct Queue(u64);

impl Drop for Queue {
    fn drop(&mut self) {
        // SAFETY: A context id, by value.
        unsafe { libc::syscall(libc::SYS_io_destroy, self.0) };
    }
}

/// Reads by io_submit(2).
pub fn libaio(file: &File, region: &Region, offset: u64) -> Result<usize> {
    let mut id = 0u64;
    // SAFETY: The kernel stores an id in `id`.
    sys::check(unsafe { libc::syscall(libc::SYS_io_setup, 1, &raw mut id) } as isize)
        .context("io_setup")?;
    let context = Queue(id);
    let len = region.bytes().len();
    let iov = region.iovec(0..len);
    let mut iocb = Iocb {
        // IOCB_CMD_PREAD is zero.
        fildes: file.as_raw_fd() as u32,
        buf: iov.iov_base as u64,
        nbytes: len as u64,
        offset: offset as i64,
        ..Iocb::default()
    };
    let mut list = [&raw mut iocb];
    // SAFETY: One control block, and its buffer, that outlive the request: it is
    // waited for right below.
    let submitted =
        sys::check(
            unsafe { libc::syscall(libc::SYS_io_submit, context.0, 1, list.as_mut_ptr()) } as isize,
        )
        .context("io_submit")?;
    ensure!(submitted == 1, "io_submit took {submitted}");
    let mut event = Event::default();
    let none = std::ptr::null_mut::<libc::timespec>();
    // SAFETY: Room for one event.
    sys::check(unsafe {
        libc::syscall(
            libc::SYS_io_getevents,
            context.0,
            1,
            1,
            &raw mut event,
            none,
        )
    } as isize)
    .context("io_getevents")?;
    result(event.res)
}

/// Reads by io_uring.
pub fn uring(file: &File, region: &Region, offset: u64) -> Result<usize> {
    let mut ring = IoUring::new(4).context("io_uring_setup")?;
    let iov = region.iovec(0..region.bytes().len());
    let entry = opcode::Read::new(
        types::Fd(file.as_raw_fd()),
        iov.iov_base.cast(),
        iov.iov_len as u32,
    )
    .offset(offset)
    .build();
    // SAFETY: The buffer outlives the request: it is waited for right below.
    unsafe { ring.submission().push(&entry) }.context("io_uring: queue full")?;
    ring.submit_and_wait(1).context("io_uring_enter")?;
    let entry = ring.completion().next();
    let entry = entry.ok_or_else(|| anyhow!("io_uring: no completion"))?;
    result(entry.result().into())
}

fn result(res: i64) -> Result<usize> {
    match usize::try_from(res) {
        Ok(count) => Ok(count),
        Err(_) => Err(io::Error::from_raw_os_error(-res as i32).into()),
    }
}
