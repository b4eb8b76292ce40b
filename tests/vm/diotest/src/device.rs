// SPDX-License-Identifier: GPL-2.0

//! Devices as they are under a file system: their bytes, and device-mapper
//! devices that fail where they are told to.

use crate::buffer::{BLOCK, Region};
use crate::chunks::Place;
use crate::env::skip;
use crate::fs::{self, Fs};
use anyhow::{Context, Result, ensure};
use std::fs::{File, OpenOptions};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

fn open(path: &Path, write: bool) -> Result<File> {
    OpenOptions::new()
        .read(true)
        .write(write)
        .custom_flags(libc::O_DIRECT)
        .open(path)
        .with_context(|| path.display().to_string())
}

/// The device of `fs` that a place is on.
fn of<'a>(fs: &'a Fs, place: &Place) -> Result<&'a Path> {
    let device = fs.devices.get(place.device as usize - 1);
    Ok(device.context("a device mkfs was not given")?)
}

/// The block at `place`, past all caches.
pub fn read_block(fs: &Fs, place: &Place) -> Result<Vec<u8>> {
    read(fs, place, BLOCK)
}

/// The blocks from `place` on, past all caches.
pub fn read(fs: &Fs, place: &Place, len: usize) -> Result<Vec<u8>> {
    let mut region = Region::new(len)?;
    open(of(fs, place)?, false)?.read_exact_at(region.bytes_mut(), place.offset)?;
    Ok(region.bytes().to_vec())
}

/// Overwrites the block at `place`, past all caches. `fs` must not be mounted.
pub fn write_block(fs: &Fs, place: &Place, bytes: &[u8]) -> Result<()> {
    ensure!(bytes.len() == BLOCK, "{} bytes are no block", bytes.len());
    write(fs, place, bytes)
}

/// Overwrites whole blocks from `place` on, past all caches. If `fs` is mounted, they must be
/// of data that nobody has cached.
pub fn write(fs: &Fs, place: &Place, bytes: &[u8]) -> Result<()> {
    let mut region = Region::new(bytes.len())?;
    region.bytes_mut().copy_from_slice(bytes);
    open(of(fs, place)?, true)?.write_all_at(region.bytes(), place.offset)?;
    Ok(())
}

/// Size of a device in bytes.
pub fn size(path: &Path) -> Result<u64> {
    use std::io::{Seek, SeekFrom};
    Ok(File::open(path)?.seek(SeekFrom::End(0))?)
}

/// A device-mapper device. Removed on drop.
pub struct Mapped {
    name: String,
    below: PathBuf,
    sectors: u64,
}

impl Mapped {
    /// A device that passes everything through to `below`.
    pub fn new(name: &str, below: &Path) -> Result<Self> {
        if dmsetup(["version"]).is_err() {
            return Err(skip("a kernel without device-mapper"));
        }
        let sectors = size(below)? / 512;
        let table = format!("0 {sectors} linear {} 0", below.display());
        dmsetup(["create", name, "--table", &table])?;
        Ok(Self {
            name: name.into(),
            below: below.into(),
            sectors,
        })
    }

    pub fn path(&self) -> PathBuf {
        Path::new("/dev/mapper").join(&self.name)
    }

    fn linear(&self, start: u64, len: u64) -> String {
        format!("{start} {len} linear {} {start}", self.below.display())
    }

    fn load(&self, table: &str) -> Result<()> {
        self.suspend()?;
        let loaded = dmsetup(["load", &self.name, "--table", table]);
        self.resume()?;
        loaded.map(drop)
    }

    /// From now on, reads and writes of these ranges, each an offset and a
    /// length in order, fail.
    pub fn fail(&self, ranges: &[(u64, u64)]) -> Result<()> {
        let mut table = Vec::new();
        let mut at = 0;
        for (offset, len) in ranges {
            let (start, len) = (offset / 512, len / 512);
            ensure!(at < start && start + len < self.sectors, "ranges in order");
            table.push(self.linear(at, start - at));
            table.push(format!("{start} {len} error"));
            at = start + len;
        }
        table.push(self.linear(at, self.sectors - at));
        self.load(&table.join("\n"))
    }

    /// From now on, nothing gets through, and nothing fails.
    pub fn suspend(&self) -> Result<()> {
        dmsetup(["suspend", "--noflush", "--nolockfs", &self.name]).map(drop)
    }

