// SPDX-License-Identifier: GPL-2.0

//! fio(1), which verifies what it reads, by three engines at once.

use super::Case;
use crate::env::{Env, skip};
use crate::fs::{self, Csum, Fs, Spec};
use crate::packed;
use crate::pagecache;
use crate::stats::Stats;
use anyhow::{Result, ensure};
use std::fs::File;

/// Sizes of blocks, and of the files that are read by them.
const SIZES: [(&str, &str); 4] = [("512", "128k"), ("4k", "1m"), ("64k", "4m"), ("1m", "8m")];
const ENGINES: [&str; 3] = ["psync", "libaio", "io_uring"];

pub fn cases(_: &Env) -> Vec<Case> {
    vec![
        Case::new("plain", |env| {
            verify(env, &Spec::new("raid1", Csum::Crc32c), 0)
        }),
        Case::new("compressed", |env| {
            verify(env, &packed::spec("single", Csum::Crc32c, "zstd"), 60)
        }),
    ]
}

fn verify(env: &Env, spec: &Spec, compressible: u32) -> Result<()> {
    if fs::run("fio", ["--version"]).is_err() {
        return Err(skip("no fio"));
    }
    let mut fs = Fs::make(env, spec)?;
    let compressible = format!("--buffer_compress_percentage={compressible}");
    let seed = format!("--randseed={}", env.seed);
    let common = [
        &*compressible,
        &seed,
        "--thread",
        "--refill_buffers",
        "--verify=crc32c",
        "--verify_fatal=1",
        "--output-format=terse",
    ];
    let (mut writers, mut readers) = (Vec::new(), Vec::new());
    for (bs, size) in SIZES {
        let path = fs.path(format!("bs{bs}"));
        let job = |name: &str| {
            [
                format!("--name={name}-{bs}"),
                format!("--filename={}", fs::path(&path)),
                format!("--bs={bs}"),
                format!("--size={size}"),
            ]
        };
        writers.extend(job("write"));
        for engine in ENGINES {
            readers.extend(job(engine));
            readers.push(format!("--ioengine={engine}"));
        }
    }
    let write = ["--rw=write", "--do_verify=0", "--end_fsync=1"];
    let writers = writers.iter().map(String::as_str);
    fs::run("fio", common.into_iter().chain(write).chain(writers))?;
    fs.remount()?;
    let before = Stats::look(env)?;
    let read = ["--rw=randread", "--direct=1", "--iodepth=16"];
    let readers = readers.iter().map(String::as_str);
    fs::run("fio", common.into_iter().chain(read).chain(readers))?;
    let moved = Stats::all_at_once(before.as_ref())?;
    eprintln!("# {}: {moved}", env.case);
    if env.module {
        ensure!(moved.get("queued") > 0, "nothing queued: {moved}");
        for (bs, _) in SIZES {
            let file = File::open(fs.path(format!("bs{bs}")))?;
            let pages = pagecache::pages(&file)?;
            ensure!(pages == 0, "{bs}: {pages} pages cached: {moved}");
        }
    }
    Ok(())
}
