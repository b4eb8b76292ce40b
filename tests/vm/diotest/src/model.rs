// SPDX-License-Identifier: GPL-2.0

//! A file and, in memory, the bytes it must hold: the oracle of all reads.
//!
//! Every operation is done to both.

use crate::sys;
use anyhow::{Context, Result, ensure};
use rand::{Rng, RngExt, rngs::SmallRng};
use std::fs::{File, OpenOptions};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// A file and what it must hold.
pub struct Model {
    pub path: PathBuf,
    pub data: Vec<u8>,
}

#[repr(C)]
struct CloneRange {
    src_fd: i64,
    src_offset: u64,
    src_length: u64,
    dest_offset: u64,
}

/// `FICLONERANGE`, `_IOW(0x94, 13, struct file_clone_range)`.
const FICLONERANGE: u64 = 0x4020_940d;

impl Model {
    /// Makes an empty file.
    pub fn create(path: impl Into<PathBuf>) -> Result<Self> {
        let path = path.into();
        File::create_new(&path).with_context(|| format!("create {}", path.display()))?;
        Ok(Self {
            path,
            data: Vec::new(),
        })
    }

    /// The same bytes under another path, as after a snapshot.
    pub fn twin(&self, path: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into(),
            data: self.data.clone(),
        }
    }

    /// Name for messages.
    pub fn name(&self) -> String {
        let name = self.path.file_name().unwrap_or_default();
        name.to_string_lossy().into_owned()
    }

    pub fn size(&self) -> u64 {
        self.data.len() as u64
    }

    /// Opens the file for reading and writing through the page cache. Nothing
    /// is kept open between operations, so that it can be unmounted under us.
    pub fn file(&self) -> Result<File> {
        let file = OpenOptions::new().read(true).write(true).open(&self.path);
        file.with_context(|| format!("open {}", self.path.display()))
    }

    fn note(&mut self, offset: u64, bytes: &[u8]) {
        let start = offset as usize;
        let end = start + bytes.len();
        if self.data.len() < end {
            self.data.resize(end, 0);
        }
        self.data[start..end].copy_from_slice(bytes);
    }

    /// Writes through the page cache.
    pub fn write(&mut self, offset: u64, bytes: &[u8]) -> Result<()> {
        self.file()?.write_all_at(bytes, offset)?;
        self.note(offset, bytes);
        Ok(())
    }

    /// Writes `len` random bytes through the page cache.
    pub fn write_random(&mut self, rng: &mut SmallRng, offset: u64, len: usize) -> Result<()> {
        self.write(offset, &random(rng, len))
    }

    /// Writes random blocks past the page cache: an extent each, at once.
    pub fn write_direct(&mut self, rng: &mut SmallRng, offset: u64, len: usize) -> Result<()> {
        let mut region = crate::buffer::Region::untouched(len)?;
        rng.fill_bytes(region.bytes_mut());
        let file = OpenOptions::new()
            .write(true)
            .custom_flags(libc::O_DIRECT)
            .open(&self.path)?;
        let done = file.write_at(region.bytes(), offset)?;
        ensure!(done == len, "short direct write: {done} of {len}");
        self.note(offset, region.bytes());
        Ok(())
    }

    /// Preallocates, and grows the file if it is shorter.
    pub fn preallocate(&mut self, offset: u64, len: u64) -> Result<()> {
        sys::fallocate(&self.file()?, 0, offset, len)?;
        let end = (offset + len) as usize;
        if self.data.len() < end {
            self.data.resize(end, 0);
        }
        Ok(())
    }

    /// Preallocates past the end without growing the file.
    pub fn preallocate_beyond(&mut self, offset: u64, len: u64) -> Result<()> {
        sys::fallocate(&self.file()?, libc::FALLOC_FL_KEEP_SIZE, offset, len)?;
        Ok(())
    }

    /// Punches a hole inside the file.
    pub fn punch(&mut self, offset: u64, len: u64) -> Result<()> {
        let mode = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
        sys::fallocate(&self.file()?, mode, offset, len)?;
        let end = self.data.len().min((offset + len) as usize);
        if (offset as usize) < end {
            self.data[offset as usize..end].fill(0);
        }
        Ok(())
    }

    /// Makes zeros of a range, and grows the file if it is shorter, unless it is
    /// to keep its size.
    pub fn zero(&mut self, offset: u64, len: u64, keep: bool) -> Result<()> {
        let keeps = if keep { libc::FALLOC_FL_KEEP_SIZE } else { 0 };
        let mode = libc::FALLOC_FL_ZERO_RANGE | keeps;
        sys::fallocate(&self.file()?, mode, offset, len)?;
        let (start, end) = (offset as usize, (offset + len) as usize);
        if self.data.len() < end && !keep {
            self.data.resize(end, 0);
        }
        let end = end.min(self.data.len());
        if start < end {
            self.data[start..end].fill(0);
        }
        Ok(())
    }

    /// Sets the size.
    pub fn truncate(&mut self, size: u64) -> Result<()> {
        self.file()?.set_len(size)?;
        self.data.resize(size as usize, 0);
        Ok(())
    }

    /// Shares extents of another file.
    pub fn clone_from(&mut self, other: &Self, from: u64, len: u64, to: u64) -> Result<()> {
        clone_range(&other.file()?, from, len, &self.file()?, to)?;
        let bytes = other.data[from as usize..(from + len) as usize].to_vec();
        self.note(to, &bytes);
        Ok(())
    }

    /// Writes it out.
    pub fn sync(&self) -> Result<()> {
        self.file()?.sync_all().context("fsync")
    }

    /// Reads it whole through the page cache and compares: the oracle's oracle.
    /// Leaves no page behind.
    pub fn cross_check(&self) -> Result<()> {
        let bytes = std::fs::read(&self.path)?;
        ensure!(
            bytes.len() == self.data.len(),
            "file={}: buffered read has {} bytes, wrote {}",
            self.name(),
            bytes.len(),
            self.data.len()
        );
        if let Some(at) = crate::buffer::first_difference(&bytes, &self.data) {
            anyhow::bail!("file={}: buffered read differs at {at}", self.name());
        }
        sys::drop_pages(&File::open(&self.path)?)?;
        Ok(())
    }
}

