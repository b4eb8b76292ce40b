// SPDX-License-Identifier: GPL-2.0

//! The module's counters: what moved between two looks at them.

use crate::env::Env;
use anyhow::{Context, Result, ensure};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// Where the module shows its counters.
pub const PATH: &str = "/sys/kernel/debug/btrfs_dio/stats";

/// Totals since the module was loaded. All zero if it is not.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stats(BTreeMap<String, u64>);

impl Stats {
    /// Reads the counters.
    pub fn read() -> Result<Self> {
        let text = std::fs::read_to_string(PATH).context(PATH)?;
        let mut all = BTreeMap::new();
        for line in text.lines() {
            let mut words = line.split_whitespace();
            if let (Some(name), Some(value)) = (words.next(), words.next()) {
                let value = value.parse().with_context(|| line.to_owned())?;
                all.insert(name.to_owned(), value);
            }
        }
        Ok(Self(all))
    }

    /// The counters, if there is a module.
    pub fn look(env: &Env) -> Result<Option<Self>> {
        env.module.then(Self::read).transpose()
    }

    /// What moved since a look at the counters, if there was one: reads were
    /// served, as many at a time as there may be, and none was declined.
    pub fn all_served(before: Option<&Self>) -> Result<Self> {
        let Some(before) = before else {
            return Ok(Self::default());
        };
        let moved = Self::read()?.since(before);
        let good = moved.get("reads") > 0 && moved.get("declined") == 0;
        ensure!(good, "not served directly, or not all of it: {moved}");
        Ok(moved)
    }

    /// The same, and at the first attempt.
    pub fn all_at_once(before: Option<&Self>) -> Result<Self> {
        let moved = Self::all_served(before)?;
        ensure!(moved.trouble() == 0, "not at the first attempt: {moved}");
        Ok(moved)
    }

    /// What does not move where disks are sound and nobody else writes to the buffer.
    /// A read that takes the wrong block at first is right in the end, too.
    pub fn trouble(&self) -> u64 {
        let names = [
            "csum_mismatches",
            "buffer_changed",
            "reread",
            "io_errors",
            "recovered",
            "rebuilt",
            "repaired",
            "unrepaired",
            "lost",
        ];
        names.iter().map(|name| self.get(name)).sum()
    }

    /// Waits until no private memory is in flight any more.
    pub fn settle() -> Result<()> {
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            let bytes = Self::read()?.get("private_bytes");
            if bytes == 0 {
                return Ok(());
            }
            ensure!(
                Instant::now() < deadline,
                "nobody reads, and {bytes} bytes of private memory are in use"
            );
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// These counters.
    pub fn of(pairs: &[(&str, u64)]) -> Self {
        Self(pairs.iter().map(|(n, v)| ((*n).to_owned(), *v)).collect())
    }

    /// Whether there is a counter of that name.
    pub fn knows(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }

    /// One counter; a counter that does not exist never moved.
    pub fn get(&self, name: &str) -> u64 {
        self.0.get(name).copied().unwrap_or(0)
    }

    /// What moved since `before`.
    pub fn since(&self, before: &Self) -> Self {
        let moved = self.0.iter().filter_map(|(name, &value)| {
            let delta = value.wrapping_sub(before.get(name));
            (delta != 0).then(|| (name.clone(), delta))
        });
        Self(moved.collect())
    }

    /// What moved here and there.
    pub fn and(mut self, other: &Self) -> Self {
        for (name, value) in &other.0 {
            *self.0.entry(name.clone()).or_default() += value;
        }
        self
    }

    /// The reasons for which reads were declined, without their prefix.
    pub fn reasons(&self) -> Vec<&str> {
        let reasons = self.0.iter().filter(|(_, value)| **value > 0);
        reasons
            .filter_map(|(name, _)| name.strip_prefix("declined_"))
            .collect()
    }
}

impl std::fmt::Display for Stats {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.0.is_empty() {
            return f.write_str("no counter moved");
        }
        let all: Vec<String> = self.0.iter().map(|(k, v)| format!("{k} +{v}")).collect();
        f.write_str(&all.join(", "))
    }
}
