// SPDX-License-Identifier: GPL-2.0

//! Both tracepoints fire for each read, and say the truth about it.

use super::Case;
use crate::buffer::BLOCK;
use crate::env::{Env, skip};
use crate::fs::{Csum, Fs, Spec};
use crate::model::Model;
use crate::read::Request;
use crate::subject::Subject;
use crate::tracing::Events;
use anyhow::{Result, ensure};
use std::os::unix::fs::MetadataExt;

pub fn cases(_: &Env) -> Vec<Case> {
    vec![Case::new("begin_end", begin_end)]
}

/// The value of `key=value` in a line.
fn field(line: &str, key: &str) -> Option<i64> {
    let words = line.split([' ', ',', '\t']);
    let mut values = words.filter_map(|word| word.strip_prefix(key)?.strip_prefix('='));
    values.next()?.parse().ok()
}

fn begin_end(env: &Env) -> Result<()> {
    if !env.module {
        return Err(skip("no module"));
    }
    let mut fs = Fs::make(env, &Spec::new("single", Csum::Crc32c))?;
    let mut file = Model::create(fs.path("traced"))?;
    file.write_random(&mut env.rng(0), 0, 100_000)?;
    file.sync()?;
    fs.remount()?;
    let subject = Subject::open(env, &file)?;
    let ino = subject.direct.metadata()?.ino() as i64;
    let events = Events::of("btrfs_dio")?;
    let requests = [
        Request::pread(0, BLOCK),
        Request::pread(40_960, 8 * BLOCK),
        // Across the end: the result is less than the length.
        Request::pread(98_304, 4 * BLOCK),
        Request::preadv(4096, vec![BLOCK, 2 * BLOCK]),
    ];
    for request in &requests {
        subject.read(request)?;
    }
    let trace = events.end()?;
    let of = |event: &str| -> Vec<&str> {
        let mark = format!(" {event}:");
        trace.lines().filter(|l| l.contains(&mark)).collect()
    };
    let (begins, ends) = (of("btrfs_dio_read_begin"), of("btrfs_dio_read_end"));
    let counts = (begins.len(), ends.len());
    ensure!(
        counts == (requests.len(), requests.len()),
        "{counts:?} events:\n{trace}"
    );
    for (i, request) in requests.iter().enumerate() {
        let (offset, length) = (request.offset as i64, request.total() as i64);
        let result = subject.wanted(request).len() as i64;
        for line in [begins[i], ends[i]] {
            ensure!(field(line, "ino") == Some(ino), "ino {ino}: {line}");
            ensure!(
                field(line, "offset") == Some(offset),
                "offset {offset}: {line}"
            );
            ensure!(
                field(line, "length") == Some(length),
                "length {length}: {line}"
            );
        }
        ensure!(
            field(ends[i], "result") == Some(result),
            "result {result}: {}",
            ends[i]
        );
    }
    Ok(())
}
