// SPDX-License-Identifier: GPL-2.0

//! Makes, mounts and unmounts btrfs of every profile and checksum type.

use crate::env::Env;
use crate::sys;
use anyhow::{Context, Result, bail};
use std::path::{Path, PathBuf};
use std::process::Command;

/// How data is laid out over devices: mkfs's name and the devices it takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Profile {
    pub name: &'static str,
    pub devices: usize,
    pub copies: u32,
}

/// Every profile whose reads are served directly.
pub const PROFILES: [Profile; 7] = [
    profile("single", 1, 1),
    profile("dup", 1, 2),
    profile("raid0", 3, 1),
    profile("raid1", 2, 2),
    profile("raid1c3", 3, 3),
    profile("raid1c4", 4, 4),
    profile("raid10", 4, 2),
];

/// The parity profiles.
pub const PARITY: [Profile; 2] = [profile("raid5", 3, 1), profile("raid6", 4, 1)];

const fn profile(name: &'static str, devices: usize, copies: u32) -> Profile {
    Profile {
        name,
        devices,
        copies,
    }
}

/// The profile of that name.
pub fn by_name(name: &str) -> Profile {
    let mut all = PROFILES.iter().chain(&PARITY);
    *all.find(|p| p.name == name).expect("a known profile")
}

/// How data is protected: a checksum type, or none, for one of two reasons.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Csum {
    Crc32c,
    Xxhash,
    Sha256,
    Blake2,
    /// Mounted without data checksums.
    NoDataSum,
    /// Neither checksums nor copy on write, by file attribute.
    NoCow,
}

/// Every way to protect data or not to.
pub const CSUMS: [Csum; 6] = [
    Csum::Crc32c,
    Csum::Xxhash,
    Csum::Sha256,
    Csum::Blake2,
    Csum::NoDataSum,
    Csum::NoCow,
];

impl Csum {
    /// A name for cases and tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::NoDataSum => "nodatasum",
            Self::NoCow => "nocow",
            Self::Blake2 => "blake2b",
            other => other.algorithm(),
        }
    }

    /// mkfs's name of the algorithm.
    fn algorithm(self) -> &'static str {
        match self {
            Self::Xxhash => "xxhash",
            Self::Sha256 => "sha256",
            Self::Blake2 => "blake2",
            _ => "crc32c",
        }
    }
}

/// What a file system is to be like.
#[derive(Clone, Debug)]
pub struct Spec {
    pub profile: Profile,
    pub csum: Csum,
    /// More mount options.
    pub options: String,
    /// Whether reads move access times. Each time that takes a transaction, after which checksums are
    /// looked up anew: a test that counts does not want that at a moment of its own.
    pub access_times: bool,
}

impl Spec {
    pub fn new(profile: &str, csum: Csum) -> Self {
        Self {
            profile: by_name(profile),
            csum,
            options: String::new(),
            access_times: false,
        }
    }

    /// As `mount(8)` does it by default.
    pub fn access_times(mut self) -> Self {
        self.access_times = true;
        self
    }

    pub fn options(mut self, options: &str) -> Self {
        self.options = options.into();
        self
    }
}

/// A mounted file system. Unmounted on drop.
pub struct Fs {
    pub mnt: PathBuf,
    pub devices: Vec<PathBuf>,
    pub spec: Spec,
    mounted: bool,
}

impl Fs {
    /// Makes a file system on the first disks and mounts it.
    pub fn make(env: &Env, spec: &Spec) -> Result<Self> {
        let devices = env.take(spec.profile.devices)?.to_vec();
        Self::make_on(env, spec, devices)
    }

    /// Makes a file system on `devices` and mounts it.
    pub fn make_on(env: &Env, spec: &Spec, devices: Vec<PathBuf>) -> Result<Self> {
        let data = spec.profile.name;
        let metadata = match data {
            "single" => "dup",
            "raid5" | "raid6" => "raid1",
            other => other,
        };
        // What other cases left behind must not be taken for part of this one.
        sys::umount_lazily(&env.mnt);
        let _ = run("btrfs", ["device", "scan", "--forget"]);
        let mut args = vec!["-q", "-f", "-K", "-d", data, "-m", metadata];
        args.extend(["--csum", spec.csum.algorithm()]);
        args.extend(
            devices
                .iter()
                .map(|d| d.to_str().expect("a printable path")),
        );
        run("mkfs.btrfs", args)?;
        let mut fs = Self {
            mnt: env.mnt.clone(),
            devices,
            spec: spec.clone(),
            mounted: false,
        };
        fs.mount()?;
        if spec.csum == Csum::NoCow {
            run("chattr", ["+C", path(&fs.mnt)])?;
        }
        Ok(fs)
    }

    /// Mounts what is not mounted.
    pub fn mount(&mut self) -> Result<()> {
        let mut options: Vec<String> = Vec::new();
        for device in &self.devices {
            options.push(format!("device={}", device.display()));
        }
        if self.spec.csum == Csum::NoDataSum {
            options.push("nodatasum".into());
        }
        if !self.spec.options.is_empty() {
            options.push(self.spec.options.clone());
        }
        let options = options.join(",");
        let flags = match self.spec.access_times {
            true => 0,
            false => libc::MS_NOATIME,
        };
        sys::mount(&self.devices[0], &self.mnt, flags, &options)
            .with_context(|| format!("mount -o {options}"))?;
        self.mounted = true;
        Ok(())
    }

    /// Unmounts, as far as the file system lets go of its files in time.
    pub fn umount(&mut self) -> Result<()> {
        for _ in 0..600 {
            match sys::umount(&self.mnt) {
                Ok(()) => {
                    self.mounted = false;
                    return Ok(());
                }
                Err(e) if e.raw_os_error() == Some(libc::EBUSY) => {
                    std::thread::sleep(std::time::Duration::from_millis(100));
                }
                Err(e) => return Err(e).context("umount"),
            }
        }
        bail!("umount: still busy")
    }

    /// Unmounts and mounts again: no page, no extent map and no checksum of
    /// before is cached afterwards.
    pub fn remount(&mut self) -> Result<()> {
        self.umount()?;
        self.mount()
    }

    /// A path inside.
    pub fn path(&self, name: impl AsRef<Path>) -> PathBuf {
        self.mnt.join(name)
    }

    /// Runs `btrfs` with `args` and then the mount point.
    pub fn btrfs<'a>(&'a self, args: impl IntoIterator<Item = &'a str>) -> Result<String> {
        run("btrfs", args.into_iter().chain([path(&self.mnt)]))
    }

    /// Writes everything out and commits.
    pub fn sync(&self) -> Result<()> {
        self.btrfs(["filesystem", "sync"]).map(drop)
    }
}

impl Drop for Fs {
    fn drop(&mut self) {
        if self.mounted && self.umount().is_err() {
            sys::umount_lazily(&self.mnt);
        }
    }
}

/// A path that is printable because we chose it.
pub fn path(path: &Path) -> &str {
    path.to_str().expect("a printable path")
}

/// Runs a program and returns what it printed; an error tells all it said.
pub fn run<'a>(program: &str, args: impl IntoIterator<Item = &'a str>) -> Result<String> {
    let args: Vec<&str> = args.into_iter().collect();
    let output = Command::new(program)
        .args(&args)
        .env("DM_DISABLE_UDEV", "1")
        .output()
        .with_context(|| program.to_owned())?;
    if !output.status.success() {
        bail!(
            "{program} {}: {}: {}{}",
            args.join(" "),
            output.status,
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr),
        );
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
