// SPDX-License-Identifier: GPL-2.0

//! Readers of a cgroup whose memory is less than their buffers, with swap: their
//! pages are swapped, and nobody is killed.

use super::Case;
use crate::aio::Engine;
use crate::device::Mapped;
use crate::env::Env;
use crate::fs::{self, Csum, Fs, Spec};
use crate::limited::{self, Way};
use crate::stats::Stats;
use anyhow::{Context, Result, ensure};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};

/// How much memory there is.
const MEMORY: &str = "40M";
/// How long reads take that are to be in flight together, in milliseconds.
const DELAY: u32 = 300;

pub fn cases(_: &Env) -> Vec<Case> {
    let mut cases = Vec::new();
    for way in [
        Way::Whole,
        Way::Threads,
        Way::Queue(Engine::Libaio),
        Way::Queue(Engine::Uring),
    ] {
        cases.push(Case::new(way.name(), move |env| swapped(env, way)));
    }
    cases.push(Case::new("killed", killed));
    cases
}

/// Swap space, until this is dropped.
struct Swap<'a>(&'a Path);

impl<'a> Swap<'a> {
    fn on(device: &'a Path) -> Result<Self> {
        let name = fs::path(device);
        fs::run("mkswap", [name])?;
        fs::run("swapon", [name])?;
        Ok(Self(device))
    }
}

impl Drop for Swap<'_> {
    fn drop(&mut self) {
        if let Err(error) = fs::run("swapoff", [fs::path(self.0)]) {
            eprintln!("# {error:#}");
        }
    }
}

/// A cgroup with little memory. Removed on drop.
struct Group(PathBuf);

impl Group {
    const ROOT: &str = "/sys/fs/cgroup";

    /// A cgroup that may use as much `swap`.
    fn make(swap: &str) -> Result<Self> {
        let root = Path::new(Self::ROOT);
        if !root.join("cgroup.procs").exists() {
            fs::run("mount", ["-t", "cgroup2", "none", Self::ROOT])?;
        }
        put(&root.join("cgroup.subtree_control"), "+memory")?;
        let group = Self(root.join("diotest.swap"));
        std::fs::create_dir_all(&group.0)?;
        put(&group.0.join("memory.max"), MEMORY)?;
        put(&group.0.join("memory.swap.max"), swap)?;
        Ok(group)
    }

    /// How often a process of it was killed for want of memory.
    fn kills(&self) -> Result<u64> {
        let path = self.0.join("memory.events");
        let text = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        let line = text.lines().find_map(|line| line.strip_prefix("oom_kill "));
        Ok(line.context("oom_kill")?.parse()?)
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir(&self.0) {
            eprintln!("# {}: {error}", self.0.display());
        }
    }
}

fn put(path: &Path, value: &str) -> Result<()> {
    std::fs::write(path, value).with_context(|| format!("{value} to {}", path.display()))
}

fn swapped(env: &Env, way: Way) -> Result<()> {
    let disks = env.take(2)?;
    let below = Mapped::new("swap0", &disks[0])?;
    let fs = Fs::make_on(env, &Spec::new("single", Csum::Crc32c), vec![below.path()])?;
    let path = fs.path("file");
    limited::fill(&path)?;
    let _swap = Swap::on(&disks[1])?;
    let group = Group::make("max")?;
    if let Way::Queue(_) = way {
        below.delay(DELAY)?;
    }
    let before = Stats::look(env)?;
    let (status, said) = limited::read(&group.0, way, &path)?;
    let moved = match &before {
        Some(before) => Stats::read()?.since(before),
        None => Stats::default(),
    };
    below.heal()?;
    eprintln!("# {}: {moved}", env.case);
    let kills = group.kills()?;
    ensure!(
        kills == 0 && status.success(),
        "{status}, {kills} killed: {said}; {moved}"
    );
    if env.module {
        let (declined, memory) = (moved.get("declined"), moved.get("declined_memory"));
        ensure!(declined == memory, "declined for other reasons: {moved}");
        // Who waits can always read a little less at a time.
        let most = match way {
            Way::Queue(_) => way.reads() - 1,
            _ => 0,
        };
        ensure!(
            declined <= most,
            "of {} reads {declined} declined: {moved}",
            way.reads()
        );
        ensure!(moved.get("reads") > 0, "none was served: {moved}");
    }
    Ok(())
}

/// Without swap, a reader is killed that reads into more memory than there is. That is
/// no fault of its buffer.
fn killed(env: &Env) -> Result<()> {
    let fs = Fs::make(env, &Spec::new("single", Csum::Crc32c))?;
    let path = fs.path("file");
    limited::fill(&path)?;
    let group = Group::make("0")?;
    let before = Stats::look(env)?;
    let (status, said) = limited::read(&group.0, Way::Untouched, &path)?;
    let kills = group.kills()?;
    let killed = status.signal() == Some(libc::SIGKILL) && kills == 1;
    ensure!(killed, "{status}, {kills} killed: {said}");
    if let Some(before) = before {
        let moved = Stats::read()?.since(&before);
        let counted = moved.get("declined") == 0 && moved.get("reads") == 1;
        ensure!(counted, "not one read that ended by a signal: {moved}");
    }
    Ok(())
}
