// SPDX-License-Identifier: GPL-2.0

//! What one copy cannot supply is read from another.
//!
//! A window that has failed is read once more from the same copies, into private memory, in pieces
//! of a stripe at most: what was transient, or was changed by the owner of the buffer, ends here. A
//! block that is bad there is bad in that copy. Then all bad blocks are read from the next copy,
//! those that still are bad from the one after that, until each is good, or has been read from all;
//! the last ways of a chunk with parity are to rebuild it.
//!
//! Blocks that follow each other are read together. If that fails, each of them is read once more from
//! the same copy alone: one bad sector must not make its neighbours bad as well.
//!
//! Nobody is blamed for blocks that are not the file's any more: the extents are asked after each
//! round, and if they have changed the window is read again from the start.
//!
//! Rule for the order of copies: `next_repair_mirror()`, fs/btrfs/bio.c.

use crate::{
    attempt::{
        Attempt,
        Manner, //
    },
    bio::{
        self,
        Rebuild, //
    },
    blame::{
        self,
        locate, //
    },
    completion::Outcome,
    error::{
        Reason,
        Stop, //
    },
    fetch::Memory,
    few::Few,
    plan::Plan,
    repair,
    resources::Resources,
    run::{
        Runs,
        Spots, //
    },
    safe::{
        block::{
            account::Why,
            batch,
            bio::Mark, //
        },
        btrfs::{
            chunk::ChunkMap,
            device::DeviceHold,
            glance::Watch,
            inode::DioCount,
            repair::{
                tell_lost,
                tell_mismatch, //
            },
        },
        clock,
        memalloc::Scope,
        owner::Owner,
        patience::Patience,
        user_pages::UserPages, //
    },
    stats::{
        self,
        Counter, //
    },
    stripe::{
        self,
        Way, //
    },
    verify,
    window::{
        self,
        Ready, //
    },
};
use kernel::prelude::*;

/// What became of a block when it was read last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// It is what it must be.
    Good,
    /// It does not have its checksum.
    Mismatch,
    /// It could not be read.
    Failed,
    /// There is no device to read it from.
    Absent,
    /// There is no copy left.
    Lost,
}

/// Where a block was read from last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Source {
    Nowhere,
    /// The run of this number.
    Run(usize),
    /// The rebuild of this number.
    Rebuild(usize),
}

/// A block that a copy could not supply.
pub(crate) struct Block {
    /// Logical address, in bytes.
    pub(crate) logical: u64,
    /// Where it goes to: private memory.
    pub(crate) memory: Memory,
    /// Offset in the file that people are told, in bytes.
    pub(crate) file: u64,
    /// As [`Fetch::kept_at`](crate::fetch::Fetch::kept_at).
    pub(crate) kept_at: u64,
    /// Its number among all that are fetched.
    nr: usize,
    /// Numbers of the copies that were read first and last, counted from 1; 0 if none was.
    first: u32,
    copy: u32,
    /// The copies that are bad, on devices that are there: bit 0 stands for copy 1.
    bad: u32,
    source: Source,
    /// Whether it was read last together with others, so that an error need not be of this block.
    joined: bool,
    /// The device, under the hold that it was read under.
    device: Option<usize>,
    state: State,
}

impl Block {
    /// Returns whether it is what it must be.
    pub(crate) fn is_good(&self) -> bool {
        self.state == State::Good
    }

    /// Returns the numbers of the copies that are bad, counted from 1.
    pub(crate) fn bad_copies(&self) -> impl Iterator<Item = u32> {
        let bad = self.bad;
        (0..u32::BITS)
            .filter(move |n| bad & (1 << n) != 0)
            .map(|n| n + 1)
    }

    /// Returns whether it has been read in this round, in vain.
    fn is_pending(&self) -> bool {
        !matches!(self.state, State::Good | State::Lost)
    }

