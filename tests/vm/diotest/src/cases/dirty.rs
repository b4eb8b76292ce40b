// SPDX-License-Identifier: GPL-2.0

//! Reads into pages of another file, which is written back meanwhile: a page that
//! is clean when the data has arrived is marked dirty, or that would be lost. That may
//! sleep, and it takes the other file system to say which blocks of a folio are dirty:
//! a worker does it, whatever the folio says of itself.

use super::Case;
use crate::aio::{Engine, Queue, Start};
use crate::buffer::{BLOCK, POISON, Region, first_difference};
use crate::device::Mapped;
use crate::env::{Env, skip};
use crate::fs::{self, Csum, Fs, Spec};
use crate::model::{self, Model};
use crate::stats::Stats;
use anyhow::{Context, Result, ensure};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How long reads take, in milliseconds: at first, and at most.
const SLOW: [u32; 2] = [300, 5000];

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
    for (name, of) in [("btrfs", Of::Btrfs), ("xfs", Of::Xfs)] {
        cases.push(Case::new(format!("neighbour-{name}"), move |env| {
            neighbour(env, of)
        }));
    }
    cases.push(Case::new("anonymous", anonymous));
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
type Touched = fn(usize, &Target) -> bool;

/// Which pages are written to once more, after all have been written back.
const TOUCHED: [(&str, Touched); 6] = [
    ("none", |_, _| false),
    ("the first", |nr, _| nr == 0),
    ("the last", |nr, target| nr + 1 == target.order.len()),
    ("all but one in the middle", |nr, target| {
        nr != target.order.len() / 2
    }),
    ("all but one", |nr, target| nr != target.behind),
    ("all", |_, _| true),
];

/// How many pages there are to choose from where two have to lie together.
const POOL: usize = 4096;

/// What is read into: pages of a file.
struct Target {
    file: File,
    /// Which pages of the file, in the order of the addresses.
    order: Vec<usize>,
    region: Region,
    /// One that lies in memory where the one before it ends, if the file is long: both
    /// are of one stretch for whoever looks at them.
    behind: usize,
}

impl Target {
    /// A new file of poison on disk, its pages in memory; so many of them.
    fn new(path: &Path, count: usize, folios: Folios) -> Result<Self> {
        let file = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .open(path)?;
        let long = count >= 64;
        let pool = match folios {
            Folios::Small if long => POOL,
            _ => count,
        };
        let len = pool * BLOCK;
        match folios {
            Folios::Small => file.set_len(len as u64)?,
            Folios::Any => file.write_all_at(&vec![POISON; len], 0)?,
        }
        let mut all = Region::of_file(&file, len)?;
        all.no_readahead()?;
        all.bytes_mut().fill(POISON);
        file.sync_all()?;
        let (order, behind) = match folios {
            _ if !long => Some(((0..count).collect(), 0)),
            Folios::Small => put_together(&frames(&all)?, count),
            Folios::Any => last_together(&frames(&all)?),
        }
        .context("no two pages lie together")?;
        let mut region = Region::of_pages(&file, &order)?;
        // There, and clean.
        region.bytes_mut().fill(POISON);
        file.sync_all()?;
        if long {
            let pair = &frames(&region)?[behind - 1..=behind];
            ensure!(pair[0] + 1 == pair[1], "moved: {pair:?}");
        }
        Ok(Self {
            file,
            order,
            region,
            behind,
        })
    }

    /// Sees that what was read into the pages is on disk, soon: to have a page written
    /// that was dirtied without btrfs being asked first takes a worker, which fsync(2)
    /// does not wait for.
    ///
    /// See `btrfs_writepage_fixup_worker()`, fs/btrfs/inode.c.
    fn stored(self, path: &Path, want: &[u8]) -> Result<()> {
        drop(self.region);
        let deadline = Instant::now() + Duration::from_secs(60);
        let mut block = Region::new(BLOCK)?;
        for (nr, want) in want.chunks_exact(BLOCK).enumerate() {
            let at = (self.order[nr] * BLOCK) as u64;
            loop {
                // Past the page cache, which has it anyway.
                model::open_direct(path)?.read_exact_at(block.bytes_mut(), at)?;
                if block.bytes() == want {
                    break;
                }
                ensure!(Instant::now() < deadline, "lost: block {nr}");
                self.file.sync_all()?;
            }
        }
        Ok(())
    }
}

/// Where in memory pages that were touched are.
fn frames(region: &Region) -> Result<Vec<u64>> {
    let first = region.bytes().as_ptr() as usize / BLOCK;
    let mut entries = vec![0u8; region.bytes().len() / BLOCK * 8];
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
    Ok(frames)
}

