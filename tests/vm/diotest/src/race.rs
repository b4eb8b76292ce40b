// SPDX-License-Identifier: GPL-2.0

//! Direct readers against anything that changes a file or moves it about.
//!
//! For each block the writers note, before a change, the version it will have,
//! and, after it, that it has it. A reader may get any version from the last
//! one noted complete before it began to the last one begun when it ended.
//! Odd versions are data, even ones zeros (a hole, or never written).
//!
//! A read of the page cache may mix versions within a block, and may end where
//! the file ended for a moment; a read served directly may not. So there may be
//! no more such reads than reads that the module declined.

use crate::aio::{self, Engine};
use crate::blocks::{self, Found, Version};
use crate::buffer::{BLOCK, Region};
use crate::env::Env;
use crate::fs::Fs;
use crate::model;
use crate::presence::Presence;
use crate::stats::Stats;
use crate::sys;
use anyhow::{Result, bail, ensure};
use rand::{RngExt, rngs::SmallRng};
use std::fs::File;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::time::Instant;

/// Readers of parts of blocks read multiples of this.
const SECTOR: usize = 512;
/// Largest read of a racing reader, in blocks.
const LARGEST: usize = 48;
/// Versions of a block a reader may have to choose from, if they may mix.
const SPAN: u64 = 256;

/// A file under change, and what may be in it.
pub struct Arena {
    pub path: PathBuf,
    id: u64,
    begun: Vec<AtomicU64>,
    done: Vec<AtomicU64>,
    /// Every size the file had or is about to get, in order.
    sizes: Mutex<Vec<u64>>,
    /// How many of them are known to be past.
    sizes_done: AtomicU64,
    /// Blocks may be zeros, if a version says so.
    pub zeros: bool,
    /// Blocks may be zeros from some word on.
    pub cut: bool,
    /// Blocks may mix versions: nothing orders stores to mapped memory.
    pub mixed: bool,
    /// Readers use every engine, also without waiting, and read parts of blocks.
    pub every_way: bool,
    /// Somebody brings pages into the cache: direct writes then write through it.
    pub cached: bool,
    pub readers: u64,
    /// Of the module.
    pub presence: Presence,
}

/// How a racing reader reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum How {
    Waits,
    Nowait,
    Engine(Engine),
}

/// What part of the file a reader wants, and how.
struct Wanted {
    offset: usize,
    len: usize,
    /// The length of the first of two vectors.
    first: usize,
    /// How far the memory is past a page.
    shift: usize,
    how: How,
}

impl Wanted {
    /// Whole blocks, waited for.
    fn blocks(first: usize, count: usize) -> Self {
        Self {
            offset: first * BLOCK,
            len: count * BLOCK,
            first: count / 2 * BLOCK,
            shift: 0,
            how: How::Waits,
        }
    }

    /// The same, or a part of it, in any way.
    fn any_way(mut self, rng: &mut SmallRng) -> Self {
        const ENGINES: usize = Engine::ALL.len();
        self.how = match rng.random_range(0..ENGINES + 3) {
            i @ 0..ENGINES => How::Engine(Engine::ALL[i]),
            ENGINES => How::Nowait,
            _ => How::Waits,
        };
        if rng.random_range(0..2) == 0 {
            let mut some = || rng.random_range(0..BLOCK / SECTOR) * SECTOR;
            let (begin, end) = (some(), some());
            self.shift = some();
            self.offset += begin;
            self.len = (self.len - begin).saturating_sub(end).max(SECTOR);
            self.first = self.len / SECTOR / 2 * SECTOR;
        }
        if self.how == How::Engine(Engine::UringFixed) {
            // That takes one vector.
            self.first = 0;
        }
        self
    }
}

impl std::fmt::Display for Wanted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (offset, len, first) = (self.offset, self.len, self.first);
        write!(
            f,
            "offset={offset} length={len} vectors={first},{}",
            len - first
        )?;
        write!(f, " shift={} how={:?}", self.shift, self.how)
    }
}

