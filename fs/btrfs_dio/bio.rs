// SPDX-License-Identifier: GPL-2.0

//! From runs to bios: one for each, unless its memory is in more pieces than a bio can have.

use crate::{
    fetch::{
        Fetches,
        Memory, //
    },
    run::{
        Run,
        Runs,
        Span,
        Spans, //
    },
    safe::{
        block::{
            batch::Submitter,
            bio::{
                ReadBio,
                MAX_PIECES, //
            },
            plug::plugged,
            pool::BioPool, //
        },
        user_pages::UserPages,
        vecs::{
            self,
            Cursor,
            Vecs, //
        },
    },
    stats::{
        self,
        Counter, //
    },
    window::Manner, //
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
        let (Memory::Caller { at } | Memory::Private { at, .. }) = span.memory;
        vecs.seek(&mut cursor, at);
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

/// Submits the bios of all runs. If one cannot be made the set fails.
///
/// Task context, sleeps; no extent bit held.
pub(crate) fn submit<'p>(
    submitter: Submitter<'_, 'p>,
    pool: &'p BioPool,
    runs: &mut Runs,
    fetches: &'p Fetches,
    pages: &'p UserPages<'_>,
    manner: &Manner,
) {
    let mut spread = Spread {
        fetches,
        pages,
        whole: manner.alignment & (PAGE_SIZE - 1) == 0,
        callers: Cursor::default(),
    };
    let (runs, spans) = runs.as_mut_slice();
    let alone = runs.len() == 1;
    let submit_all = || {
        for run in runs {
            if let Err(error) = submit_run(submitter, pool, run, spans, &mut spread, manner.ioprio)
            {
                submitter.fail(error);
                return;
            }
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
) -> Result {
    if let Some(span) = spans.only(run) {
        let memory = spread.span(span)?;
        let charge = run.charge.split(span.len);
        let bio = ReadBio::over(pool, &run.device, run.physical, memory, ioprio, charge)?;
        submit_one(submitter, bio);
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
                ReadBio::over(pool, &run.device, physical, memory, ioprio, charge)?
            }
            _ => {
                let device = &run.device;
                let mut bio = ReadBio::gathering(pool, device, physical, pieces, ioprio, charge)?;
                for span in rest.by_ref().take(count) {
                    let (vecs, mut cursor) = spread.memory(span)?;
                    add(&mut bio, vecs, &mut cursor, span.len)?;
                }
                bio
            }
        };
        submit_one(submitter, bio);
        // CAST: Widening.
        physical = physical.checked_add(len as u64).ok_or(EINVAL)?;
    }
}

/// Submits a bio.
fn submit_one<'p>(submitter: Submitter<'_, 'p>, bio: ReadBio<'p>) {
    submitter.submit(bio);
    stats::count(Counter::Bios);
}

/// Adds `len` bytes of memory to a bio.
fn add<'p>(bio: &mut ReadBio<'p>, vecs: Vecs<'p>, cursor: &mut Cursor, len: usize) -> Result {
    let mut left = len;
    while left > 0 {
        let piece = vecs.next_piece(cursor, left).ok_or(EINVAL)?;
        if !bio.add(piece) {
            return Err(EINVAL);
        }
        left = left.saturating_sub(piece.len());
    }
    Ok(())
}
