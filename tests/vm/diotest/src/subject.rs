// SPDX-License-Identifier: GPL-2.0

//! A file under test: every read of it is checked for its bytes, for who
//! served it, and for what it left in the page cache.

use crate::aio::Engine;
use crate::buffer::BLOCK;
use crate::env::Env;
use crate::fiemap::{self, Extent, Kind};
use crate::model::{self, Model};
use crate::pagecache;
use crate::read::{Outcome, Request, Via};
use crate::stats::Stats;
use anyhow::{Context, Result, bail, ensure};
use std::fs::File;

/// Who has to serve a read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expect<'a> {
    /// The module, without touching the page cache.
    Served,
    /// Mainline, handed over for this one reason.
    Declined(&'a str),
    /// Whoever.
    Anyone,
}

/// A file under test.
pub struct Subject<'a> {
    pub env: &'a Env,
    pub model: &'a Model,
    /// Open past the page cache.
    pub direct: File,
    /// Its extents. None if to ask for them would disturb what is tested, as it
    /// writes the file out; then it may be in the page cache, too.
    pub extents: Option<Vec<Extent>>,
}

impl<'a> Subject<'a> {
    /// Opens the file and looks which extents it has.
    pub fn open(env: &'a Env, model: &'a Model) -> Result<Self> {
        let direct = model::open_direct(&model.path)?;
        let extents = fiemap::extents(&direct).with_context(|| model.name())?;
        Ok(Self {
            env,
            model,
            direct,
            extents: Some(extents),
        })
    }

    /// Opens a file of which something may not be on disk yet.
    pub fn unwritten(env: &'a Env, model: &'a Model) -> Result<Self> {
        Ok(Self {
            env,
            model,
            direct: model::open_direct(&model.path)?,
            extents: None,
        })
    }

    /// The bytes a read has to deliver.
    pub fn wanted(&self, request: &Request) -> &'a [u8] {
        let data = &self.model.data;
        let start = usize::try_from(request.offset).map_or(data.len(), |o| o.min(data.len()));
        &data[start..data.len().min(start + request.total())]
    }

    /// The kinds of extents a read covers, if that is known.
    pub fn kinds(&self, request: &Request) -> Option<Vec<Kind>> {
        let size = self.model.size().next_multiple_of(BLOCK as u64);
        let end = size.min(request.offset.saturating_add(request.total() as u64));
        let extents = self.extents.as_ref()?;
        Some(fiemap::kinds(extents, request.offset, end))
    }

    /// Reads, and demands that the module served it.
    pub fn read(&self, request: &Request) -> Result<()> {
        self.expect(request, Expect::Served)
    }

    /// Reads, and demands that `expect` is who served it.
    pub fn expect(&self, request: &Request, expect: Expect<'_>) -> Result<()> {
        let pages = pagecache::pages(&self.direct)?;
        let (outcome, moved) = self.observe(request)?;
        let wanted = self.wanted(request);
        let exact = moved.is_some() && expect == Expect::Served;
        self.judge(request, outcome.verify(request, wanted, exact))?;
        let Some(moved) = moved else { return Ok(()) };
        self.judge(request, self.counted(request, wanted.len(), expect, &moved))?;
        if expect == Expect::Served {
            let cached = pages > 0 && self.extents.is_some();
            ensure!(!cached, "{}: {pages} pages cached before", self.at(request));
            let after = pagecache::pages(&self.direct)?;
            ensure!(
                after <= pages,
                "{}: {pages} pages cached before, {after} after",
                self.at(request)
            );
        }
        Ok(())
    }

    /// Reads, and says what came of it and which counters moved, if there are any.
    pub fn observe(&self, request: &Request) -> Result<(Outcome, Option<Stats>)> {
        if !self.env.module {
            return Ok((request.perform(&self.direct)?, None));
        }
        let before = Stats::read()?;
        let outcome = request.perform(&self.direct)?;
        let moved = Stats::read()?.since(&before);
        Ok((outcome, Some(moved)))
    }

    /// Checks the counters that one read moved.
    fn counted(
        &self,
        request: &Request,
        count: usize,
        expect: Expect<'_>,
        moved: &Stats,
    ) -> Result<(), String> {
        match expect {
            Expect::Anyone => Ok(()),
            Expect::Declined(reason) => declined(moved, reason),
            // Nothing to read: nothing to serve either.
            Expect::Served if count == 0 => match moved.get("declined") {
                0 => Ok(()),
                _ => Err(format!("declined a read past the end: {moved}")),
            },
            Expect::Served => {
                let kinds = self.kinds(request);
                served(moved, count, most_reads(request, count), kinds.as_deref())?;
                as_asked(moved, request, kinds.as_deref())
            }
        }
    }

    /// What to call a read in messages.
    pub fn at(&self, request: &Request) -> String {
        format!("file={} {request}", self.model.name())
    }

    /// An error that tells which read it is about.
    pub fn judge(&self, request: &Request, verdict: Result<(), String>) -> Result<()> {
        match verdict {
            Ok(()) => Ok(()),
            Err(why) => bail!("{}: {why}", self.at(request)),
        }
    }
}