impl Arena {
    /// Makes a file of `blocks` blocks of version 1, written out.
    pub fn create(path: PathBuf, blocks: usize) -> Result<Self> {
        let id = 0x6469_6f74_6573_7400 + path.as_os_str().len() as u64;
        let counters = || (0..blocks).map(|_| AtomicU64::new(0)).collect();
        let arena = Self {
            id,
            begun: counters(),
            done: counters(),
            sizes: Mutex::new(vec![(blocks * BLOCK) as u64]),
            sizes_done: AtomicU64::new(0),
            zeros: false,
            cut: false,
            mixed: false,
            every_way: false,
            cached: true,
            readers: 2,
            presence: Presence::default(),
            path,
        };
        let file = File::create_new(&arena.path)?;
        arena.write(0, blocks, |bytes| write_at(&file, bytes, 0))?;
        file.sync_all()?;
        Ok(arena)
    }

    pub fn blocks(&self) -> usize {
        self.begun.len()
    }

    /// Opens the file for changing it.
    pub fn file(&self) -> Result<File> {
        Ok(File::options().read(true).write(true).open(&self.path)?)
    }

    /// The next version of `count` blocks from `first`, as bytes.
    pub fn next(&self, first: usize, count: usize) -> Vec<u8> {
        let mut bytes = vec![0; count * BLOCK];
        for (i, block) in bytes.chunks_exact_mut(BLOCK).enumerate() {
            let version = (self.begun[first + i].load(SeqCst) + 1) | 1;
            self.begun[first + i].store(version, SeqCst);
            self.version(first + i, version).fill(block);
        }
        bytes
    }

    /// What a block is to be in a version.
    pub fn version(&self, block: usize, version: u64) -> Version {
        Version {
            file: self.id,
            block: block as u64,
            version,
        }
    }

    /// Notes that what was begun of these blocks is done.
    pub fn done(&self, first: usize, count: usize) {
        for i in first..first + count {
            self.done[i].store(self.begun[i].load(SeqCst), SeqCst);
        }
    }

    /// Writes the next version of some blocks, by `write`.
    pub fn write(
        &self,
        first: usize,
        count: usize,
        write: impl FnOnce(&[u8]) -> Result<()>,
    ) -> Result<()> {
        let bytes = self.next(first, count);
        write(&bytes)?;
        self.done(first, count);
        Ok(())
    }

    /// Makes zeros of some blocks, by `zero`.
    pub fn zero(
        &self,
        first: usize,
        count: usize,
        zero: impl FnOnce() -> Result<()>,
    ) -> Result<()> {
        for i in first..first + count {
            let version = self.begun[i].load(SeqCst);
            self.begun[i].store(version + (version & 1), SeqCst);
        }
        zero()?;
        self.done(first, count);
        Ok(())
    }

    /// Changes the size.
    pub fn resize(&self, file: &File, size: u64) -> Result<()> {
        let mut sizes = self.sizes.lock().expect("not poisoned");
        sizes.push(size);
        let last = sizes.len() as u64 - 1;
        drop(sizes);
        file.set_len(size)?;
        self.sizes_done.store(last, SeqCst);
        Ok(())
    }

    /// A random range of blocks: the first and how many.
    pub fn range(&self, rng: &mut SmallRng, most: usize) -> (usize, usize) {
        let count = rng.random_range(1..=most.min(self.blocks()));
        (rng.random_range(0..=self.blocks() - count), count)
    }

    /// Checks one block of a read. Whether it is one version, not a mix.
    fn check(&self, i: usize, bytes: &[u8], low: u64, high: u64) -> Result<bool, String> {
        let may_be_zero = self.zeros && (low & 1 == 0 || high > low);
        let found = blocks::identify(bytes, self.id, i as u64);
        let before = low.saturating_sub(1);
        // A block that was cut still has the beginning of the version before.
        let cut = |v| self.cut && may_be_zero && (before..=high).contains(&v);
        let part = bytes.len() < BLOCK;
        let good = match found {
            Found::Zeros => may_be_zero,
            Found::Short => self.cut || low & 1 == 1 || high > low,
            Found::Whole(v) => (low..=high).contains(&v) || part && cut(v),
            Found::Cut(v) => cut(v),
            Found::Stub => self.cut && may_be_zero,
            Found::Wrong(_) => false,
        };
        if good {
            return Ok(true);
        }
        let low = if self.cut { before } else { low };
        if self.is_mix(i, 0, bytes, low, high, may_be_zero) {
            return Ok(self.mixed);
        }
        Err(format!(
            "block {i} is {found:?}, may be version {low} to {high}"
        ))
    }