    /// Returns whether it has to be read alone before its copy is known to be bad.
    fn is_doubtful(&self) -> bool {
        self.joined && self.state == State::Failed
    }
}

/// Which copy to read next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// The one after that which was read last, of those blocks that are not good yet.
    Copy,
    /// The same one once more, of all blocks.
    Same,
    /// The same one once more, each block alone, of those that failed together with others.
    Alone,
}

impl Next {
    /// Returns whether a block is to be read.
    fn wants(self, block: &Block) -> bool {
        match self {
            Self::Copy => block.is_pending(),
            Self::Same => true,
            Self::Alone => block.is_doubtful(),
        }
    }
}

/// What it takes to read blocks.
pub(crate) struct Reader<'a> {
    pub(crate) resources: &'a Resources,
    pub(crate) inode: &'a DioCount<'a>,
    pub(crate) plan: &'a Plan,
    pub(crate) pages: &'a UserPages<'a>,
    pub(crate) manner: &'a Manner,
}

/// Reads a window that has failed, and repairs what was bad. Returns what became of it: right, or
/// its extents have changed; and where it was read. `EIO` if a block is lost.
///
/// Task context, sleeps; no extent bit held but that of `ready`.
pub(crate) fn recover(
    resources: &Resources,
    inode: &DioCount<'_>,
    mut ready: Ready<'_>,
    plan: &mut Plan,
    runs: &mut Runs,
    pages: &UserPages<'_>,
    attempt: &Attempt,
) -> Result<(Outcome, Spots), Stop> {
    let manner = &attempt.manner;
    let Some(hold) = ready.hold.take() else {
        window::deliver_now(resources, ready, plan, pages)?;
        return Ok((Outcome::Right, Spots::new()));
    };
    plan.deliveries.before(resources, plan.range.block, pages)?;
    let spots = spots(runs)?;
    let fetches = &plan.fetches;
    let ((), (), _) = batch::wait_for(
        hold,
        |submitter| {
            let pool = &resources.pool;
            bio::submit(submitter, pool, runs, fetches, pages, manner, &spots);
        },
        || (),
    );
    let block_size = plan.range.block;
    blame::count_repeated(inode, fetches.list(), block_size, &attempt.spots, &spots)?;
    let reader = Reader::new(resources, inode, plan, pages, manner);
    let mut scratch = KVec::from_elem(0u8, plan.range.block, GFP_KERNEL)?;
    let mut blocks = reader.bad_blocks(runs, &spots, &mut scratch)?;
    loop {
        if !plan.is_current() {
            return Ok((Outcome::Changed, spots.counted()));
        }
        reader.blame(&mut blocks, &mut scratch)?;
        if !reader.read(&mut blocks, Next::Copy, &mut scratch)? {
            break;
        }
    }
    drop(ready);
    let lost = note(&blocks);
    if lost {
        blame::count_rest(inode, block_size, &attempt.spots, &spots)?;
    }
    let same = runs.repeat(&attempt.spots);
    if blocks.is_empty() && same && attempt.failed == Some(Outcome::Mismatch) {
        stats::count(Counter::BufferChanged);
        let owner = manner.owner.unwrap_or_else(Owner::current);
        let reads = window::reads_of(inode.inode().id(), owner);
        resources.unstable.note(reads, clock::milliseconds());
    }
    let delivered = if lost {
        // CAST: Widening.
        tell_lost(inode.inode(), plan.range.start, plan.range.len as u64);
        Err(Stop::Fail(EIO))
    } else {
        plan.deliveries
            .after(resources, &mut plan.fetches, plan.range.block, pages)
    };
    let reader = Reader::new(resources, inode, plan, pages, manner);
    repair::repair(&reader, &mut blocks, &mut scratch);
    delivered?;
    plan.tally.note();
    Ok((Outcome::Right, spots))
}

