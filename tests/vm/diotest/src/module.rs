// SPDX-License-Identifier: GPL-2.0

//! Unloads and loads the module under test.

use crate::env::{Env, skip};
use crate::{stats, sys};
use anyhow::{Context, Result, ensure};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Name of the module.
pub const NAME: &str = "btrfs_dio";

/// Whether it is loaded.
pub fn loaded() -> bool {
    Path::new(stats::PATH).exists()
}

/// Unloads it, and checks that it left nothing behind.
pub fn unload() -> Result<()> {
    sys::delete_module(NAME).context("rmmod")?;
    for left in ["/sys/kernel/debug/btrfs_dio", "/sys/module/btrfs_dio"] {
        ensure!(!Path::new(left).exists(), "unloaded, but there is {left}");
    }
    Ok(())
}

/// Unloads it, however often it has to be asked: one that somebody is inside of may
/// say so.
pub fn unload_in_time() -> Result<()> {
    for _ in 0..1000 {
        match unload() {
            Err(e) if is_busy(&e) => std::thread::sleep(Duration::from_millis(10)),
            other => return other,
        }
    }
    unload().context("busy for 10 s")
}

/// Whether unloading failed as somebody was inside of it.
pub fn is_busy(error: &anyhow::Error) -> bool {
    let errno = error
        .downcast_ref::<std::io::Error>()
        .and_then(|e| e.raw_os_error());
    errno == Some(libc::EAGAIN)
}

/// Loads it.
pub fn load(env: &Env) -> Result<()> {
    load_with(env, "")
}

/// Loads it with parameters.
pub fn load_with(env: &Env, parameters: &str) -> Result<()> {
    let Some(ko) = &env.ko else {
        return Err(skip("needs --ko or BTRFS_DIO_KO"));
    };
    let file = File::open(ko).with_context(|| ko.display().to_string())?;
    sys::finit_module(&file, parameters)
        .with_context(|| format!("insmod {} {parameters}", ko.display()))?;
    ensure!(loaded(), "loaded, but there is no {}", stats::PATH);
    Ok(())
}

/// Skips a case that cannot unload the module and load it again.
pub fn able(env: &Env) -> Result<()> {
    if !env.module {
        return Err(skip("no module to unload"));
    }
    match env.ko {
        Some(_) => Ok(()),
        None => Err(skip("needs --ko or BTRFS_DIO_KO")),
    }
}

/// Runs `f` with the module loaded with other parameters.
pub fn with<T>(env: &Env, parameters: &str, f: impl FnOnce() -> Result<T>) -> Result<T> {
    able(env)?;
    without(env, || {
        load_with(env, parameters)?;
        let result = f();
        unload()?;
        result
    })
}

/// Runs `f` with the module unloaded. Without one, just runs `f`.
pub fn without<T>(env: &Env, f: impl FnOnce() -> Result<T>) -> Result<T> {
    if !env.module {
        return f();
    }
    able(env)?;
    unload()?;
    let result = f();
    load(env)?;
    result
}

/// Loads it if a failed case left it unloaded.
pub fn restore(env: &Env) {
    if env.module && !loaded() {
        std::thread::sleep(Duration::from_millis(100));
        if let Err(error) = load(env) {
            eprintln!("# cannot load the module again: {error:#}");
        }
    }
}

/// A parameter that can be set at any time. What it was before is put back on drop.
pub struct Parameter {
    path: PathBuf,
    before: Option<String>,
}

impl Parameter {
    /// Sets it, if there is a module.
    pub fn set(env: &Env, name: &str, value: &str) -> Result<Self> {
        let path = Path::new("/sys/module")
            .join(NAME)
            .join("parameters")
            .join(name);
        let mut parameter = Self { path, before: None };
        if env.module {
            parameter.before = Some(parameter.get()?);
            parameter.put(value)?;
        }
        Ok(parameter)
    }

    fn get(&self) -> Result<String> {
        let text = std::fs::read_to_string(&self.path);
        let text = text.with_context(|| self.path.display().to_string())?;
        Ok(text.trim_end().to_owned())
    }

    fn put(&self, value: &str) -> Result<()> {
        let put = std::fs::write(&self.path, value);
        put.with_context(|| format!("{value} to {}", self.path.display()))
    }
}

impl Drop for Parameter {
    fn drop(&mut self) {
        // A case that unloads the module loses it.
        let Some(before) = self.before.take().filter(|_| loaded()) else {
            return;
        };
        if let Err(error) = self.put(&before) {
            eprintln!("# {error:#}");
        }
    }
}

/// The parameter that says which copy is read.
const POLICY: &str = "/sys/module/btrfs_dio/parameters/read_policy";

/// By which rule copies are chosen. What it was before is put back on drop.
pub struct Policy(#[expect(dead_code, reason = "for its drop")] Parameter);

impl Policy {
    /// Sets it. Without a module, mainline has its own.
    pub fn set(env: &Env, name: &str) -> Result<Self> {
        Parameter::set(env, "read_policy", name).map(Self)
    }

    /// btrfs's own, by the pid of the reader.
    pub fn fs(env: &Env) -> Result<Self> {
        Self::set(env, "fs")
    }

    /// Its name as of now.
    pub fn get() -> Result<String> {
        let text = std::fs::read_to_string(POLICY).context(POLICY)?;
        let name = text.strip_suffix('\n').context("a line")?;
        Ok(name.to_owned())
    }

    /// Sets it, for good.
    pub fn put(name: &str) -> std::io::Result<()> {
        std::fs::write(POLICY, name)
    }
}
