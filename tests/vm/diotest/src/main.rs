// SPDX-License-Identifier: GPL-2.0

//! Tests of O_DIRECT reads on btrfs, to be run as root inside a guest.
//!
//! `diotest run GROUP...` runs groups of cases and prints one KTAP line for
//! each; `diotest list` names them; `diotest demo` shows a table for people.
//!
//! Every case knows which bytes a read must deliver, because it wrote them,
//! and, when the module is loaded, asserts by its counters who delivered them:
//! a read that silently fell back to the page cache fails its case.

mod aio;
mod blocks;
mod buffer;
mod cases;
mod cgroup;
mod chunks;
mod deep;
mod demo;
mod device;
mod devices;
mod env;
mod fiemap;
mod flood;
mod fs;
mod gpt;
mod hung;
mod inject;
mod kinds;
mod ktap;
mod mirrors;
mod model;
mod module;
mod nullb;
mod packed;
mod pagecache;
mod presence;
mod race;
mod read;
mod shrink;
mod stats;
mod subject;
mod sys;
mod tracing;
mod tree;

use anyhow::{Result, bail};
use env::Env;
use std::process::ExitCode;

const USAGE: &str = "\
usage: diotest run [OPTION]... [GROUP]...    run groups of cases (default: all)
       diotest list                          name the groups
       diotest demo [OPTION]...              a table of what the module serves

  --disks A,B,...   block devices to use; their contents are lost
  --seed N          what every random choice follows from (default: 1)
  --rounds N        how much of everything, in percent (default: 100)
  --full            all that is usually sampled
  --only NAME       run only cases whose name contains NAME
  --no-module       run on the unmodified path: assert data, not counters
  --ko PATH         the module, for cases that unload and load it
";

fn parse() -> Result<(String, Vec<String>, Env)> {
    use lexopt::prelude::*;

    let mut command = None;
    let mut groups = Vec::new();
    let mut env = Env::default();
    let mut parser = lexopt::Parser::from_env();
    while let Some(arg) = parser.next()? {
        match arg {
            Long("disks") => {
                let list = parser.value()?.string()?;
                env.disks = list.split(',').map(Into::into).collect();
            }
            Long("seed") => env.seed = parser.value()?.parse()?,
            Long("rounds") => env.rounds = parser.value()?.parse()?,
            Long("full") => env.full = true,
            Long("only") => env.only = Some(parser.value()?.string()?),
            Long("no-module") => env.module = false,
            Long("ko") => env.ko = Some(parser.value()?.into()),
            Short('h') | Long("help") => {
                print!("{USAGE}");
                std::process::exit(0);
            }
            Value(v) if command.is_none() => command = Some(v.string()?),
            Value(v) => groups.push(v.string()?),
            _ => return Err(arg.unexpected().into()),
        }
    }
    match command {
        Some(command) => Ok((command, groups, env)),
        None => bail!("no command given\n{USAGE}"),
    }
}

fn dispatch() -> Result<bool> {
    let (command, groups, mut env) = parse()?;
    match command.as_str() {
        "list" => {
            for group in cases::GROUPS {
                println!("{}", group.name);
            }
            Ok(true)
        }
        "run" => {
            env.prepare()?;
            cases::run(env, &groups)
        }
        "demo" => {
            env.prepare()?;
            demo::run(&env)
        }
        // What cases of the tests kill.
        "flood" => flood::run(&env, &groups).map(|()| true),
        // What cases of the tests put into a cgroup.
        "deep" => deep::run(&groups).map(|()| true),
        other => bail!("unknown command `{other}`\n{USAGE}"),
    }
}

fn main() -> ExitCode {
    match dispatch() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(error) => {
            eprintln!("diotest: {error:#}");
            ExitCode::from(2)
        }
    }
}
