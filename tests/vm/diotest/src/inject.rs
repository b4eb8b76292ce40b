// SPDX-License-Identifier: GPL-2.0

//! Requests that fail by chance: fail_make_request.

use crate::env::skip;
use anyhow::{Context, Result};
use std::path::{Path, PathBuf};

const CONTROL: &str = "/sys/kernel/debug/fail_make_request";
/// More than ever fail.
const TIMES: u64 = 1 << 30;

/// Disks whose requests, reads and writes, fail by chance, until this is dropped.
pub struct Failing {
    switches: Vec<PathBuf>,
    times: u64,
}

impl Failing {
    /// Of those to these disks so many in a hundred.
    pub fn some(disks: &[&Path], percent: u32) -> Result<Self> {
        Self::new(disks, percent, TIMES)
    }

    /// Of those to this disk the next one.
    pub fn next(disk: &Path) -> Result<Self> {
        Self::new(&[disk], 100, 1)
    }

    fn new(disks: &[&Path], percent: u32, times: u64) -> Result<Self> {
        if !Path::new(CONTROL).exists() {
            return Err(skip("a kernel without fail_make_request"));
        }
        for (name, value) in [
            ("verbose", 0),
            ("interval", 1),
            ("space", 0),
            ("times", times),
            ("probability", percent.into()),
        ] {
            put(&Path::new(CONTROL).join(name), value)?;
        }
        let mut failing = Self {
            switches: Vec::new(),
            times,
        };
        for disk in disks {
            let name = disk.canonicalize()?;
            let name = name.file_name().context("a disk with a name")?;
            let switch = Path::new("/sys/block").join(name).join("make-it-fail");
            put(&switch, 1)?;
            failing.switches.push(switch);
        }
        Ok(failing)
    }

    /// How many have failed.
    pub fn count(&self) -> Result<u64> {
        let path = Path::new(CONTROL).join("times");
        let left: u64 = std::fs::read_to_string(path)?.trim().parse()?;
        Ok(self.times - left)
    }
}

impl Drop for Failing {
    fn drop(&mut self) {
        for switch in &self.switches {
            if let Err(error) = put(switch, 0) {
                eprintln!("# {error:#}");
            }
        }
        let _ = put(&Path::new(CONTROL).join("probability"), 0);
    }
}

fn put(path: &Path, value: u64) -> Result<()> {
    std::fs::write(path, value.to_string())
        .with_context(|| format!("{value} to {}", path.display()))
}
