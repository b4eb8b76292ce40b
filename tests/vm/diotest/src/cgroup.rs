// SPDX-License-Identifier: GPL-2.0

//! Control groups (version 2): limits on bandwidth and memory, and the account of both.

use crate::env::skip;
use crate::fs;
use anyhow::{Context, Result, bail};
use std::os::linux::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

const ROOT: &str = "/sys/fs/cgroup";

/// A group below the root. A drop lifts its limits, kills its processes and removes it.
pub struct Cgroup {
    dir: PathBuf,
    /// Devices that have a limit.
    limited: Vec<String>,
}

impl Cgroup {
    /// Makes an empty group of that name, with no limits.
    pub fn new(name: &str) -> Result<Self> {
        let root = Path::new(ROOT);
        if !root.join("cgroup.procs").exists() {
            fs::run("mount", ["-t", "cgroup2", "none", ROOT])?;
        }
        put(&root.join("cgroup.subtree_control"), "+io +memory")?;
        let dir = root.join(name);
        std::fs::create_dir_all(&dir)?;
        Ok(Self {
            dir,
            limited: Vec::new(),
        })
    }

    /// Moves a process here, with all its threads. It keeps the memory that it has been charged for.
    pub fn add(&self, pid: u32) -> Result<()> {
        put(&self.dir.join("cgroup.procs"), &pid.to_string())
    }

    /// Moves this process here. A drop of the result moves it back.
    pub fn enter(&self) -> Result<Stay> {
        let text = std::fs::read_to_string("/proc/self/cgroup")?;
        let line = text.lines().find_map(|line| line.strip_prefix("0::/"));
        let before = Path::new(ROOT).join(line.context("no group of version 2")?);
        self.add(std::process::id())?;
        Ok(Stay(before))
    }

    /// Limits reads of these devices, each to so many bytes a second.
    pub fn limit_reads(&mut self, devices: &[PathBuf], rate: u64) -> Result<()> {
        if !self.dir.join("io.max").exists() {
            return Err(skip("a kernel without throttling"));
        }
        for device in devices {
            let number = number(device)?;
            self.put("io.max", &format!("{number} rbps={rate}"))?;
            self.limited.push(number);
        }
        Ok(())
    }

    /// Lifts the limits on reads. Reads that were held back start at once.
    pub fn lift_reads(&mut self) -> Result<()> {
        while let Some(number) = self.limited.pop() {
            self.put("io.max", &format!("{number} rbps=max"))?;
        }
        Ok(())
    }

    /// Limits memory, in the words of `memory.max`.
    pub fn limit_memory(&self, most: &str) -> Result<()> {
        self.put("memory.max", most)
    }

    /// Memory that the group is charged for, in bytes.
    pub fn memory(&self) -> Result<u64> {
        let text = self.get("memory.current")?;
        Ok(text.trim_end().parse()?)
    }

    /// Bytes that the group has read from these devices.
    pub fn bytes_read(&self, devices: &[PathBuf]) -> Result<u64> {
        let text = self.get("io.stat")?;
        let mut sum = 0;
        for device in devices {
            let number = number(device)?;
            // A device that the group has not used has no line.
            let line = text
                .lines()
                .find(|l| l.split(' ').next() == Some(number.as_str()));
            let words = line.unwrap_or_default().split(' ');
            for bytes in words.filter_map(|word| word.strip_prefix("rbytes=")) {
                sum += bytes.parse::<u64>()?;
            }
        }
        Ok(sum)
    }

    fn put(&self, file: &str, value: &str) -> Result<()> {
        put(&self.dir.join(file), value)
    }

    fn get(&self, file: &str) -> Result<String> {
        let path = self.dir.join(file);
        std::fs::read_to_string(&path).with_context(|| path.display().to_string())
    }

    /// Removes the group, once its processes have ended.
    fn remove(&mut self) -> Result<()> {
        self.lift_reads()?;
        self.limit_memory("max")?;
        self.put("cgroup.kill", "1")?;
        for _ in 0..1000 {
            if std::fs::remove_dir(&self.dir).is_ok() {
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        bail!("{} still has processes", self.dir.display())
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        if let Err(error) = self.remove() {
            eprintln!("# {error:#}");
        }
    }
}

/// The time that this process spends in another group. A drop ends it.
pub struct Stay(PathBuf);

impl Drop for Stay {
    fn drop(&mut self) {
        if let Err(error) = put(&self.0.join("cgroup.procs"), "0") {
            eprintln!("# {error:#}");
        }
    }
}

/// The number of a device, as the files of a group have it.
fn number(device: &Path) -> Result<String> {
    let node = std::fs::metadata(device).with_context(|| device.display().to_string())?;
    let number = node.st_rdev();
    Ok(format!("{}:{}", libc::major(number), libc::minor(number)))
}

fn put(path: &Path, value: &str) -> Result<()> {
    std::fs::write(path, value).with_context(|| format!("{value} to {}", path.display()))
}
