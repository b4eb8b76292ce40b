// SPDX-License-Identifier: GPL-2.0

//! Disks of memory that take their time: null_blk, set up through configfs.

use crate::env::skip;
use anyhow::{Context, Result, ensure};
use std::path::{Path, PathBuf};

const CONFIG: &str = "/sys/kernel/config/nullb";

/// How long a disk takes.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// For each command.
    pub nanoseconds: u64,
    /// Commands that it works on at a time; the others wait.
    pub depth: u32,
    /// The longest command; what is longer becomes several.
    pub bytes: u32,
}

/// A disk. Removed on drop.
pub struct Nullb {
    name: String,
}

impl Nullb {
    /// A disk of half a GiB.
    pub fn new(name: &str, pace: Pace) -> Result<Self> {
        let disk = Self::make(
            name,
            &[
                // Completed by a timer.
                ("irqmode", 2),
                ("completion_nsec", pace.nanoseconds),
                ("hw_queue_depth", pace.depth.into()),
                ("max_sectors", u64::from(pace.bytes) / 512),
            ],
        )?;
        // Who submits must not wait for the disk: the queue is what is bounded
        // in the disk, and long above it.
        let queue = Path::new("/sys/block").join(name).join("queue");
        put(&queue.join("scheduler"), "mq-deadline")?;
        put(&queue.join("nr_requests"), "256")?;
        // Nor is it an error if the timer is late by seconds.
        put(&queue.join("io_timeout"), "600000")?;
        Ok(disk)
    }

    fn make(name: &str, attributes: &[(&str, u64)]) -> Result<Self> {
        if !Path::new(CONFIG).exists() {
            return Err(skip("a kernel without null_blk"));
        }
        let dir = Path::new(CONFIG).join(name);
        std::fs::create_dir(&dir).with_context(|| dir.display().to_string())?;
        let disk = Self { name: name.into() };
        let common = [
            ("memory_backed", 1),
            ("blocksize", 512),
            ("size", 512),
            ("submit_queues", 1),
        ];
        for (attribute, value) in common.iter().chain(attributes).chain(&[("power", 1)]) {
            put(&dir.join(attribute), &value.to_string())?;
        }
        ensure!(disk.path().exists(), "{name} did not appear");
        Ok(disk)
    }

    /// `count` of them, one like the other.
    pub fn some(count: usize, pace: Pace) -> Result<Vec<Self>> {
        (0..count)
            .map(|i| Self::new(&format!("slow{i}"), pace))
            .collect()
    }

    pub fn path(&self) -> PathBuf {
        Path::new("/dev").join(&self.name)
    }
}

impl Drop for Nullb {
    fn drop(&mut self) {
        let dir = Path::new(CONFIG).join(&self.name);
        if let Err(error) = std::fs::remove_dir(&dir) {
            eprintln!("# {}: {error}", dir.display());
        }
    }
}

fn put(path: &Path, value: &str) -> Result<()> {
    std::fs::write(path, value).with_context(|| format!("{value} to {}", path.display()))
}
