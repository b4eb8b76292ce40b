// SPDX-License-Identifier: GPL-2.0

//! One read as a program would ask for it, and what came of it.

use crate::aio::{self, Engine};
use crate::buffer::{BLOCK, Buffers};
use crate::sys;
use rand::{RngExt, rngs::SmallRng};
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

/// The system call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Via {
    Pread,
    Preadv,
    Read,
    Readv,
    /// preadv2(2) with these flags.
    Preadv2(i32),
    /// Not a system call of its own, but waited for all the same.
    Async(Engine),
}

/// A read.
#[derive(Clone, Debug)]
pub struct Request {
    pub offset: u64,
    pub lens: Vec<usize>,
    pub via: Via,
    /// How far the buffers are past a page boundary.
    pub shift: usize,
}

/// What a read returned and did.
pub struct Outcome {
    pub result: io::Result<usize>,
    pub buffers: Buffers,
    /// The file position, if the call was one that moves it.
    pub position: Option<u64>,
}

impl Request {
    /// pread(2) of `len` bytes at `offset`.
    pub fn pread(offset: u64, len: usize) -> Self {
        Self {
            offset,
            lens: vec![len],
            via: Via::Pread,
            shift: 0,
        }
    }

    /// preadv(2) of these lengths at `offset`.
    pub fn preadv(offset: u64, lens: Vec<usize>) -> Self {
        Self {
            lens,
            via: Via::Preadv,
            ..Self::pread(offset, 0)
        }
    }

    pub fn via(mut self, via: Via) -> Self {
        self.via = via;
        self
    }

    pub fn shift(mut self, shift: usize) -> Self {
        self.shift = shift;
        self
    }

    /// A random aligned read of a file of `size` bytes: from a block to several
    /// MiB, into one buffer or several, sometimes past the end.
    pub fn random(rng: &mut SmallRng, size: u64) -> Self {
        let blocks = (size as usize).div_ceil(BLOCK).max(1);
        let count = match rng.random_range(0..4) {
            0 => rng.random_range(1..=4),
            1 | 2 => rng.random_range(1..=64),
            _ => rng.random_range(1..=blocks + 4),
        };
        let offset = rng.random_range(0..=blocks) * BLOCK;
        let parts = match rng.random_range(0..3) {
            0 => rng.random_range(2..=8).min(count),
            _ => 1,
        };
        let via = match (parts, rng.random_range(0..3)) {
            (1, 0) => Via::Read,
            (1, 1) => Via::Preadv2(0),
            (1, _) => Via::Pread,
            (_, 0) => Via::Readv,
            (_, _) => Via::Preadv,
        };
        Self {
            offset: offset as u64,
            lens: split(rng, count, parts),
            via,
            shift: 0,
        }
    }

    /// The same read somewhere nearby, of multiples of `unit` bytes only: where it
    /// begins and ends, and where each buffer does.
    pub fn jitter(mut self, rng: &mut SmallRng, unit: usize) -> Self {
        let mut some = || rng.random_range(0..BLOCK / unit) * unit;
        self.offset += some() as u64;
        self.shift = some();
        for len in &mut self.lens {
            // Shorter, but of no buffer nothing is left.
            *len -= some().min(len.saturating_sub(unit));
        }
        self
    }

    /// Any way to ask for it that does not change what is to come of it.
    pub fn any_via(self, rng: &mut SmallRng) -> Self {
        let synchronous = match self.lens.len() {
            1 => Via::Pread,
            _ => Via::Preadv,
        };
        const ENGINES: usize = Engine::ALL.len();
        let via = match rng.random_range(0..ENGINES + 2) {
            i @ 0..ENGINES => Via::Async(Engine::ALL[i]),
            _ => synchronous,
        };
        self.via(via)
    }

    /// Bytes asked for.
    pub fn total(&self) -> usize {
        self.lens.iter().sum()
    }

    /// Reads.
    pub fn perform(&self, file: &File) -> io::Result<Outcome> {
        let buffers = Buffers::new(&self.lens, self.shift)?;
        let iov = buffers.iovecs();
        let fd = file.as_raw_fd();
        let offset = self.offset as i64;
        let moves = matches!(self.via, Via::Read | Via::Readv);
        if moves {
            sys::seek(fd, offset)?;
        }
        let result = match self.via {
            Via::Pread => sys::pread(fd, &iov[0], offset),
            Via::Preadv => sys::preadv(fd, &iov, offset, 0),
            Via::Preadv2(flags) => sys::preadv(fd, &iov, offset, flags),
            Via::Read => sys::read(fd, &iov[0]),
            Via::Readv => sys::readv(fd, &iov),
            Via::Async(engine) => aio::read(engine, file, &iov, self.offset),
        };
        let position = if moves {
            Some(sys::position(fd)?)
        } else {
            None
        };
        Ok(Outcome {
            result,
            buffers,
            position,
        })
    }
}

/// `count` blocks in `parts` random parts, as lengths in bytes.
fn split(rng: &mut SmallRng, count: usize, parts: usize) -> Vec<usize> {
    let mut left = count;
    let mut lens = Vec::with_capacity(parts);
    for behind in (0..parts).rev() {
        let most = left - behind;
        let blocks = if behind == 0 {
            most
        } else {
            rng.random_range(1..=most)
        };
        lens.push(blocks * BLOCK);
        left -= blocks;
    }
    lens
}

impl std::fmt::Display for Request {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (offset, total) = (self.offset, self.total());
        write!(f, "offset={offset} length={total} via={:?}", self.via)?;
        if self.lens.len() > 1 && self.lens.len() <= 16 {
            write!(f, " vectors={:?}", self.lens)?;
        } else if self.lens.len() > 16 {
            write!(f, " vectors={}", self.lens.len())?;
        }
        if self.shift > 0 {
            write!(f, " shift={}", self.shift)?;
        }
        Ok(())
    }
}

impl Outcome {
    /// The bytes that were returned.
    pub fn bytes(&self) -> Vec<u8> {
        let count = *self.result.as_ref().unwrap_or(&0);
        self.buffers.gathered(count)
    }

    /// Checks the result and every byte of memory against `want`, the bytes the
    /// read had to deliver. `exact` says that at most the rest of the block in
    /// which they end may be touched besides; mainline zeroes more than that.
    pub fn verify(&self, request: &Request, want: &[u8], exact: bool) -> Result<(), String> {
        let count = match &self.result {
            Ok(count) => *count,
            Err(e) => return Err(format!("failed: {e}; wanted {} bytes", want.len())),
        };
        if count != want.len() {
            return Err(format!("returned {count}, wanted {}", want.len()));
        }
        let end = request.offset + count as u64;
        match self.position {
            Some(position) if position != end => {
                return Err(format!("file position {position}, wanted {end}"));
            }
            _ => {}
        }
        let slack = if exact {
            (end.next_multiple_of(BLOCK as u64) - end) as usize
        } else {
            usize::MAX
        };
        self.buffers.verify(want, slack)
    }
}
