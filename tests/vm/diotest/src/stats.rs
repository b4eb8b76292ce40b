// SPDX-License-Identifier: GPL-2.0

//! The module's counters: what moved between two looks at them.

use anyhow::{Context, Result};
use std::collections::BTreeMap;

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

    /// These counters.
    pub fn of(pairs: &[(&str, u64)]) -> Self {
        Self(pairs.iter().map(|(n, v)| ((*n).to_owned(), *v)).collect())
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
