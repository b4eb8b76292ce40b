// SPDX-License-Identifier: GPL-2.0

//! What a run was asked to do, and what all its cases share.

use crate::module;
use anyhow::{Result, ensure};
use rand::{SeedableRng, rngs::SmallRng};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Everything a case may depend on besides its name.
#[derive(Clone, Debug)]
pub struct Env {
    /// Block devices that the cases may overwrite.
    pub disks: Vec<PathBuf>,
    /// The one number every random choice follows from.
    pub seed: u64,
    /// Amount of work in percent of the usual.
    pub rounds: u32,
    /// Everything that is usually sampled.
    pub full: bool,
    /// Run only cases whose name contains this.
    pub only: Option<String>,
    /// Whether the module is loaded and its counters are asserted.
    pub module: bool,
    /// The module's file, for cases that unload and load it.
    pub ko: Option<PathBuf>,
    /// Where file systems are mounted.
    pub mnt: PathBuf,
    /// Name of the running case, `group.case`.
    pub case: String,
}

impl Default for Env {
    fn default() -> Self {
        Self {
            disks: Vec::new(),
            seed: 1,
            rounds: 100,
            full: false,
            only: None,
            module: true,
            ko: std::env::var_os("BTRFS_DIO_KO").map(PathBuf::from),
            mnt: PathBuf::from("/tmp/diotest.mnt"),
            case: String::new(),
        }
    }
}

impl Env {
    /// Checks that what the run needs is there.
    pub fn prepare(&mut self) -> Result<()> {
        ensure!(!self.disks.is_empty(), "no disks given (--disks A,B,...)");
        for disk in &self.disks {
            ensure!(disk.exists(), "no such device: {}", disk.display());
        }
        if self.module {
            ensure!(
                module::loaded(),
                "the module is not loaded (or say --no-module)"
            );
        } else {
            ensure!(!module::loaded(), "--no-module, but the module is loaded");
        }
        std::fs::create_dir_all(&self.mnt)?;
        Ok(())
    }

    /// A random generator that depends on the seed and the case alone, so that
    /// a case repeats whatever else was run before it.
    pub fn rng(&self, salt: u64) -> SmallRng {
        let mut hash = self.seed ^ salt.rotate_left(32);
        for byte in self.case.bytes() {
            hash = (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
        SmallRng::seed_from_u64(hash)
    }

    /// `usual` scaled by `--rounds`, at least one.
    pub fn scaled(&self, usual: u32) -> u32 {
        (usual * self.rounds / 100).max(1)
    }

    /// How long a race of usually `seconds` runs.
    pub fn duration(&self, seconds: u32) -> Duration {
        Duration::from_millis(u64::from(seconds * 10 * self.rounds).max(1000))
    }

    /// The first `n` disks, or a reason to skip.
    pub fn take(&self, n: usize) -> Result<&[PathBuf]> {
        match self.disks.get(..n) {
            Some(disks) => Ok(disks),
            None => Err(skip(format!("needs {n} disks"))),
        }
    }
}

/// Whether the kernel checks itself so much that its speed says nothing.
pub fn debug_kernel() -> bool {
    Path::new("/sys/kernel/debug/kmemleak").exists()
}

/// The error of a case that cannot be run here.
#[derive(Debug)]
pub struct Skip(pub String);

impl std::fmt::Display for Skip {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Skip {}

/// Ends a case that cannot be run here.
pub fn skip(why: impl Into<String>) -> anyhow::Error {
    Skip(why.into()).into()
}