/// Notes where runs read. With a hold on devices, too.
fn spots(runs: &Runs) -> Result<Spots, Stop> {
    let _scope = Scope::nofs();
    let mut spots = Spots::new();
    spots.note(runs, GFP_KERNEL)?;
    Ok(spots)
}

/// Makes so many marks. With a hold on devices, too.
fn marks(count: usize) -> Result<KVVec<Mark>, Stop> {
    let _scope = Scope::nofs();
    let mut marks = KVVec::with_capacity(count, GFP_KERNEL)?;
    for _ in 0..count {
        marks.push(Mark::new(), GFP_KERNEL)?;
    }
    Ok(marks)
}

/// Counts what was recovered, and returns whether anything is lost.
fn note(blocks: &[Block]) -> bool {
    let mut lost = false;
    for block in blocks {
        match (block.state, block.source) {
            (State::Good, Source::Rebuild(_)) => {
                stats::count(Counter::Recovered);
                stats::count(Counter::Rebuilt);
            }
            (State::Good, _) => stats::count(Counter::Recovered),
            _ => {
                stats::count(Counter::Lost);
                lost = true;
            }
        }
    }
    lost
}

impl<'a> Reader<'a> {
    fn new(
        resources: &'a Resources,
        inode: &'a DioCount<'a>,
        plan: &'a Plan,
        pages: &'a UserPages<'a>,
        manner: &'a Manner,
    ) -> Self {
        Self {
            resources,
            inode,
            plan,
            pages,
            manner,
        }
    }

    /// Returns what became of the block number `nr` of all, which was read into `memory` and ended
    /// with `status`.
    fn judge(&self, memory: Memory, nr: usize, status: Result, scratch: &mut [u8]) -> State {
        if status.is_err() {
            return State::Failed;
        }
        let fetches = &self.plan.fetches;
        let Some(expected) = &fetches.expected else {
            return State::Good;
        };
        match verify::compare(expected, fetches, self.pages, memory, nr, scratch) {
            Some((_, _, true)) => State::Good,
            _ => State::Mismatch,
        }
    }

    /// Returns the blocks that have not arrived as they must be, of all that was read by these runs.
    fn bad_blocks(
        &self,
        runs: &Runs,
        spots: &Spots,
        scratch: &mut [u8],
    ) -> Result<KVVec<Block>, Stop> {
        let size = self.plan.range.block;
        let mut blocks = KVVec::new();
        let mut nr = 0usize;
        for fetch in self.plan.fetches.list() {
            for at in (0..fetch.len).step_by(size) {
                let memory = fetch.memory.forward(at);
                let run = runs.reading(memory);
                let state = match run.and_then(|(run, _)| spots.mark(run)) {
                    Some(mark) => self.judge(memory, nr, mark.status(), scratch),
                    None => State::Absent,
                };
                if state != State::Good {
                    // CAST: Widening.
                    let skipped = at as u64;
                    let copy = run.map_or(0, |(_, run)| run.copy);
                    let block = Block {
                        logical: fetch.logical.checked_add(skipped).ok_or(Reason::Mapping)?,
                        memory,
                        file: fetch.file.saturating_add(skipped),
                        kept_at: fetch.kept_at(at, size),
                        nr,
                        first: copy,
                        copy,
                        bad: 0,
                        source: run.map_or(Source::Nowhere, |(run, _)| Source::Run(run)),
                        joined: false,
                        device: run.map(|(_, run)| run.id),
                        state,
                    };
                    blocks.push(block, GFP_KERNEL)?;
                }
                nr = nr.saturating_add(1);
            }
        }
        Ok(blocks)
    }