    /// Checks what a read has of a block from its `word`th word on.
    fn check_rest(
        &self,
        i: usize,
        word: usize,
        bytes: &[u8],
        low: u64,
        high: u64,
    ) -> Result<bool, String> {
        let zero = self.zeros && (low & 1 == 0 || high > low);
        if zero && bytes.iter().all(|&b| b == 0) {
            return Ok(true);
        }
        let whole = (low..=high.min(low + SPAN))
            .filter(|v| v & 1 == 1)
            .map(|v| self.version(i, v))
            .any(|version| {
                let words = bytes.chunks_exact(8).enumerate();
                words
                    .into_iter()
                    .all(|(w, got)| got == version.word(word + w).to_le_bytes())
            });
        if whole {
            return Ok(true);
        }
        if self.is_mix(i, word, bytes, low, high, zero) {
            return Ok(self.mixed);
        }
        Err(format!(
            "block {i} from word {word} is no version from {low} to {high}"
        ))
    }

    /// Whether every byte is of some version: who copies a word while somebody
    /// else stores it may get some bytes of the old and some of the new.
    fn is_mix(
        &self,
        i: usize,
        first: usize,
        bytes: &[u8],
        low: u64,
        high: u64,
        zero: bool,
    ) -> bool {
        let high = high.min(low + SPAN);
        let versions: Vec<_> = (low..=high)
            .filter(|v| v & 1 == 1)
            .map(|v| self.version(i, v))
            .collect();
        bytes.chunks_exact(8).enumerate().all(|(w, got)| {
            let mut words: Vec<[u8; 8]> = versions
                .iter()
                .map(|v| v.word(first + w).to_le_bytes())
                .collect();
            if zero {
                words.push([0; 8]);
            }
            (0..8).all(|at| words.iter().any(|word| word[at] == got[at]))
        })
    }

    /// Which words of a mix are of which version, for whoever has to explain it.
    fn parts(&self, i: usize, first: usize, bytes: &[u8], low: u64, high: u64) -> String {
        let mut parts = String::new();
        let mut last = None;
        for (w, got) in bytes.chunks_exact(8).enumerate() {
            let word = first + w;
            let mut versions =
                (low.saturating_sub(2)..=high.min(low + SPAN)).filter(|v| v & 1 == 1);
            let is = |v: &u64| self.version(i, *v).word(word).to_le_bytes() == got;
            let found = versions.find(is);
            // The first words are those of every version, but one.
            if found != last && word > 1 && parts.len() < 400 {
                parts += &format!(" {word}:{}", found.map_or("?".into(), |v| v.to_string()));
                last = found;
            }
        }
        parts
    }