/// So many pages, among them two that lie together; and which the second of them is.
fn put_together(frames: &[u64], count: usize) -> Option<(Vec<usize>, usize)> {
    let mut sorted: Vec<_> = frames.iter().copied().zip(0..).collect();
    sorted.sort_unstable();
    let pair = sorted.windows(2).find(|pair| pair[0].0 + 1 == pair[1].0)?;
    let pair = [pair[0].1, pair[1].1];
    let others = (0..frames.len()).filter(|page| !pair.contains(page));
    let mut order: Vec<_> = others.take(count - 2).collect();
    let at = count / 4;
    order.splice(at..at, pair);
    Some((order, at + 1))
}

/// All pages as they are, and the last of them that lies behind the one before it.
fn last_together(frames: &[u64]) -> Option<(Vec<usize>, usize)> {
    let before = frames.windows(2).rposition(|pair| pair[0] + 1 == pair[1])?;
    Some(((0..frames.len()).collect(), before + 1))
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
    let deadline = Instant::now() + Duration::from_secs(300);
    for (nr, (name, touched)) in TOUCHED.iter().enumerate() {
        let at = nr * blocks * BLOCK;
        let want = &file.data[at..at + blocks * BLOCK];
        let path = fs.path(format!("target{nr}"));
        let mut slow = SLOW[0];
        let moved = loop {
            let mut target = Target::new(&path, blocks, folios)?;
            device.delay(slow)?;
            let ended = attempt(env, (&direct, at), &mut target, want, *touched)
                .with_context(|| format!("written to again: {name}"))?;
            device.heal()?;
            if let Some(ended) = ended {
                target.stored(&path, want)?;
                break ended;
            }
            ensure!(Instant::now() < deadline, "writing back takes {slow} ms");
            slow = SLOW[1].min(slow * 2);
        };
        ensure!(
            !env.module || moved.get("by_worker") == 1,
            "written to again: {name}: {moved}"
        );
    }
    Ok(())
}

/// Reads what is at an offset of a file into pages of another one, which are written
/// back before the data arrives, and some of them written to again. What moved; nothing
/// if the data came too early.
fn attempt(
    env: &Env,
    (from, at): (&File, usize),
    target: &mut Target,
    want: &[u8],
    touched: Touched,
) -> Result<Option<Stats>> {
    let before = Stats::look(env)?;
    let mut queue = Queue::new(Engine::Libaio, 1)?;
    let iov = [target.region.iovec(0..want.len())];
    let start = Start {
        offset: at as u64,
        iov: &iov,
        tag: 0,
    };
    ensure!(queue.start(from, &[start])? == 1, "not taken");
    // To pin a page is to write to it.
    target.file.sync_all()?;
    for nr in 0..target.order.len() {
        if touched(nr, target) {
            target.region.bytes_mut()[nr * BLOCK] = POISON;
        }
    }
    let early = target.region.bytes().iter().any(|&byte| byte != POISON);
    let done = queue.finish(1)?.pop().context("a completion")?;
    ensure!(done.result? == want.len(), "a short read");
    if early {
        return Ok(None);
    }
    let moved = Stats::all_at_once(before.as_ref())?;
    let differs = first_difference(target.region.bytes(), want);
    ensure!(differs.is_none(), "differs at +{differs:?}");
    Ok(Some(moved))
}

/// Which file system has the file that is read into.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Of {
    Btrfs,
    Xfs,
}

/// Another file system than btrfs, mounted. Unmounted on drop.
struct Xfs(PathBuf);

impl Xfs {
    fn make(device: &Path) -> Result<Self> {
        let mnt = PathBuf::from("/tmp/diotest.xfs");
        std::fs::create_dir_all(&mnt)?;
        let device = fs::path(device);
        if let Err(error) = fs::run("mkfs.xfs", ["-q", "-f", device]) {
            return Err(skip(format!("no XFS: {error:#}")));
        }
        fs::run("mount", ["-t", "xfs", device, fs::path(&mnt)])?;
        Ok(Self(mnt))
    }
}

impl Drop for Xfs {
    fn drop(&mut self) {
        if let Err(error) = fs::run("umount", [fs::path(&self.0)]) {
            eprintln!("# {error:#}");
        }
    }
}

/// A page that is not the first one of its folio, if there is such: the one before it
/// is in that, too.
fn not_the_first(region: &Region) -> Result<Option<usize>> {
    /// See include/uapi/linux/kernel-page-flags.h.
    const COMPOUND_TAIL: u64 = 1 << 16;
    let flags = File::open("/proc/kpageflags")?;
    let frames = frames(region)?;
    for (page, frame) in frames.iter().enumerate().skip(1) {
        let mut entry = [0; 8];
        flags.read_exact_at(&mut entry, frame * 8)?;
        let tail = u64::from_ne_bytes(entry) & COMPOUND_TAIL != 0;
        if tail && frames[page - 1] + 1 == *frame {
            return Ok(Some(page));
        }
    }
    Ok(None)
}