    /// Blames the copies that were read last for what was bad in them: counts what did not match, tells
    /// people, and notes what there is to repair.
    ///
    /// Rule: `btrfs_data_csum_ok()`, fs/btrfs/inode.c.
    fn blame(&self, blocks: &mut [Block], scratch: &mut [u8]) -> Result<(), Stop> {
        if !blocks.iter().any(Block::is_pending) {
            return Ok(());
        }
        let inode = self.inode.inode();
        let hold = DeviceHold::take(inode.fs(), Patience::Wait).map_err(Stop::from_mapping)?;
        let fetches = &self.plan.fetches;
        for block in blocks.iter_mut().filter(|block| block.is_pending()) {
            // Takes a while, so not while RCU is kept waiting.
            let compared = match (block.state, &fetches.expected) {
                (State::Mismatch, Some(expected)) => verify::compare(
                    expected,
                    fetches,
                    self.pages,
                    block.memory,
                    block.nr,
                    scratch,
                ),
                _ => None,
            };
            let watch = Watch::new();
            // Not another one that has taken its place meanwhile.
            let stripe = locate(&watch, &hold, block.logical, block.copy);
            let device = stripe
                .and_then(|(_, stripe)| stripe)
                .map(|stripe| stripe.device)
                .filter(|device| Some(device.id()) == block.device);
            if device.is_some() {
                block.bad |= 1u32.checked_shl(block.copy.saturating_sub(1)).unwrap_or(0);
            }
            if block.state != State::Mismatch {
                continue;
            }
            stats::count(Counter::ChecksumMismatches);
            if let Some((digest, expected, _)) = compared {
                tell_mismatch(inode, block.file, &digest, expected, block.copy);
            }
            if let Some(device) = device {
                device.count_corruption();
            }
        }
        Ok(())
    }

    /// Reads blocks, and judges them. Returns whether there were any to read.
    ///
    /// No hold on devices held.
    pub(crate) fn read(
        &self,
        blocks: &mut [Block],
        next: Next,
        scratch: &mut [u8],
    ) -> Result<bool, Stop> {
        if !blocks.iter().any(|block| next.wants(block)) {
            return Ok(false);
        }
        let spots = self.read_once(blocks, next, scratch)?;
        let again = match blocks.iter().any(Block::is_doubtful) {
            true => self.read_once(blocks, Next::Alone, scratch)?,
            false => Spots::new(),
        };
        blame::count_blocks(self.inode, self.plan.range.block, &spots, &again)?;
        Ok(true)
    }

    /// Reads the blocks that `next` wants, and judges them. Returns where it read.
    fn read_once(
        &self,
        blocks: &mut [Block],
        next: Next,
        scratch: &mut [u8],
    ) -> Result<Spots, Stop> {
        let count = blocks.len();
        // Before the hold.
        let mut runs = Runs::with_room(count, GFP_KERNEL)?;
        let mut rebuilds = Few::with_room(count, GFP_KERNEL)?;
        let hold = DeviceHold::take(self.inode.inode().fs(), Patience::Wait);
        let hold = hold.map_err(Stop::from_mapping)?;
        self.route(&hold, blocks, next, &mut runs, &mut rebuilds)?;
        let fetches = &self.plan.fetches;
        let rebuilds = rebuilds.as_slice();
        let spots = spots(&runs)?;
        let rebuild_marks = marks(rebuilds.len())?;
        let size = self.plan.range.block;
        let ((), (), _) = batch::wait_for(
            hold,
            |submitter| {
                let (pool, pages, manner) = (&self.resources.pool, self.pages, self.manner);
                bio::submit(submitter, pool, &mut runs, fetches, pages, manner, &spots);
                let marks = &rebuild_marks;
                bio::rebuild(submitter, pool, rebuilds, size, fetches, pages, marks);
            },
            || (),
        );
        for block in blocks.iter_mut() {
            // What was good stays so, and is not in what was read.
            if !next.wants(block) {
                continue;
            }
            let (mark, len) = match block.source {
                Source::Run(nr) => (spots.mark(nr), runs.as_slice().get(nr).map(|run| run.len)),
                Source::Rebuild(nr) => (
                    rebuild_marks.get(nr),
                    rebuilds.get(nr).map(|rebuild| rebuild.len),
                ),
                Source::Nowhere => (None, None),
            };
            block.joined = len.is_some_and(|len| len > size);
            block.state = match mark {
                Some(mark) => self.judge(block.memory, block.nr, mark.status(), scratch),
                None => State::Absent,
            };
        }
        Ok(spots)
    }

