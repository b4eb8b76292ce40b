// SPDX-License-Identifier: GPL-2.0

//! Reads into pages of another file, which is written back meanwhile: a page that
//! is clean when the data has arrived is marked dirty, or that would be lost; and
//! who does so where that may not sleep only says that all pages are dirty.

use super::Case;
use crate::aio::{Engine, Queue, Start};
use crate::buffer::{BLOCK, POISON, Region, first_difference};
use crate::device::Mapped;
use crate::env::Env;
use crate::fs::{Csum, Fs, Spec};
use crate::model::{self, Model};
use crate::stats::Stats;
use anyhow::{Context, Result, bail, ensure};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::{Duration, Instant};

/// How long reads take at first, in milliseconds.
const SLOW: u32 = 300;

pub fn cases(_: &Env) -> Vec<Case> {
    let mut cases = Vec::new();
    for (csum, blocks, folios) in [
        (Csum::Crc32c, 4, Folios::Small),
        (Csum::NoDataSum, 16, Folios::Small),
        (Csum::NoDataSum, 64, Folios::Small),
        (Csum::NoDataSum, 64, Folios::Any),
        // Ended by a worker, whatever the pages are.
        (Csum::Crc32c, 16, Folios::Small),
    ] {
        let kind = if folios == Folios::Any { "-any" } else { "" };
        let name = format!("{}-{}k{kind}", csum.name(), blocks * 4);
        cases.push(Case::new(name, move |env| {
            cleaned(env, csum, blocks, folios)
        }));
    }
    cases
}

/// What the pages of the target are in.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Folios {
    /// Each is a folio of its own.
    Small,
    /// They are in whatever folios the kernel makes for who writes a file.
    Any,
}

/// Whether a page of these is written to once more.
type Touched = fn(usize, &Pages) -> bool;

/// Which pages are written to once more, after all have been written back.
const TOUCHED: [(&str, Touched); 6] = [
    ("none", |_, _| false),
    ("the first", |nr, _| nr == 0),
    ("the last", |nr, pages| nr + 1 == pages.count),
    ("all but one in the middle", |nr, pages| {
        nr != pages.count / 2
    }),
    ("all but one", |nr, pages| nr != pages.behind),
    ("all", |_, _| true),
];

/// What the target consists of.
struct Pages {
    count: usize,
    /// The last one that lies in memory where the one before it ends, if there is such:
    /// both are of one stretch for whoever looks at them.
    behind: usize,
}

impl Pages {
    fn of(region: &Region) -> Result<Self> {
        let count = region.bytes().len() / BLOCK;
        let first = region.bytes().as_ptr() as usize / BLOCK;
        let mut entries = vec![0u8; count * 8];
        File::open("/proc/self/pagemap")?.read_exact_at(&mut entries, first as u64 * 8)?;
        let frames: Vec<_> = entries
            .chunks_exact(8)
            .map(|entry| entry.iter().rev().fold(0u64, |n, &b| n << 8 | u64::from(b)))
            .map(|entry| entry & ((1 << 55) - 1))
            .collect();
        ensure!(
            frames.iter().all(|&frame| frame > 0),
            "no frames to be seen"
        );
        let behind = frames.windows(2).rposition(|pair| pair[0] + 1 == pair[1]);
        Ok(Self {
            count,
            behind: behind.map_or(0, |at| at + 1),
        })
    }
}

/// A new file of so many bytes of poison on disk, its pages in memory.
fn target(path: &Path, len: usize, folios: Folios) -> Result<(File, Region, Pages)> {
    let target = File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(true)
        .open(path)?;
    match folios {
        Folios::Small => target.set_len(len as u64)?,
        Folios::Any => target.write_all_at(&vec![POISON; len], 0)?,
    }
    let mut region = Region::of_file(&target, len)?;
    region.no_readahead()?;
    region.bytes_mut().fill(POISON);
    target.sync_all()?;
    let pages = Pages::of(&region)?;
    Ok((target, region, pages))
}

/// The same; if the file is long, two of its pages lie together.
fn placed(path: &Path, len: usize, folios: Folios) -> Result<(File, Region, Pages)> {
    for _ in 0..16 {
        let made = target(path, len, folios)?;
        if made.2.behind > 0 || len < 64 * BLOCK {
            return Ok(made);
        }
        drop(made);
        std::fs::write("/proc/sys/vm/compact_memory", "1")?;
    }
    bail!("no page lies behind another")
}

