// SPDX-License-Identifier: GPL-2.0

//! From runs to bios: one for each, unless its memory is in more pieces than a bio can have.

use crate::{
    attempt::Manner,
    fetch::{
        Fetches,
        Memory, //
    },
    run::{
        Run,
        Runs,
        Span,
        Spans,
        Spots, //
    },
    safe::{
        block::{
            batch::Submitter,
            bio::{
                Mark,
                ReadBio,
                MAX_PIECES, //
            },
            plug::plugged,
            pool::BioPool,
            rebuild::RebuildBio, //
        },
        user_pages::UserPages,
        vecs::{
            self,
            Cursor,
            Piece,
            Vecs, //
        },
    },
    stats::{
        self,
        Counter, //
    },
};
use kernel::{
    page::PAGE_SIZE,
    prelude::*, //
};

/// Where the memory of spans is.
struct Spread<'p, 'r> {
    fetches: &'p Fetches,
    pages: &'p UserPages<'r>,
    /// Whether each piece of the caller's memory is of whole pages.
    whole: bool,
    /// The place in the caller's memory that was used last.
    callers: Cursor,
}

impl<'p> Spread<'p, '_> {
    /// Returns the memory of a span, with a cursor at its beginning.
    fn memory(&mut self, span: &Span) -> Result<(Vecs<'p>, Cursor)> {
        let vecs = self.fetches.vecs(span.memory, self.pages).ok_or(EINVAL)?;
        let mut cursor = match span.memory {
            Memory::Caller { .. } => self.callers,
            Memory::Private { .. } => Cursor::default(),
        };
        vecs.seek(&mut cursor, span.memory.at());
        if matches!(span.memory, Memory::Caller { .. }) {
            self.callers = cursor;
        }
        Ok((vecs, cursor))
    }

    /// Returns the memory of a span, for a bio to be made over it.
    fn span(&mut self, span: &Span) -> Result<vecs::Span<'p>> {
        let (vecs, mut cursor) = self.memory(span)?;
        vecs.span(&mut cursor, span.len).ok_or(EINVAL)
    }

    /// Returns in how many pieces the memory of a span may be.
    fn pieces(&mut self, span: &Span) -> Result<usize> {
        if let (true, Memory::Caller { at }) = (self.whole, span.memory) {
            let end = (at % PAGE_SIZE).checked_add(span.len).ok_or(EINVAL)?;
            return Ok(end.div_ceil(PAGE_SIZE));
        }
        let (vecs, cursor) = self.memory(span)?;
        Ok(vecs.pieces(&cursor, span.len))
    }
}

/// Submits the bios of all runs. If one cannot be made the set fails. `spots` are those of the runs,
/// where it is marked what becomes of them, or none.
///
/// Task context, sleeps; no extent bit held.
pub(crate) fn submit<'p>(
    submitter: Submitter<'_, 'p>,
    pool: &'p BioPool,
    runs: &mut Runs,
    fetches: &'p Fetches,
    pages: &'p UserPages<'_>,
    manner: &Manner,
    spots: &'p Spots,
) {
    let mut spread = Spread {
        fetches,
        pages,
        whole: manner.alignment & (PAGE_SIZE - 1) == 0,
        callers: Cursor::default(),
    };
    let (runs, spans) = runs.as_mut_slice();
    let alone = runs.len() == 1;
    let mut submit_all = || {
        let mut status = Ok(());
        for (nr, run) in runs.iter_mut().enumerate() {
            let mark = spots.mark(nr);
            if status.is_ok() {
                let (ioprio, spread) = (manner.ioprio, &mut spread);
                status = submit_run(submitter, pool, run, spans, spread, ioprio, mark);
            }
            // Of what cannot be submitted nothing is, from there on.
            if let (Err(error), Some(mark)) = (status, mark) {
                mark.fail(error);
            }
        }
        if let Err(error) = status {
            submitter.fail(error);
        }
    };
    if alone {
        // One bio has nothing to wait for.
        submit_all();
    } else {
        plugged(submit_all);
    }
}

