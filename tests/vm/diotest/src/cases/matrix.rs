// SPDX-License-Identifier: GPL-2.0

//! Every kind of extent, on every profile, under every checksum type, read at
//! random: the bytes are right, the module served them by the expected path,
//! and the page cache stayed empty.

use super::Case;
use crate::env::Env;
use crate::fs::{CSUMS, Csum, Fs, PARITY, PROFILES, Spec};
use crate::kinds;
use crate::read::{Request, Via};
use crate::subject::Subject;
use anyhow::Result;
use rand::seq::SliceRandom;

/// Each profile with crc32c, each other checksum type once, and some of the rest.
pub fn cases(env: &Env) -> Vec<Case> {
    let mut pairs: Vec<(&str, Csum)> = Vec::new();
    for profile in PROFILES.into_iter().chain(PARITY) {
        pairs.push((profile.name, Csum::Crc32c));
    }
    for (i, csum) in CSUMS.into_iter().skip(1).enumerate() {
        pairs.push((["raid1", "single"][i % 2], csum));
    }
    let mut rest = Vec::new();
    for profile in PROFILES.into_iter().chain(PARITY) {
        for csum in CSUMS {
            if !pairs.contains(&(profile.name, csum)) {
                rest.push((profile.name, csum));
            }
        }
    }
    rest.shuffle(&mut env.rng(0));
    rest.truncate(env.scaled(3) as usize);
    pairs.extend(rest);
    let case = |(profile, csum): (&'static str, Csum)| {
        let name = format!("{profile}-{}", csum.name());
        Case::new(name, move |env| one(env, &Spec::new(profile, csum)))
    };
    pairs.into_iter().map(case).collect()
}

fn one(env: &Env, spec: &Spec) -> Result<()> {
    let mut fs = Fs::make(env, spec)?;
    let files = kinds::all(env, &fs)?;
    fs.remount()?;
    let mut rng = env.rng(100);
    for model in &files {
        let subject = Subject::open(env, model)?;
        let size = model.size();
        let whole = size.next_multiple_of(4096) as usize;
        subject.read(&Request::pread(0, whole))?;
        subject.read(&Request::pread(0, whole + 8192).via(Via::Read))?;
        let rounds = if size < 4096 { 3 } else { env.scaled(12) };
        for _ in 0..rounds {
            subject.read(&Request::random(&mut rng, size))?;
        }
        model.cross_check()?;
    }
    Ok(())
}
