// SPDX-License-Identifier: GPL-2.0

//! The watchdog of hung tasks: whom it takes for hung.

use anyhow::{Context, Result, bail};
use std::path::Path;
use std::time::Duration;

/// After how many seconds a task is taken for hung: the next one if there was one.
///
/// A machine that stands still for as long makes tasks look hung that are not, but not so each time.
const SECONDS: [u64; 3] = [5, 10, 20];

/// A setting of the kernel. What it was before is put back on drop.
struct Setting {
    name: &'static str,
    before: String,
}

impl Setting {
    fn new(name: &'static str, value: u64) -> Result<Self> {
        let before = get(name)?;
        put(name, &value.to_string())?;
        Ok(Self { name, before })
    }
}

impl Drop for Setting {
    fn drop(&mut self) {
        if let Err(error) = put(self.name, &self.before) {
            eprintln!("# {error:#}");
        }
    }
}

fn get(name: &str) -> Result<String> {
    let path = Path::new("/proc/sys/kernel").join(name);
    let text = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    Ok(text.trim().to_owned())
}

fn put(name: &str, value: &str) -> Result<()> {
    let path = Path::new("/proc/sys/kernel").join(name);
    std::fs::write(&path, value).with_context(|| path.display().to_string())
}

/// The watchdog, told to be quick, and to say nothing: a word of it would fail the run, though it
/// may be the machine that stood still.
pub struct Watchdog {
    timeout: Setting,
    _quiet: [Setting; 2],
}

impl Watchdog {
    /// To be called before anybody waits: mainline looks at the timeout when it begins to.
    pub fn new() -> Result<Self> {
        Ok(Self {
            _quiet: [
                Setting::new("hung_task_panic", 0)?,
                Setting::new("hung_task_warnings", 0)?,
            ],
            timeout: Setting::new("hung_task_timeout_secs", SECONDS[0])?,
        })
    }

    /// Waits for twice as long as the watchdog does, and fails if it takes tasks for hung.
    pub fn nobody(&self) -> Result<()> {
        let mut found = Vec::new();
        for seconds in SECONDS {
            put(self.timeout.name, &seconds.to_string())?;
            let before: u64 = get("hung_task_detect_count")?.parse()?;
            // It looks as often as it waits.
            std::thread::sleep(Duration::from_secs(2 * seconds + 2));
            let after: u64 = get("hung_task_detect_count")?.parse()?;
            if after == before {
                return Ok(());
            }
            found = blocked();
            eprintln!("# hung for {seconds} s, {}: {found:?}", after - before);
        }
        bail!("taken for hung, some of: {found:?}")
    }
}

/// All tasks that wait for something without being idle, and for what they do.
fn blocked() -> Vec<String> {
    let mut found = Vec::new();
    let all = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    for task in all.flat_map(|process| std::fs::read_dir(process.path().join("task"))) {
        for task in task.flatten() {
            let read = |name| std::fs::read_to_string(task.path().join(name)).unwrap_or_default();
            if read("status").contains("State:\tD") {
                let stack = read("stack");
                let calls: Vec<_> = stack.lines().take(3).collect();
                found.push(format!("{} {calls:?}", read("comm").trim_end()));
            }
        }
    }
    found
}