/// Shares `len` bytes at `from` of one file with another.
pub fn clone_range(source: &File, from: u64, len: u64, dest: &File, to: u64) -> Result<()> {
    let mut range = CloneRange {
        src_fd: source.as_raw_fd().into(),
        src_offset: from,
        src_length: len,
        dest_offset: to,
    };
    // SAFETY: That is the structure this request takes.
    unsafe { sys::ioctl(dest, FICLONERANGE, &mut range) }.context("FICLONERANGE")?;
    Ok(())
}

/// `struct file_dedupe_range` with one destination.
#[repr(C)]
struct Dedupe {
    src_offset: u64,
    src_length: u64,
    dest_count: u16,
    reserved1: u16,
    reserved2: u32,
    dest_fd: i64,
    dest_offset: u64,
    bytes_deduped: u64,
    status: i32,
    reserved: u32,
}

/// `FIDEDUPERANGE`, `_IOWR(0x94, 54, struct file_dedupe_range)`.
const FIDEDUPERANGE: u64 = 0xc018_9436;

/// Shares what is equal of `len` bytes at `offset` of two files. How many bytes
/// that were; none if anything differs.
pub fn dedupe_range(source: &File, dest: &File, offset: u64, len: u64) -> Result<u64> {
    let mut arg = Dedupe {
        src_offset: offset,
        src_length: len,
        dest_count: 1,
        reserved1: 0,
        reserved2: 0,
        dest_fd: dest.as_raw_fd().into(),
        dest_offset: offset,
        bytes_deduped: 0,
        status: 0,
        reserved: 0,
    };
    // SAFETY: The structure this request takes, with room for one file.
    unsafe { sys::ioctl(source, FIDEDUPERANGE, &mut arg) }.context("FIDEDUPERANGE")?;
    Ok(arg.bytes_deduped)
}

/// Opens for reading past the page cache.
pub fn open_direct(path: &Path) -> Result<File> {
    OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_DIRECT)
        .open(path)
        .with_context(|| format!("open O_DIRECT {}", path.display()))
}

/// Bytes that neither compress nor repeat.
pub fn random(rng: &mut SmallRng, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    rng.fill_bytes(&mut bytes);
    bytes
}

/// Bytes that compress well but differ from place to place.
pub fn compressible(rng: &mut SmallRng, len: usize) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(len + 64);
    while bytes.len() < len {
        let line = format!(
            "{:08} the same words on every line {:x}\n",
            bytes.len(),
            rng.next_u32() % 16
        );
        bytes.extend_from_slice(line.as_bytes());
    }
    bytes.truncate(len);
    bytes
}

/// Bytes that compress here well, there badly and elsewhere not at all.
pub fn uneven(rng: &mut SmallRng, len: usize) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(len + (1 << 14));
    while bytes.len() < len {
        let piece = 1 << rng.random_range(3..14);
        match rng.random_range(0..5) {
            0 => bytes.extend(random(rng, piece)),
            1 => bytes.extend(compressible(rng, piece)),
            2 => bytes.resize(bytes.len() + piece, 0),
            3 => bytes.resize(bytes.len() + piece, rng.random()),
            // Again what was there some way back.
            _ => {
                let back = rng.random_range(0..=bytes.len().min(1 << 16));
                let from = bytes.len() - back;
                bytes.extend_from_within(from..from + back.min(piece));
            }
        }
    }
    bytes.truncate(len);
    bytes
}
