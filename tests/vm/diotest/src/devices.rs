// SPDX-License-Identifier: GPL-2.0

//! What the module counts for each block device it reads.

use crate::env::Env;
use crate::fs::Fs;
use crate::stats::Stats;
use anyhow::{Context, Result, ensure};
use std::collections::BTreeMap;
use std::os::linux::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, Instant};

const PATH: &str = "/sys/kernel/debug/btrfs_dio/devices";

/// Why a device was chosen.
pub const REASONS: [&str; 4] = ["only", "least", "near", "policy"];

/// The counters of all devices, by their numbers.
#[derive(Clone, Debug, Default)]
pub struct Devices(BTreeMap<String, Stats>);

impl Devices {
    /// Reads the counters.
    pub fn read() -> Result<Self> {
        let text = std::fs::read_to_string(PATH).context(PATH)?;
        let mut all = BTreeMap::new();
        for line in text.lines() {
            let (number, stats) = parse(line).with_context(|| line.to_owned())?;
            ensure!(all.insert(number, stats).is_none(), "twice: {line}");
        }
        Ok(Self(all))
    }

    /// The counters, or none if there is no module.
    pub fn look(env: &Env) -> Result<Self> {
        match env.module {
            true => Self::read(),
            false => Ok(Self::default()),
        }
    }

    /// Those of one device; zeros if it was never read.
    pub fn of(&self, device: &Path) -> Result<Stats> {
        let node = std::fs::metadata(device).with_context(|| device.display().to_string())?;
        let number = node.st_rdev();
        let key = format!("{}:{}", libc::major(number), libc::minor(number));
        Ok(self.0.get(&key).cloned().unwrap_or_default())
    }

    /// What moved since, for each device of a file system.
    pub fn since(&self, before: &Self, fs: &Fs) -> Result<Vec<Stats>> {
        let moved = |device| Ok(self.of(device)?.since(&before.of(device)?));
        fs.devices.iter().map(|d| moved(d)).collect()
    }

    /// One counter of all devices together.
    pub fn total(&self, name: &str) -> u64 {
        self.0.values().map(|s| s.get(name)).sum()
    }

    /// Bytes in flight to all devices.
    pub fn in_flight(&self) -> u64 {
        self.total("in_flight")
    }

    /// Waits until nothing is in flight to any device any more.
    pub fn settle() -> Result<()> {
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            let devices = Self::read()?;
            let busy = devices.0.iter().find(|(_, s)| s.get("in_flight") != 0);
            let Some((number, stats)) = busy else {
                return Ok(());
            };
            ensure!(
                Instant::now() < deadline,
                "nobody reads, and device {number} has: {stats}"
            );
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

/// One line: a number, and names with values.
fn parse(line: &str) -> Result<(String, Stats)> {
    let words: Vec<_> = line.split_whitespace().collect();
    let (number, rest) = words.split_first().context("a number")?;
    ensure!(rest.len() % 2 == 0, "a name without a value");
    let mut pairs = Vec::new();
    for pair in rest.chunks_exact(2) {
        pairs.push((pair[0], pair[1].parse()?));
    }
    for name in ["reads", "bytes", "errors", "in_flight"]
        .into_iter()
        .chain(REASONS)
    {
        ensure!(pairs.iter().any(|(n, _)| *n == name), "no {name}");
    }
    Ok(((*number).to_owned(), Stats::of(&pairs)))
}

/// One counter of several devices together.
pub fn sum(devices: &[Stats], name: &str) -> u64 {
    devices.iter().map(|d| d.get(name)).sum()
}
