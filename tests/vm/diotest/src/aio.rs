// SPDX-License-Identifier: GPL-2.0

//! Reads through the asynchronous interfaces, one at a time or many in flight.

use crate::sys;
use io_uring::{IoUring, opcode, squeue, types};
use std::cell::RefCell;
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

/// An asynchronous interface, and how it is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Engine {
    Libaio,
    Uring,
    /// Into memory that the ring was told of before. One vector only: several
    /// are read as by [`Engine::Uring`].
    UringFixed,
    /// Handed to a worker of the ring at once.
    UringAsync,
}

impl Engine {
    /// Every one.
    pub const ALL: [Self; 4] = [
        Self::Libaio,
        Self::Uring,
        Self::UringFixed,
        Self::UringAsync,
    ];

    /// A name for cases.
    pub fn name(self) -> &'static str {
        match self {
            Self::Libaio => "libaio",
            Self::Uring => "io_uring",
            Self::UringFixed => "io_uring_fixed",
            Self::UringAsync => "io_uring_async",
        }
    }
}

/// A read to be started.
pub struct Start<'a> {
    pub offset: u64,
    pub iov: &'a [libc::iovec],
    /// What its completion is told by.
    pub tag: u64,
}

/// A read that is over.
#[derive(Debug)]
pub struct Done {
    pub tag: u64,
    pub result: io::Result<usize>,
}

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

/// `IOCB_CMD_PREAD` is zero.
const IOCB_CMD_PREADV: u16 = 7;

/// `struct io_event` of linux/aio_abi.h.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Event {
    data: u64,
    obj: u64,
    res: i64,
    res2: i64,
}

/// A context of libaio, destroyed on drop, which waits for what is in flight.
struct Context(u64);

impl Context {
    fn new(depth: u32) -> io::Result<Self> {
        let mut id = 0u64;
        // SAFETY: The kernel stores an id in `id`.
        sys::check(unsafe { libc::syscall(libc::SYS_io_setup, depth, &raw mut id) } as isize)?;
        Ok(Self(id))
    }
}

impl Drop for Context {
    fn drop(&mut self) {
        // SAFETY: A context id, by value.
        unsafe { libc::syscall(libc::SYS_io_destroy, self.0) };
    }
}

enum Inner {
    Aio(Context),
    Ring(Box<IoUring>),
}

/// Somewhere to start reads and to be told of their ends.
///
/// Memory that is read into must stay mapped until its read is over, or until
/// nobody cares what is in it: the kernel holds the pages for itself.
pub struct Queue {
    engine: Engine,
    inner: Inner,
}

impl Queue {
    /// A queue for so many reads in flight.
    pub fn new(engine: Engine, depth: u32) -> io::Result<Self> {
        let inner = match engine {
            Engine::Libaio => Inner::Aio(Context::new(depth)?),
            _ => Inner::Ring(Box::new(IoUring::new(depth)?)),
        };
        Ok(Self { engine, inner })
    }

    /// A ring that polls for so many requests in flight.
    pub fn polling(depth: u32) -> io::Result<Self> {
        let ring = IoUring::builder().setup_iopoll().build(depth)?;
        Ok(Self {
            engine: Engine::Uring,
            inner: Inner::Ring(Box::new(ring)),
        })
    }

    /// Tells the ring of memory, for reads into any part of it.
    pub fn register(&self, memory: libc::iovec) -> io::Result<()> {
        match &self.inner {
            // SAFETY: The kernel takes a reference of its own to the pages.
            Inner::Ring(ring) => unsafe { ring.submitter().register_buffers(&[memory]) },
            Inner::Aio(_) => Ok(()),
        }
    }

    pub fn unregister(&self) -> io::Result<()> {
        match &self.inner {
            Inner::Ring(ring) => ring.submitter().unregister_buffers(),
            Inner::Aio(_) => Ok(()),
        }
    }

