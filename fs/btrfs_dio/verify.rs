// SPDX-License-Identifier: GPL-2.0

//! Whether what has arrived has the checksums that it must have.
//!
//! A window that takes one CPU longer than others take to come and help is cut into parts of
//! consecutive blocks, which several CPUs verify.

use crate::{
    checksum::Expected,
    fetch::{
        Fetches,
        Memory, //
    },
    safe::{
        hash::{
            Algorithm,
            Digest, //
        },
        parallel,
        user_pages::UserPages,
        vecs::Cursor,
        workqueue::Queue, //
    },
    stats::{
        self,
        Counter, //
    },
};
use core::ops::Range;
use kernel::{
    sizes::{
        SZ_1M,
        SZ_64K, //
    },
    sync::atomic::{
        ordering::Relaxed,
        Atomic, //
    },
};

/// Most parts of a window: two for each CPU that may be at it, so that one that begins late takes less.
pub(crate) const PARTS: usize = 2 * (parallel::MOST + 1);

/// Returns how many bytes make it worth while to have another CPU help: what takes one of those of
/// today some 40 us, ten times of what it takes to wake the other.
pub(crate) const fn worth_help(algorithm: Algorithm) -> usize {
    match algorithm {
        Algorithm::Crc32c | Algorithm::Xxhash64 => SZ_1M,
        Algorithm::Sha256 | Algorithm::Blake2b => SZ_64K,
    }
}

/// Returns in how many parts to verify so many blocks, if each is to have so many at least.
pub(crate) fn parts(blocks: usize, least: usize) -> usize {
    blocks.checked_div(least).unwrap_or(0).clamp(1, PARTS)
}

/// Returns which blocks part number `nr` of so many is: all parts together are all blocks, each once.
pub(crate) fn part(blocks: usize, parts: usize, nr: usize) -> Range<usize> {
    let begin = |nr: usize| {
        let share = blocks.checked_div(parts).unwrap_or(0);
        let more = blocks.checked_rem(parts).unwrap_or(0);
        // The first parts have one more each. All of it is `blocks` at most.
        nr.saturating_mul(share).saturating_add(nr.min(more))
    };
    begin(nr)..begin(nr.saturating_add(1))
}

/// Returns the number of blocks that do not have the checksum they must have. Any context.
///
/// `scratch` is a block of memory, or empty if no block is in pieces.
pub(crate) fn mismatches(
    expected: &Expected,
    fetches: &Fetches,
    pages: &UserPages<'_>,
    scratch: &mut [u8],
) -> u64 {
    // What most reads are: one stretch of memory, in which no block is in pieces.
    if let ([fetch], true) = (fetches.list(), scratch.is_empty()) {
        let at = fetch.memory.at();
        let (block, algorithm) = (expected.block(), expected.algorithm());
        let wrong = fetches.vecs(fetch.memory, pages).and_then(|vecs| {
            vecs.mismatches_in_place(at, fetch.len, block, algorithm, &mut expected.each())
        });
        if let Some(wrong) = wrong {
            return wrong;
        }
    }
    mismatches_in(expected, 0..usize::MAX, fetches, pages, scratch)
}

/// As [`mismatches`], along with other CPUs if that is worth while. Task context, sleeps; not from work
/// of `helpers`.
pub(crate) fn mismatches_with_help(
    helpers: &Queue,
    expected: &Expected,
    fetches: &Fetches,
    pages: &UserPages<'_>,
    scratch: &mut [u8],
) -> u64 {
    let bytes = fetches.list().iter().map(|fetch| fetch.len);
    let blocks = expected.blocks_in(bytes.fold(0, usize::saturating_add));
    let parts = parts(blocks, expected.blocks_in(worth_help(expected.algorithm())));
    // There is one block of memory to gather one in.
    if parts == 1 || !scratch.is_empty() || parallel::is_alone() {
        return mismatches(expected, fetches, pages, scratch);
    }
    stats::count(Counter::ChecksumsShared);
    let bad = Atomic::new(0u64);
    parallel::for_each(helpers, parts, &|nr| {
        let blocks = part(blocks, parts, nr);
        let wrong = mismatches_in(expected, blocks, fetches, pages, &mut []);
        // Who looks at the sum has waited for all who add to it.
        bad.fetch_add(wrong, Relaxed);
    });
    bad.load(Relaxed)
}

/// As [`mismatches`], of the blocks of these numbers, in the order they are fetched in, as far as there
/// are such.
#[inline(never)]
fn mismatches_in(
    expected: &Expected,
    blocks: Range<usize>,
    fetches: &Fetches,
    pages: &UserPages<'_>,
    scratch: &mut [u8],
) -> u64 {
    let (algorithm, block) = (expected.algorithm(), expected.block());
    let mut digests = expected.each();
    if let Some(last) = blocks.start.checked_sub(1) {
        digests.nth(last);
    }
    let (mut skip, mut left) = (blocks.start, blocks.len());
    let mut bad = 0u64;
    let mut callers = Cursor::default();
    for fetch in fetches.list() {
        let count = expected.blocks_in(fetch.len);
        if skip > 0 && skip >= count {
            skip = skip.saturating_sub(count);
            continue;
        }
        if left == 0 {
            break;
        }
        let memory = fetch.memory.forward(skip.saturating_mul(block));
        let count = count.saturating_sub(skip).min(left);
        skip = 0;
        left = left.saturating_sub(count);
        let mut private = Cursor::default();
        let cursor = match memory {
            Memory::Caller { .. } => &mut callers,
            Memory::Private { .. } => &mut private,
        };
        let wrong = match fetches.vecs(memory, pages) {
            Some(vecs) => {
                vecs.seek(cursor, memory.at());
                vecs.mismatches(cursor, block, count, algorithm, &mut digests, scratch)
            }
            // CAST: Widening.
            None => digests.by_ref().take(count).count().max(count) as u64,
        };
        bad = bad.saturating_add(wrong);
    }
    bad
}

/// Returns the digest that the block in `memory` has, and the one it must have, as block number `nr` of
/// all that are fetched; and whether these are the same. `None` if there is no such block.
///
/// `scratch` is a block of memory.
pub(crate) fn compare<'e>(
    expected: &'e Expected,
    fetches: &Fetches,
    pages: &UserPages<'_>,
    memory: Memory,
    nr: usize,
    scratch: &mut [u8],
) -> Option<(Digest, &'e [u8], bool)> {
    let algorithm = expected.algorithm();
    let digest = expected.each().nth(nr)?;
    let vecs = fetches.vecs(memory, pages)?;
    let mut cursor = Cursor::default();
    vecs.seek(&mut cursor, memory.at());
    let found = vecs.hash(&mut cursor, expected.block(), algorithm, scratch)?;
    Some((found, digest, algorithm.matches(&found, digest)))
}