    /// Reads and checks what comes. In what it is not as a read served directly
    /// has to be, if in anything.
    fn read(&self, file: &File, region: &mut Region, wanted: &Wanted) -> Result<Option<String>> {
        let (offset, len, start) = (wanted.offset, wanted.len, wanted.shift);
        region
            .part_mut(start..start + len)
            .fill(crate::buffer::POISON);
        let block = offset / BLOCK;
        let low: Vec<u64> = self.done[block..].iter().map(|v| v.load(SeqCst)).collect();
        let size_low = self.sizes_done.load(SeqCst) as usize;
        let half = start + wanted.first;
        let iov = [region.iovec(start..half), region.iovec(half..start + len)];
        let iov = if wanted.first == 0 {
            &iov[1..]
        } else {
            &iov[..]
        };
        let fd = file.as_raw_fd();
        let got = match wanted.how {
            How::Waits => sys::preadv(fd, iov, offset as i64, 0),
            How::Nowait => sys::preadv(fd, iov, offset as i64, libc::RWF_NOWAIT),
            How::Engine(engine) => aio::read(engine, file, iov, offset as u64),
        };
        let nowait = wanted.how == How::Nowait;
        let got = match got {
            Ok(got) => got,
            Err(e) if nowait && e.raw_os_error() == Some(libc::EAGAIN) => return Ok(None),
            Err(e) => bail!("{wanted}: {e}"),
        };
        let sizes = self.sizes.lock().expect("not poisoned")[size_low..].to_vec();
        let ends = || {
            sizes
                .iter()
                .map(|size| len.min(size.saturating_sub(offset as u64) as usize))
        };
        // Who may not wait may be left with less, but not by the module.
        let short = nowait && Some(got) < ends().min();
        if Some(got) < ends().min() && !short || Some(got) > ends().max() {
            bail!("{wanted}: returned {got}, sizes {sizes:?}");
        }
        let mut unclean = (!ends().any(|end| end == got))
            .then(|| format!("{wanted}: returned {got}, sizes {sizes:?}"));
        let mut at = offset;
        while at < offset + got {
            let i = at / BLOCK;
            let end = (offset + got).min((i + 1) * BLOCK);
            let bytes = region.part(start + at - offset..start + end - offset);
            let (low, high) = (low[i - block], self.begun[i].load(SeqCst));
            let verdict = match at % BLOCK {
                0 => self.check(i, bytes, low, high),
                rest => self.check_rest(i, rest / 8, bytes, low, high),
            };
            match verdict {
                Ok(true) => {}
                Ok(false) => {
                    let parts = self.parts(i, at % BLOCK / 8, bytes, low, high);
                    unclean = Some(format!(
                        "{wanted}: block {i} is a mix, {low}..={high}: {parts}"
                    ));
                }
                Err(why) => bail!("{wanted}: {why}"),
            }
            at = end;
        }
        Ok(unclean)
    }

    /// Reads some blocks in some way, and checks what comes.
    pub fn read_some(&self, file: &File, region: &mut Region, rng: &mut SmallRng) -> Result<()> {
        let (first, count) = self.range(rng, LARGEST);
        let wanted = Wanted::blocks(first, count).any_way(rng);
        self.read(file, region, &wanted).map(drop)
    }

    /// Memory for [`Self::read_some`].
    pub fn memory() -> Result<Region> {
        Ok(Region::new((LARGEST + 1) * BLOCK)?)
    }

    /// What is noted as done, of each block.
    pub fn noted(&self) -> Vec<u64> {
        self.done.iter().map(|v| v.load(SeqCst)).collect()
    }

    /// Notes that some of what was done may have been undone, but not what had been
    /// done when `noted` was noted.
    pub fn undone(&self, noted: &[u64]) {
        for (done, noted) in self.done.iter().zip(noted) {
            done.store(*noted, SeqCst);
        }
    }

    /// Reads the whole file when all is quiet.
    pub fn check_all(&self) -> Result<()> {
        let file = model::open_direct(&self.path)?;
        let mut region = Region::new(LARGEST * BLOCK)?;
        for first in (0..self.blocks()).step_by(LARGEST) {
            let count = LARGEST.min(self.blocks() - first);
            let unclean = self.read(&file, &mut region, &Wanted::blocks(first, count))?;
            if let Some(why) = unclean.filter(|_| !self.mixed) {
                bail!("nobody writes, and {why}");
            }
        }
        Ok(())
    }
}

/// Writes all of `bytes`.
pub fn write_at(file: &File, bytes: &[u8], offset: u64) -> Result<()> {
    use std::os::unix::fs::FileExt;
    Ok(file.write_all_at(bytes, offset)?)
}

/// What a reader did.
#[derive(Default)]
struct Tally {
    /// Direct reads.
    reads: u64,
    /// Those of them that cannot have been served directly.
    unclean: u64,
}

