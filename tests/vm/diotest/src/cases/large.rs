// SPDX-License-Identifier: GPL-2.0

//! Large reads: the longest request there is, of a sparse file and of a plain
//! one, and a whole file read by dd, which must not fill the page cache.

use super::Case;
use crate::buffer::{BLOCK, Region, first_difference};
use crate::env::Env;
use crate::fs::{self, Csum, Fs, Spec};
use crate::model::{self, Model};
use crate::pagecache;
use crate::stats::Stats;
use crate::sys;
use anyhow::{Result, ensure};
use std::os::fd::AsRawFd;

/// The most bytes that one read transfers: `MAX_RW_COUNT`.
const MOST: usize = 0x7fff_f000;

pub fn cases(_: &Env) -> Vec<Case> {
    vec![
        Case::new("plain", plain),
        Case::new("sparse", sparse),
        Case::new("dd", dd),
    ]
}

fn file_of(env: &Env, fs: &mut Fs, mib: usize) -> Result<Model> {
    let mut rng = env.rng(0);
    let mut file = Model::create(fs.path("plain"))?;
    for at in 0..mib {
        file.write_random(&mut rng, (at << 20) as u64, 1 << 20)?;
    }
    file.sync()?;
    fs.remount()?;
    Ok(file)
}

fn counters(env: &Env) -> Result<Option<Stats>> {
    env.module.then(Stats::read).transpose()
}

/// Demands that all reads since `before` were served, and had extents of `kind`.
fn served(env: &Env, before: Option<&Stats>, kind: &str) -> Result<()> {
    let (Some(before), Some(now)) = (before, counters(env)?) else {
        return Ok(());
    };
    let moved = now.since(before);
    let good = moved.get("reads") > 0 && moved.get(kind) > 0 && moved.get("declined") == 0;
    ensure!(good, "not served directly: {moved}");
    Ok(())
}

/// A request of 2 GiB of a file of 64 MiB: it returns at the end, and no more
/// of the buffer is touched than is there to be read.
fn plain(env: &Env) -> Result<()> {
    let mut fs = Fs::make(env, &Spec::new("raid0", Csum::Crc32c))?;
    let file = file_of(env, &mut fs, 64)?;
    let direct = model::open_direct(&file.path)?;
    let region = Region::untouched(MOST)?;
    let before = counters(env)?;
    let count = sys::pread(direct.as_raw_fd(), &region.iovec(0..MOST), 0)?;
    served(env, before.as_ref(), "regular")?;
    ensure!(count == file.data.len(), "{count} of {}", file.data.len());
    let differs = first_difference(&region.bytes()[..count], &file.data);
    ensure!(differs.is_none(), "offset=0: differs at {differs:?}");
    ensure!(pagecache::pages(&direct)? == 0 || !env.module, "cached");
    Ok(())
}

/// As much of a larger sparse file as one request may transfer.
fn sparse(env: &Env) -> Result<()> {
    let fs = Fs::make(env, &Spec::new("single", Csum::Crc32c))?;
    let mut file = Model::create(fs.path("sparse"))?;
    file.write(0, &[1; BLOCK])?;
    file.sync()?;
    file.file()?.set_len(5 << 30)?;
    fs.sync()?;
    let direct = model::open_direct(&file.path)?;
    // Two GiB of addresses need not be two GiB of memory.
    let most = if env.rounds < 100 {
        MOST / 8 / BLOCK * BLOCK
    } else {
        MOST
    };
    let mut region = Region::alias(most, 2 << 20)?;
    region.bytes_mut()[..2 << 20].fill(0xee);
    let before = counters(env)?;
    let count = sys::pread(direct.as_raw_fd(), &region.iovec(0..most), 8192)?;
    served(env, before.as_ref(), "hole")?;
    ensure!(count == most, "{count} of {most}");
    let zeros = region.bytes()[..2 << 20].iter().all(|&b| b == 0);
    ensure!(zeros, "a hole does not read as zeros");
    Ok(())
}

/// dd reads a file of 64 MiB, and the page cache does not notice.
fn dd(env: &Env) -> Result<()> {
    let mut fs = Fs::make(env, &Spec::new("raid1", Csum::Crc32c))?;
    let file = file_of(env, &mut fs, 64)?;
    let input = format!("if={}", file.path.display());
    let args = [
        &*input,
        "of=/dev/null",
        "bs=1M",
        "iflag=direct",
        "status=none",
    ];
    // What else is going on caches something now and then.
    let mut grown = Vec::new();
    let is_good = |grown: &[u64]| grown.last().is_some_and(|&kib| kib < 1024);
    while grown.len() < 5 && !is_good(&grown) {
        sys::drop_caches()?;
        // Once for dd itself and all it is linked with.
        fs::run("dd", args.into_iter().chain(["count=1"]))?;
        let cached = pagecache::cached_kib()?;
        let before = counters(env)?;
        fs::run("dd", args)?;
        served(env, before.as_ref(), "regular")?;
        grown.push(pagecache::cached_kib()?.saturating_sub(cached));
    }
    ensure!(
        is_good(&grown) || !env.module,
        "page cache grew by {grown:?} KiB"
    );
    let direct = model::open_direct(&file.path)?;
    let pages = pagecache::pages(&direct)?;
    // Mainline falls back where the buffer was not touched before.
    ensure!(
        pages == 0 || !env.module,
        "{pages} pages of the file cached"
    );
    Ok(())
}