/// A block is read into, whose folio has been written back, and then is dirty because of
/// another block of it. What was read is stored nevertheless.
fn neighbour(env: &Env, of: Of) -> Result<()> {
    const LEN: usize = 256 << 10;
    if !env.module {
        return Err(skip(
            "mainline takes a folio that is dirty for dirty blocks",
        ));
    }
    let disks = env.take(2)?;
    let device = Mapped::new("dirty", &disks[0])?;
    let mut fs = Fs::make_on(
        env,
        &Spec::new("single", Csum::NoDataSum),
        vec![device.path()],
    )?;
    let xfs = match of {
        Of::Btrfs => None,
        Of::Xfs => Some(Xfs::make(&disks[1])?),
    };
    let path = match &xfs {
        None => fs.path("target"),
        Some(xfs) => xfs.0.join("target"),
    };
    let mut file = Model::create(fs.path("file"))?;
    file.write_random(&mut env.rng(0), 0, BLOCK)?;
    file.sync()?;
    fs.remount()?;
    let direct = model::open_direct(&file.path)?;
    direct.read_exact_at(Region::new(BLOCK)?.bytes_mut(), 0)?;
    let deadline = Instant::now() + Duration::from_secs(300);
    let mut slow = SLOW[0];
    loop {
        let target = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .open(&path)?;
        target.write_all_at(&vec![POISON; LEN], 0)?;
        target.sync_all()?;
        let mut region = Region::of_file(&target, LEN)?;
        // All of it is there.
        ensure!(
            region.bytes().iter().all(|&byte| byte == POISON),
            "no poison"
        );
        let Some(page) = not_the_first(&region)? else {
            return Err(skip("a kernel without large folios for files"));
        };
        let at = page * BLOCK..(page + 1) * BLOCK;
        region.bytes_mut()[at.start] = POISON;
        device.delay(slow)?;
        let before = Stats::read()?;
        let mut queue = Queue::new(Engine::Libaio, 1)?;
        let iov = [region.iovec(at.clone())];
        let start = Start {
            offset: 0,
            iov: &iov,
            tag: 0,
        };
        ensure!(queue.start(&direct, &[start])? == 1, "not taken");
        // To pin a page is to write to it.
        target.sync_all()?;
        target.write_all_at(&[!POISON], at.start as u64 - BLOCK as u64)?;
        let early = region.part(at.clone()).iter().any(|&byte| byte != POISON);
        let done = queue.finish(1)?.pop().context("a completion")?;
        ensure!(done.result? == BLOCK, "a short read");
        device.heal()?;
        if early {
            ensure!(Instant::now() < deadline, "writing back takes {slow} ms");
            slow = SLOW[1].min(slow * 2);
            continue;
        }
        let moved = Stats::all_at_once(Some(&before))?;
        ensure!(region.part(at.clone()) == file.data, "not what was read");
        let target = Target {
            file: target,
            order: vec![page],
            region,
            behind: 0,
        };
        target.stored(&path, &file.data)?;
        ensure!(moved.get("by_worker") == 1, "{moved}");
        break;
    }
    drop((xfs, direct));
    fs.umount()
}

/// Memory that is of no file is dirty as a whole: nobody but the interrupt has to do
/// with it.
fn anonymous(env: &Env) -> Result<()> {
    let mut fs = Fs::make(env, &Spec::new("single", Csum::NoDataSum))?;
    let mut file = Model::create(fs.path("file"))?;
    file.write_random(&mut env.rng(0), 0, 16 * BLOCK)?;
    file.sync()?;
    fs.remount()?;
    let direct = model::open_direct(&file.path)?;
    let huge = Region::transparent(4 << 20)?;
    let small = Region::new(16 * BLOCK)?;
    direct.read_exact_at(Region::new(16 * BLOCK)?.bytes_mut(), 0)?;
    for region in [&small, &huge] {
        let mut queue = Queue::new(Engine::Libaio, 1)?;
        let iov = [region.iovec(0..16 * BLOCK)];
        // Memory that nothing was read into is not dirty.
        let first = Start {
            offset: 0,
            iov: &iov,
            tag: 0,
        };
        queue.start(&direct, &[first])?;
        ensure!(queue.finish(1)?.len() == 1, "a completion");
        let before = Stats::look(env)?;
        let start = Start {
            offset: 0,
            iov: &iov,
            tag: 0,
        };
        ensure!(queue.start(&direct, &[start])? == 1, "not taken");
        let done = queue.finish(1)?.pop().context("a completion")?;
        ensure!(done.result? == 16 * BLOCK, "a short read");
        let moved = Stats::all_at_once(before.as_ref())?;
        ensure!(moved.get("by_worker") == 0, "{moved}");
        let differs = first_difference(region.part(0..16 * BLOCK), &file.data);
        ensure!(differs.is_none(), "differs at +{differs:?}");
    }
    drop(direct);
    fs.umount()
}
