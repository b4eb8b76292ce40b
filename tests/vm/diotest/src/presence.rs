// SPDX-License-Identifier: GPL-2.0

//! The module comes and goes while others read: which of their reads it can have
//! served, and what it had counted before it went.

use crate::env::Env;
use crate::module;
use crate::stats::Stats;
use anyhow::Result;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::time::Duration;

/// Whether there is a module, as far as those who read can tell.
#[derive(Default)]
pub struct Presence {
    /// Odd while it is about to go, away, or about to be back.
    turn: AtomicU64,
    lives: Mutex<Lives>,
}

/// What it has counted.
#[derive(Default)]
struct Lives {
    /// When it went, each time: since it had come, or in all if it had not come here.
    past: Vec<Stats>,
    /// When it came last.
    began: Option<Stats>,
}

impl Lives {
    /// What moved since it came last, or `before`.
    fn last(&self, before: &Stats) -> Result<Stats> {
        Ok(Stats::read()?.since(self.began.as_ref().unwrap_or(before)))
    }
}

impl Presence {
    /// To be asked before a read, for [`Self::ever_since`].
    pub fn turn(&self) -> u64 {
        self.turn.load(SeqCst)
    }

    /// Whether the module has been there all the time since then.
    pub fn ever_since(&self, turn: u64) -> bool {
        turn % 2 == 0 && self.turn() == turn
    }

    /// Unloads it, waits, and loads it again. If that fails it is not there any more.
    pub fn reload(&self, env: &Env) -> Result<()> {
        // Nobody looks for its counters meanwhile.
        let mut lives = self.lives.lock().expect("not poisoned");
        // In this order: whatever began and ended while it was there has been counted.
        self.turn.fetch_add(1, SeqCst);
        let life = lives.last(&Stats::default())?;
        lives.past.push(life);
        module::unload_in_time()?;
        std::thread::sleep(Duration::from_millis(50));
        module::load(env)?;
        // What others did before they could tell that it is there does not count.
        lives.began = Some(Stats::read()?);
        self.turn.fetch_add(1, SeqCst);
        Ok(())
    }

    /// What moved since `before`, and since each time it came.
    pub fn moved(&self, before: &Stats) -> Result<Stats> {
        let lives = self.lives.lock().expect("not poisoned");
        let last = lives.last(before)?;
        let Some((first, rest)) = lives.past.split_first() else {
            return Ok(last);
        };
        let first = first.since(before);
        Ok(rest.iter().chain([&last]).fold(first, |all, s| all.and(s)))
    }

    /// How many times it went.
    pub fn times(&self) -> usize {
        self.lives.lock().expect("not poisoned").past.len()
    }
}