    /// Starts reads, all by one call. How many of them were taken: libaio stops
    /// at the first it does not like, and says why if it is the very first.
    pub fn start(&mut self, file: &File, reads: &[Start<'_>]) -> io::Result<usize> {
        let fd = file.as_raw_fd();
        match &mut self.inner {
            Inner::Aio(context) => start_aio(context, fd, reads),
            Inner::Ring(ring) => {
                for read in reads {
                    let entry = entry(self.engine, fd, read);
                    // SAFETY: The vectors are read before the call below returns,
                    // and of the memory see the type.
                    unsafe { ring.submission().push(&entry) }.map_err(io::Error::other)?;
                }
                ring.submit()
            }
        }
    }

    /// Starts a write, on a ring.
    pub fn start_write(&mut self, file: &File, offset: u64, from: libc::iovec) -> io::Result<()> {
        let Inner::Ring(ring) = &mut self.inner else {
            return Err(io::Error::other("only rings write"));
        };
        let fd = types::Fd(file.as_raw_fd());
        let entry = opcode::Write::new(fd, from.iov_base.cast(), from.iov_len as u32)
            .offset(offset)
            .build();
        // SAFETY: Of the memory see the type.
        unsafe { ring.submission().push(&entry) }.map_err(io::Error::other)?;
        ring.submit()?;
        Ok(())
    }

    /// Waits for at least so many reads that have been started.
    pub fn finish(&mut self, least: usize) -> io::Result<Vec<Done>> {
        match &mut self.inner {
            Inner::Aio(context) => finish_aio(context, least),
            Inner::Ring(ring) => {
                let mut all = Vec::new();
                loop {
                    all.extend(ring.completion().map(|entry| Done {
                        tag: entry.user_data(),
                        result: result(entry.result().into()),
                    }));
                    if all.len() >= least {
                        return Ok(all);
                    }
                    uninterrupted(|| ring.submit_and_wait(least - all.len()))?;
                }
            }
        }
    }
}

/// Waits again if something else wanted to be done: a ring of the same thread
/// interrupts those who wait for libaio.
fn uninterrupted(mut wait: impl FnMut() -> io::Result<usize>) -> io::Result<usize> {
    loop {
        match wait() {
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            other => return other,
        }
    }
}

fn start_aio(context: &Context, fd: i32, reads: &[Start<'_>]) -> io::Result<usize> {
    let mut blocks: Vec<Iocb> = Vec::with_capacity(reads.len());
    for read in reads {
        let (opcode, buf, nbytes) = match read.iov {
            [one] => (0, one.iov_base as u64, one.iov_len as u64),
            many => (IOCB_CMD_PREADV, many.as_ptr() as u64, many.len() as u64),
        };
        blocks.push(Iocb {
            data: read.tag,
            opcode,
            fildes: fd as u32,
            buf,
            nbytes,
            offset: read.offset as i64,
            ..Iocb::default()
        });
    }
    let mut list: Vec<*mut Iocb> = blocks.iter_mut().map(|b| &raw mut *b).collect();
    // SAFETY: As many control blocks as it says; they and the vectors are read
    // before the call returns.
    sys::check(unsafe {
        libc::syscall(
            libc::SYS_io_submit,
            context.0,
            list.len(),
            list.as_mut_ptr(),
        )
    } as isize)
}

fn finish_aio(context: &Context, least: usize) -> io::Result<Vec<Done>> {
    let mut events = vec![Event::default(); least.max(64)];
    let none = std::ptr::null_mut::<libc::timespec>();
    let count = uninterrupted(|| {
        // SAFETY: Room for as many events as it says.
        sys::check(unsafe {
            libc::syscall(
                libc::SYS_io_getevents,
                context.0,
                least,
                events.len(),
                events.as_mut_ptr(),
                none,
            )
        } as isize)
    })?;
    let done = |event: &Event| Done {
        tag: event.data,
        result: result(event.res),
    };
    Ok(events[..count].iter().map(done).collect())
}

fn entry(engine: Engine, fd: i32, read: &Start<'_>) -> squeue::Entry {
    let (fd, offset) = (types::Fd(fd), read.offset);
    let entry = match read.iov {
        [one] => {
            let (base, len) = (one.iov_base.cast(), one.iov_len as u32);
            match engine {
                Engine::UringFixed => opcode::ReadFixed::new(fd, base, len, 0)
                    .offset(offset)
                    .build(),
                _ => opcode::Read::new(fd, base, len).offset(offset).build(),
            }
        }
        many => opcode::Readv::new(fd, many.as_ptr(), many.len() as u32)
            .offset(offset)
            .build(),
    };
    let flags = match engine {
        Engine::UringAsync => squeue::Flags::ASYNC,
        _ => squeue::Flags::empty(),
    };
    entry.user_data(read.tag).flags(flags)
}

fn result(res: i64) -> io::Result<usize> {
    usize::try_from(res).map_err(|_| io::Error::from_raw_os_error(-res as i32))
}

thread_local! {
    /// A queue of each sort for reads one at a time: to make one for each read
    /// takes longer than the read.
    static QUEUES: RefCell<Vec<Queue>> = const { RefCell::new(Vec::new()) };
}

/// One read, waited for. A ring that would not take it is not used again: it would
/// submit it with the next one.
pub fn read(engine: Engine, file: &File, iov: &[libc::iovec], offset: u64) -> io::Result<usize> {
    QUEUES.with_borrow_mut(|queues| {
        let at = match queues.iter().position(|q| q.engine == engine) {
            Some(at) => at,
            None => {
                queues.push(Queue::new(engine, 8)?);
                queues.len() - 1
            }
        };
        let queue = &mut queues[at];
        let done = match (engine, iov) {
            (Engine::UringFixed, &[one]) => {
                queue.register(one)?;
                let done = one_read(queue, file, iov, offset);
                queue.unregister()?;
                done
            }
            _ => one_read(queue, file, iov, offset),
        };
        done.unwrap_or_else(|error| {
            if engine != Engine::Libaio {
                queues.remove(at);
            }
            Err(error)
        })
    })
}

/// How the read ended; an error of its own if it did not begin, or is not known to
/// have ended.
fn one_read(
    queue: &mut Queue,
    file: &File,
    iov: &[libc::iovec],
    offset: u64,
) -> io::Result<io::Result<usize>> {
    let started = queue.start(
        file,
        &[Start {
            offset,
            iov,
            tag: 1,
        }],
    )?;
    if started != 1 {
        return Err(io::Error::other(format!("{started} reads started, not 1")));
    }
    match queue.finish(1)?.pop() {
        Some(done) => Ok(done.result),
        None => Err(io::Error::other("no completion")),
    }
}
