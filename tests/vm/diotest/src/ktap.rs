// SPDX-License-Identifier: GPL-2.0

//! Results in the kernel's test format: KTAP lines on stdout, details on stderr.

use crate::env::{Env, Skip};
use std::io::Write;

/// Counts the cases that were run and prints a line for each.
#[derive(Default)]
pub struct Ktap {
    number: u32,
    failed: u32,
}

impl Ktap {
    /// Announces `cases` results.
    pub fn plan(&self, cases: usize) {
        println!("KTAP version 1\n1..{cases}");
    }

    /// Says on stderr what is about to run, for whoever reads a hang.
    pub fn begin(&self, env: &Env) {
        eprintln!("# {}: begin", env.case);
    }

    /// Prints the result of the case that `env` names.
    pub fn result(&mut self, env: &Env, result: &anyhow::Result<()>, seconds: f32) {
        self.number += 1;
        let (number, case) = (self.number, &env.case);
        match result {
            Ok(()) => println!("ok {number} {case}"),
            Err(error) => match error.downcast_ref::<Skip>() {
                Some(why) => println!("ok {number} {case} # SKIP {why}"),
                None => {
                    self.failed += 1;
                    println!("not ok {number} {case}");
                    eprintln!("# {case}: FAILED: seed={} {error:#}", env.seed);
                }
            },
        }
        eprintln!("# {case}: {seconds:.1} s");
        let _ = std::io::stdout().flush();
    }

    /// Whether nothing failed.
    pub fn passed(&self) -> bool {
        self.failed == 0
    }
}