    /// Finds out where to read blocks. Does not sleep: there is room for all of them.
    fn route(
        &self,
        hold: &DeviceHold<'_>,
        blocks: &mut [Block],
        next: Next,
        runs: &mut Runs,
        rebuilds: &mut Few<Rebuild>,
    ) -> Result<(), Stop> {
        let size = self.plan.range.block;
        let watch = Watch::new();
        // The block before, if it is read.
        let mut before: Option<(u64, Memory, u32, Source)> = None;
        for block in blocks.iter_mut() {
            if !next.wants(block) || next == Next::Alone {
                before = None;
            }
            if !next.wants(block) {
                continue;
            }
            block.source = Source::Nowhere;
            block.device = None;
            let shape = ChunkMap::get(&watch, hold, block.logical).map(|map| map.shape());
            let shape = shape.map_err(Stop::from_mapping)?;
            if next == Next::Copy {
                let copies = stripe::copies(&shape);
                let last = block.copy;
                block.copy = match last {
                    last if last >= copies => 1,
                    other => other.saturating_add(1),
                };
                let round = block.first == 0 && last >= copies;
                if round || block.copy == block.first || block.first > copies {
                    block.state = State::Lost;
                    before = None;
                    continue;
                }
            }
            let Some((way, stripe)) = locate(&watch, hold, block.logical, block.copy) else {
                before = None;
                continue;
            };
            block.device = stripe.map(|stripe| stripe.device.id());
            // CAST: Widening.
            let follows = |(logical, memory, copy, _): &(u64, Memory, u32, Source)| {
                logical.checked_add(size as u64) == Some(block.logical)
                    && !stripe::begins(&shape, block.logical)
                    && memory.forward(size) == block.memory
                    && *copy == block.copy
            };
            let last = before.filter(follows).map(|(_, _, _, source)| source);
            block.source = match (way, stripe, last) {
                // Chunks need not end where stripes do elsewhere.
                (Way::Stripe(_), Some(stripe), Some(Source::Run(nr)))
                    if runs.as_slice().get(nr).is_some_and(|run| {
                        run.id == stripe.device.id() && run.end() == Some(stripe.physical)
                    }) =>
                {
                    runs.extend(nr, block.memory, size)?;
                    Source::Run(nr)
                }
                (Way::Stripe(_), Some(stripe), _) => {
                    let nr = runs.len();
                    let what = (block.logical, block.copy);
                    match runs.push(&stripe, what, block.memory, size, Why::Retry) {
                        Ok(()) => Source::Run(nr),
                        Err(Stop::Absent) => {
                            block.device = None;
                            Source::Nowhere
                        }
                        Err(stop) => return Err(stop),
                    }
                }
                (Way::Stripe(_), None, _) => Source::Nowhere,
                (Way::Rebuilt, _, Some(Source::Rebuild(nr))) => {
                    if let Some(rebuild) = rebuilds.as_mut_slice().get_mut(nr) {
                        rebuild.len = rebuild.len.saturating_add(size);
                    }
                    Source::Rebuild(nr)
                }
                (Way::Rebuilt, ..) => {
                    let rebuild = Rebuild {
                        logical: block.logical,
                        len: size,
                        memory: block.memory,
                        copy: block.copy,
                    };
                    rebuilds.push(rebuild, GFP_NOWAIT)?;
                    Source::Rebuild(rebuilds.as_slice().len().saturating_sub(1))
                }
            };
            before = match block.source {
                Source::Nowhere => None,
                source => Some((block.logical, block.memory, block.copy, source)),
            };
        }
        Ok(())
    }
}