fn cleaned(env: &Env, csum: Csum, blocks: usize, folios: Folios) -> Result<()> {
    let device = Mapped::new("dirty", &env.take(1)?[0])?;
    let mut fs = Fs::make_on(env, &Spec::new("single", csum), vec![device.path()])?;
    let mut file = Model::create(fs.path("file"))?;
    file.write_random(&mut env.rng(0), 0, TOUCHED.len() * blocks * BLOCK)?;
    file.sync()?;
    fs.remount()?;
    let direct = model::open_direct(&file.path)?;
    // The metadata is in memory from here on.
    let mut all = Region::new(file.data.len())?;
    direct.read_exact_at(all.bytes_mut(), 0)?;
    let mut slow = SLOW;
    device.delay(slow)?;
    for (nr, (name, touched)) in TOUCHED.iter().enumerate() {
        let at = nr * blocks * BLOCK;
        let want = &file.data[at..at + blocks * BLOCK];
        let path = fs.path(format!("target{nr}"));
        let moved = loop {
            let moved = attempt(env, (&direct, at), &path, want, *touched, folios)
                .with_context(|| format!("written to again: {name}"))?;
            if let Some(moved) = moved {
                break moved;
            }
            slow *= 2;
            ensure!(slow < 32 * SLOW, "writing back takes longer than {slow} ms");
            device.delay(slow)?;
        };
        let clean = *name != "all";
        let verified = csum == Csum::Crc32c && blocks > 4;
        // Who touches a page dirties its folio.
        let known = folios == Folios::Small || ["none", "all"].contains(name);
        ensure!(
            !env.module || !known || moved.get("by_worker") == u64::from(clean || verified),
            "written to again: {name}: {moved}"
        );
    }
    device.heal()
}

/// Reads what is at an offset of a file into pages of a new one, which are written
/// back before the data arrives, and some of them written to again. What moved;
/// nothing if the data came too early.
fn attempt(
    env: &Env,
    (from, at): (&File, usize),
    path: &Path,
    want: &[u8],
    touched: Touched,
    folios: Folios,
) -> Result<Option<Stats>> {
    let (target, mut region, pages) = placed(path, want.len(), folios)?;
    let before = Stats::look(env)?;
    let mut queue = Queue::new(Engine::Libaio, 1)?;
    let iov = [region.iovec(0..want.len())];
    let start = Start {
        offset: at as u64,
        iov: &iov,
        tag: 0,
    };
    ensure!(queue.start(from, &[start])? == 1, "not taken");
    // To pin a page is to write to it.
    target.sync_all()?;
    for (nr, page) in region.bytes_mut().chunks_mut(BLOCK).enumerate() {
        if touched(nr, &pages) {
            page[0] = POISON;
        }
    }
    let early = region.bytes().iter().any(|&byte| byte != POISON);
    let done = queue.finish(1)?.pop().context("a completion")?;
    ensure!(done.result? == want.len(), "a short read");
    if early {
        return Ok(None);
    }
    let moved = Stats::all_at_once(before.as_ref())?;
    let differs = first_difference(region.bytes(), want);
    ensure!(differs.is_none(), "differs at +{differs:?}");
    drop(region);
    stored(&target, path, want)?;
    Ok(Some(moved))
}

/// Sees that this is on disk, soon: to have a page written that was dirtied without
/// btrfs being asked first takes a worker, which fsync(2) does not wait for.
///
/// See `btrfs_writepage_fixup_worker()`, fs/btrfs/inode.c.
fn stored(target: &File, path: &Path, want: &[u8]) -> Result<()> {
    let deadline = Instant::now() + Duration::from_secs(20);
    let mut stored = Region::new(want.len())?;
    loop {
        target.sync_all()?;
        // Past the page cache, which has it anyway.
        model::open_direct(path)?.read_exact_at(stored.bytes_mut(), 0)?;
        let Some(differs) = first_difference(stored.bytes(), want) else {
            return Ok(());
        };
        ensure!(Instant::now() < deadline, "lost at +{differs}");
    }
}