/// Reads until told to stop.
fn reader(arena: &Arena, mut rng: SmallRng, stop: &AtomicBool) -> Result<Tally> {
    let direct = model::open_direct(&arena.path)?;
    let buffered = File::open(&arena.path)?;
    let mut region = Region::new((LARGEST + 1) * BLOCK)?;
    let mut tally = Tally::default();
    while !stop.load(SeqCst) {
        let (first, count) = arena.range(&mut rng, LARGEST);
        // Now and then somebody else brings pages into the cache.
        let cached = arena.cached && rng.random_range(0..16) == 0;
        let file = if cached { &buffered } else { &direct };
        let mut wanted = Wanted::blocks(first, count);
        if arena.every_way && !cached {
            wanted = wanted.any_way(&mut rng);
        }
        let turn = arena.presence.turn();
        match arena.read(file, &mut region, &wanted) {
            Ok(unclean) if !cached => {
                tally.reads += 1;
                // Without the module the page cache may have served it.
                if let Some(why) = unclean.filter(|_| arena.presence.ever_since(turn)) {
                    tally.unclean += 1;
                    eprintln!("# unclean: {why}");
                }
            }
            Ok(_) => {}
            Err(error) => {
                stop.store(true, SeqCst);
                let how = if cached { "buffered" } else { "direct" };
                bail!("file={} {how} {error:#}", arena.path.display());
            }
        }
    }
    Ok(tally)
}

/// Runs readers while `change` is called again and again for `seconds`, at
/// least twice, with the number of the call. Demands that reads were served.
pub fn run(
    env: &Env,
    arena: &Arena,
    seconds: u32,
    change: impl FnMut(u32, &mut SmallRng) -> Result<()>,
) -> Result<()> {
    let before = env.module.then(Stats::read).transpose()?;
    let unclean = run_uncounted(env, arena, seconds, change)?;
    if let Some(before) = before {
        let moved = arena.presence.moved(&before)?;
        eprintln!("# {}: {moved}", env.case);
        ensure!(
            moved.get("reads") > 0,
            "nothing was served directly: {moved}"
        );
        ensure!(
            unclean <= moved.get("declined"),
            "{unclean} reads mixed versions or ended early, counters: {moved}"
        );
    }
    Ok(())
}

/// The same without a look at the counters. How many direct reads there were
/// that only the page cache can have served.
pub fn run_uncounted(
    env: &Env,
    arena: &Arena,
    seconds: u32,
    mut change: impl FnMut(u32, &mut SmallRng) -> Result<()>,
) -> Result<u64> {
    let stop = AtomicBool::new(false);
    let deadline = Instant::now() + env.duration(seconds);
    let mut rng = env.rng(200);
    let mut changes = 0;
    let tally = std::thread::scope(|scope| {
        let readers: Vec<_> = (0..arena.readers)
            .map(|i| {
                let (rng, stop) = (env.rng(201 + i), &stop);
                scope.spawn(move || reader(arena, rng, stop))
            })
            .collect();
        let mut result = Ok(());
        while result.is_ok() && !stop.load(SeqCst) && (changes < 2 || Instant::now() < deadline) {
            result = change(changes, &mut rng);
            changes += 1;
        }
        stop.store(true, SeqCst);
        let mut all = Tally::default();
        for reader in readers {
            let tally = reader.join().expect("a reader that does not panic")?;
            all.reads += tally.reads;
            all.unclean += tally.unclean;
        }
        result.map(|()| all)
    })?;
    let Tally { reads, unclean } = tally;
    eprintln!(
        "# {}: {changes} changes, {reads} direct reads, {unclean} unclean",
        env.case
    );
    Ok(unclean)
}

/// Checks the file once more, as it was written out.
pub fn settle(fs: &mut Fs, arena: &Arena) -> Result<()> {
    fs.remount()?;
    arena.check_all()
}

/// Opens for writing past the page cache.
pub fn open_direct_rw(path: &Path) -> Result<File> {
    use std::os::unix::fs::OpenOptionsExt;
    let mut options = File::options();
    Ok(options
        .read(true)
        .write(true)
        .custom_flags(libc::O_DIRECT)
        .open(path)?)
}
