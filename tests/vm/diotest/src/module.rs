// SPDX-License-Identifier: GPL-2.0

//! Unloads and loads the module under test.

use crate::env::{Env, skip};
use crate::{stats, sys};
use anyhow::{Context, Result, ensure};
use std::fs::File;
use std::path::Path;
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

/// Loads it.
pub fn load(env: &Env) -> Result<()> {
    let Some(ko) = &env.ko else {
        return Err(skip("needs --ko or BTRFS_DIO_KO"));
    };
    let file = File::open(ko).with_context(|| ko.display().to_string())?;
    sys::finit_module(&file).with_context(|| format!("insmod {}", ko.display()))?;
    ensure!(loaded(), "loaded, but there is no {}", stats::PATH);
    Ok(())
}

/// Runs `f` with the module unloaded. Without one, just runs `f`.
pub fn without<T>(env: &Env, f: impl FnOnce() -> Result<T>) -> Result<T> {
    if !env.module {
        return f();
    }
    if env.ko.is_none() {
        return Err(skip("needs --ko or BTRFS_DIO_KO"));
    }
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