    /// From now on, everything gets through again, and so does what has waited.
    pub fn resume(&self) -> Result<()> {
        dmsetup(["resume", &self.name]).map(drop)
    }

    /// From now on, reads take `milliseconds` longer.
    pub fn delay(&self, milliseconds: u32) -> Result<()> {
        let (sectors, below) = (self.sectors, self.below.display());
        let table = format!("0 {sectors} delay {below} 0 {milliseconds} {below} 0 0");
        self.load(&table)
    }

    /// From now on, writes behind this offset take `milliseconds` longer.
    pub fn delay_writes_behind(&self, offset: u64, milliseconds: u32) -> Result<()> {
        let (start, below) = (offset / 512, self.below.display());
        let len = self.sectors - start;
        let before = self.linear(0, start);
        let behind =
            format!("{start} {len} delay {below} {start} 0 {below} {start} {milliseconds}");
        self.load(&format!("{before}\n{behind}"))
    }

    /// From now on, writes fail.
    pub fn refuse_writes(&self) -> Result<()> {
        let (sectors, below) = (self.sectors, self.below.display());
        self.load(&format!("0 {sectors} flakey {below} 0 0 1 1 error_writes"))
    }

    /// How many writes are being delayed. The kernel does not count them as in flight.
    pub fn delayed_writes(&self) -> Result<u64> {
        let status = dmsetup(["status", &self.name])?;
        let numbers = status.lines().find_map(|line| line.split_once(" delay "));
        let (_, numbers) = numbers.with_context(|| format!("nothing is delayed: {status}"))?;
        let writes = numbers.split_whitespace().nth(1).context("two numbers")?;
        Ok(writes.parse()?)
    }

    /// From now on, everything fails, on all of these. What is to go to all of them
    /// is not complete once the first one has stopped.
    pub fn cut(all: &[Self]) -> Result<()> {
        for device in all {
            device.suspend()?;
        }
        for device in all {
            let table = format!("0 {} error", device.sectors);
            dmsetup(["load", &device.name, "--table", &table])?;
        }
        for device in all {
            device.resume()?;
        }
        Ok(())
    }

    /// From now on, everything is passed through again.
    pub fn heal(&self) -> Result<()> {
        self.load(&self.linear(0, self.sectors))
    }

    /// From now on, all works for some seconds, and nothing for some, in turns.
    pub fn flakey(&self, up: u32, down: u32) -> Result<()> {
        let (sectors, below) = (self.sectors, self.below.display());
        self.load(&format!("0 {sectors} flakey {below} 0 {up} {down}"))
    }

    /// From now on, of reads so many in a hundred have a wrong byte in them.
    pub fn corrupt(&self, percent: u32) -> Result<()> {
        let (sectors, below) = (self.sectors, self.below.display());
        let chance = percent * 10_000_000;
        self.load(&format!(
            "0 {sectors} flakey {below} 0 0 1 2 random_read_corrupt {chance}"
        ))
    }

    /// From now on, reads of these bytes fail until they are written.
    pub fn dust(&self, offset: u64, len: u64) -> Result<()> {
        self.dust_by(512, offset / 512..(offset + len) / 512)
    }

    /// From now on, reads of these blocks fail until they are written.
    pub fn dusty(&self, offsets: &[u64]) -> Result<()> {
        let block = BLOCK as u64;
        self.dust_by(block, offsets.iter().map(|offset| offset / block))
    }

    fn dust_by(&self, size: u64, blocks: impl Iterator<Item = u64>) -> Result<()> {
        let (sectors, below) = (self.sectors, self.below.display());
        self.load(&format!("0 {sectors} dust {below} 0 {size}"))?;
        for block in blocks {
            dmsetup(["message", &self.name, "0", &format!("addbadblock {block}")])?;
        }
        dmsetup(["message", &self.name, "0", "enable"]).map(drop)
    }
}

impl Drop for Mapped {
    fn drop(&mut self) {
        // Each waits for some seconds: somebody may have yet to let go of a file.
        for _ in 0..12 {
            match dmsetup(["remove", "--retry", &self.name]) {
                Ok(_) => break,
                Err(error) => eprintln!("# {error:#}"),
            }
        }
    }
}

/// Nobody waits for udev: it may not be there.
fn dmsetup<'a>(args: impl IntoIterator<Item = &'a str>) -> Result<String> {
    fs::run(
        "dmsetup",
        ["--noudevsync", "--noudevrules"].into_iter().chain(args),
    )
}