/// The longest read that is completed behind its caller's back.
pub const LONGEST_QUEUED: usize = 16 << 20;

/// Whether it is tried first without waiting: only io_uring does so, unless it is told not to.
fn tries_first(request: &Request) -> bool {
    use Engine::{Uring, UringFixed};
    matches!(request.via, Via::Async(Uring | UringFixed))
}

/// How many reads one request can become: of one that ends at once, but early,
/// io_uring reads the rest, which is nothing.
fn most_reads(request: &Request, count: usize) -> u64 {
    let again = tries_first(request);
    1 + u64::from(again && count < request.total())
}

/// Checks that a read that was served was so in the way it was asked for.
pub fn as_asked(moved: &Stats, request: &Request, kinds: Option<&[Kind]>) -> Result<(), String> {
    let wrong = |what: &str| Err(format!("{what}; counters: {moved}"));
    let queued = moved.get("queued");
    let most = match request.via {
        Via::Async(_) if request.total() <= LONGEST_QUEUED => 1,
        _ => 0,
    };
    if queued > most {
        return wrong("queued, which nobody asked for");
    }
    // What is in memory may be there at once.
    let device = kinds.is_some_and(|kinds| kinds.contains(&Kind::Regular));
    // A worker of a ring that has to wait for checksums may wait for the data meanwhile.
    let worker = request.via != Via::Async(Engine::Libaio) && moved.get("csum_late") > 0;
    if queued < most && device && !worker {
        return wrong("its caller waited for a device");
    }
    if moved.get("would_wait") > 0 && !tries_first(request) {
        return wrong("answered EAGAIN to one who would wait");
    }
    let unaligned = |n: &usize| n % BLOCK != 0;
    let aligned = request.offset % BLOCK as u64 == 0
        && !unaligned(&request.shift)
        && !request.lens.iter().any(unaligned);
    if aligned && moved.get("bounced") > 0 {
        return wrong("whole blocks went through private memory");
    }
    Ok(())
}

/// Checks that a request that became at most `most` reads, of `count` bytes over
/// extents of `kinds`, was served.
pub fn served(
    moved: &Stats,
    count: usize,
    most: u64,
    kinds: Option<&[Kind]>,
) -> Result<(), String> {
    let wrong = |what: &str| Err(format!("{what}; counters: {moved}"));
    if moved.get("declined") != 0 || !moved.reasons().is_empty() {
        return wrong("declined");
    }
    if !(1..=most).contains(&moved.get("reads")) {
        return wrong("not counted as one read");
    }
    if moved.get("bytes") != count as u64 {
        return wrong(&format!("not counted as {count} bytes"));
    }
    for kind in Kind::ALL {
        let Some(kinds) = kinds else { break };
        match (kinds.contains(&kind), moved.get(kind.name())) {
            (true, 0) => return wrong(&format!("no {} extent counted", kind.name())),
            (false, 1..) => return wrong(&format!("{} extent counted, has none", kind.name())),
            _ => {}
        }
    }
    if moved.trouble() != 0 {
        return wrong("trouble with sound disks");
    }
    Ok(())
}

/// Checks that one read was handed to mainline for `reason` and nothing else.
pub fn declined(moved: &Stats, reason: &str) -> Result<(), String> {
    let wrong = |what: &str| {
        Err(format!(
            "{what}; wanted declined_{reason} +1; counters: {moved}"
        ))
    };
    if moved.get("reads") != 0 {
        return wrong("served");
    }
    if moved.reasons() != [reason] || moved.get("declined") != 1 {
        return wrong("not declined for that reason alone");
    }
    if moved.get(&format!("declined_{reason}")) != 1 {
        return wrong("declined more than once");
    }
    Ok(())
}
