// SPDX-License-Identifier: GPL-2.0

//! Events of the kernel's tracer.

use anyhow::{Context, Result};
use std::path::Path;

const TRACING: &str = "/sys/kernel/tracing";

/// Events that are being recorded, until this is dropped.
pub struct Events(String);

impl Events {
    /// Begins to record `what`, a system of events or one of them.
    pub fn of(what: &str) -> Result<Self> {
        set("trace", "")?;
        set("tracing_on", "1")?;
        let events = Self(format!("events/{what}/enable"));
        set(&events.0, "1")?;
        Ok(events)
    }

    /// Ends recording. What was recorded, a line for each.
    pub fn end(self) -> Result<String> {
        set(&self.0, "0")?;
        let path = Path::new(TRACING).join("trace");
        std::fs::read_to_string(&path).with_context(|| path.display().to_string())
    }
}

impl Drop for Events {
    fn drop(&mut self) {
        let _ = set(&self.0, "0");
    }
}

fn set(file: &str, value: &str) -> Result<()> {
    let path = Path::new(TRACING).join(file);
    std::fs::write(&path, value).with_context(|| path.display().to_string())
}