/// Submits the bios of a run.
fn submit_run<'p>(
    submitter: Submitter<'_, 'p>,
    pool: &'p BioPool,
    run: &mut Run,
    spans: Spans<'_>,
    spread: &mut Spread<'p, '_>,
    ioprio: u16,
    mark: Option<&'p Mark>,
) -> Result {
    if let Some(span) = spans.only(run) {
        let memory = spread.span(span)?;
        let charge = run.charge.split(span.len);
        let bio = submitter.read(pool, &run.device, run.physical, memory, ioprio, charge)?;
        submit_one(submitter, bio.marked(mark));
        return Ok(());
    }
    let mut physical = run.physical;
    let mut rest = spans.of(run);
    loop {
        // As many spans as one bio can gather.
        let (mut count, mut pieces, mut len) = (0usize, 0usize, 0usize);
        for span in rest.clone() {
            let sum = pieces.saturating_add(spread.pieces(span)?);
            if count > 0 && sum > MAX_PIECES {
                break;
            }
            pieces = sum;
            len = len.saturating_add(span.len);
            count = count.saturating_add(1);
        }
        let charge = run.charge.split(len);
        let bio = match count {
            0 => return Ok(()),
            1 => {
                let Some(span) = rest.next() else {
                    return Ok(());
                };
                let memory = spread.span(span)?;
                submitter.read(pool, &run.device, physical, memory, ioprio, charge)?
            }
            _ => {
                let device = &run.device;
                let mut bio = ReadBio::gathering(pool, device, physical, pieces, ioprio, charge)?;
                for span in rest.by_ref().take(count) {
                    if !bio.gather(spread.span(span)?) {
                        return Err(EINVAL);
                    }
                }
                bio
            }
        };
        submit_one(submitter, bio.marked(mark));
        // CAST: Widening.
        physical = physical.checked_add(len as u64).ok_or(EINVAL)?;
    }
}

/// What is to be rebuilt from parity: a part of one stripe. In bytes.
#[derive(Clone, Copy)]
pub(crate) struct Rebuild {
    /// Logical address.
    pub(crate) logical: u64,
    /// Length, in whole blocks.
    pub(crate) len: usize,
    /// Where it goes to: private memory.
    pub(crate) memory: Memory,
    /// Number of the copy, 2 or more, that says how.
    pub(crate) copy: u32,
}

/// Has all this rebuilt. What cannot be is marked as failed; there is a mark for each.
///
/// Task context, sleeps.
pub(crate) fn rebuild<'p>(
    submitter: Submitter<'_, 'p>,
    pool: &'p BioPool,
    rebuilds: &[Rebuild],
    block: usize,
    fetches: &'p Fetches,
    pages: &'p UserPages<'_>,
    marks: &'p [Mark],
) {
    for (rebuild, mark) in rebuilds.iter().zip(marks) {
        let submit = || {
            let vecs = fetches.vecs(rebuild.memory, pages).ok_or(EINVAL)?;
            let mut cursor = Cursor::default();
            vecs.seek(&mut cursor, rebuild.memory.at());
            let pieces = vecs.pieces(&cursor, rebuild.len);
            let mut bio = RebuildBio::new(pool, rebuild.logical, block, pieces, mark)?;
            add(|piece| bio.add(piece), vecs, &mut cursor, rebuild.len)?;
            submitter.rebuild(bio, rebuild.copy)
        };
        match submit() {
            Ok(()) => stats::count(Counter::Bios),
            Err(error) => mark.fail(error),
        }
    }
}

/// Submits a bio.
fn submit_one<'p>(submitter: Submitter<'_, 'p>, bio: ReadBio<'p>) {
    submitter.submit(bio);
    stats::count(Counter::Bios);
}

/// Adds `len` bytes of memory to a bio, piece by piece.
fn add<'p>(
    mut to: impl FnMut(Piece<'p>) -> bool,
    vecs: Vecs<'p>,
    cursor: &mut Cursor,
    len: usize,
) -> Result {
    let mut left = len;
    while left > 0 {
        let piece = vecs.next_piece(cursor, left).ok_or(EINVAL)?;
        left = left.saturating_sub(piece.len());
        if !to(piece) {
            return Err(EINVAL);
        }
    }
    Ok(())
}
