// SPDX-License-Identifier: GPL-2.0

//! The groups of cases, and how they are run.

mod atime;
mod blame;
mod chaos;
mod cold;
mod compressed;
mod copies;
mod cpus;
mod declines;
mod dirty;
mod engines;
mod eof;
mod fair;
mod faults;
mod fio;
mod glance;
mod histories;
mod hostile;
mod landing;
mod large;
mod lifetime;
mod matrix;
mod mirror;
mod mutated;
mod neighbour;
mod nowait;
mod oracle;
mod powercut;
mod races;
mod reuse;
mod scribble;
mod shortage;
mod spread;
mod subblock;
mod suspended;
mod trace;
mod trouble;
mod unload;
mod vectored;

use crate::devices::Devices;
use crate::env::Env;
use crate::ktap::Ktap;
use crate::module;
use crate::stats::Stats;
use anyhow::{Result, anyhow, bail};
use std::sync::mpsc;
use std::time::{Duration, Instant};

/// What runs a case.
pub type Run = Box<dyn FnOnce(&Env) -> Result<()> + Send>;

/// A case: its name within its group, and what runs it.
pub struct Case {
    name: String,
    run: Run,
}

impl Case {
    /// A case.
    pub fn new(
        name: impl Into<String>,
        run: impl FnOnce(&Env) -> Result<()> + Send + 'static,
    ) -> Self {
        Self {
            name: name.into(),
            run: Box::new(run),
        }
    }
}

/// Cases that belong together.
pub struct Group {
    pub name: &'static str,
    cases: fn(&Env) -> Vec<Case>,
}

/// Every group, in the order they are run.
pub const GROUPS: [Group; 38] = [
    group("oracle", oracle::cases),
    group("matrix", matrix::cases),
    group("eof", eof::cases),
    group("vectored", vectored::cases),
    group("large", large::cases),
    group("cold", cold::cases),
    group("engines", engines::cases),
    group("nowait", nowait::cases),
    group("compressed", compressed::cases),
    group("subblock", subblock::cases),
    group("scribble", scribble::cases),
    group("dirty", dirty::cases),
    group("hostile", hostile::cases),
    group("mutated", mutated::cases),
    group("lifetime", lifetime::cases),
    group("fio", fio::cases),
    group("chaos", chaos::cases),
    group("glance", glance::cases),
    group("declines", declines::cases),
    group("faults", faults::cases),
    group("blame", blame::cases),
    group("copies", copies::cases),
    group("trouble", trouble::cases),
    group("shortage", shortage::cases),
    group("fair", fair::cases),
    group("mirror", mirror::cases),
    group("powercut", powercut::cases),
    group("spread", spread::cases),
    group("races", races::cases),
    group("reuse", reuse::cases),
    group("cpus", cpus::cases),
    group("landing", landing::cases),
    group("histories", histories::cases),
    group("unload", unload::cases),
    group("neighbour", neighbour::cases),
    group("atime", atime::cases),
    group("suspended", suspended::cases),
    group("trace", trace::cases),
];

/// No case takes this long, on any kernel, unless it hangs, or is told to do more
/// than is usual.
const LIMIT: Duration = Duration::from_secs(600);

const fn group(name: &'static str, cases: fn(&Env) -> Vec<Case>) -> Group {
    Group { name, cases }
}

/// Runs the named groups, or all. Whether everything passed.
pub fn run(env: Env, names: &[String]) -> Result<bool> {
    for name in names {
        if !GROUPS.iter().any(|g| g.name == name) {
            bail!("no such group: {name}");
        }
    }
    let mut cases = Vec::new();
    for group in &GROUPS {
        if names.is_empty() || names.iter().any(|n| n == group.name) {
            for case in (group.cases)(&env) {
                cases.push((format!("{}.{}", group.name, case.name), case.run));
            }
        }
    }
    if let Some(only) = &env.only {
        cases.retain(|(name, _)| name.contains(only.as_str()));
    }
    let mut ktap = Ktap::default();
    ktap.plan(cases.len());
    for (name, case) in cases {
        let env = Env {
            case: name,
            ..env.clone()
        };
        ktap.begin(&env);
        let start = Instant::now();
        let (hung, result) = watched(env.clone(), case);
        ktap.result(&env, &result, start.elapsed().as_secs_f32());
        if hung {
            bail!("{}: hangs, giving up", env.case);
        }
        module::restore(&env);
    }
    Ok(ktap.passed())
}

/// Runs a case in a thread of its own. One that takes too long is left behind,
/// after asking the kernel where its tasks are stuck.
fn watched(env: Env, case: Run) -> (bool, Result<()>) {
    let (sender, receiver) = mpsc::channel();
    let limit = LIMIT.max(LIMIT * env.rounds / 100);
    let thread = std::thread::spawn(move || {
        let result = case(&env).and_then(|()| match env.module && module::loaded() {
            true => Stats::settle().and_then(|()| Devices::settle()),
            false => Ok(()),
        });
        let _ = sender.send(());
        result
    });
    match receiver.recv_timeout(limit) {
        Err(mpsc::RecvTimeoutError::Timeout) => {
            let _ = std::fs::write("/proc/sysrq-trigger", "w");
            (true, Err(anyhow!("no end after {} s", limit.as_secs())))
        }
        _ => match thread.join() {
            Ok(result) => (false, result),
            Err(_) => (false, Err(anyhow!("panicked, see above"))),
        },
    }
}
