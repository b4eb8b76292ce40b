// SPDX-License-Identifier: GPL-2.0

//! Memory in pieces: as memory in one.

use crate::{
    props::slow,
    safe::{hash::Algorithm, memory::Pieces},
};
use kernel::page::PAGE_SIZE;
use proptest::{collection::vec, prelude::*};

/// Gaps and lengths: pieces of none, a few and many bytes, of less and more than a page.
fn pieces() -> impl Strategy<Value = Vec<(usize, usize)>> {
    let len = prop_oneof![1 => Just(0usize), 6 => 1usize..600, 1 => 4000usize..9000];
    vec((0usize..5000, len), 0..6)
}

#[derive(Clone, Debug)]
enum Step {
    Seek(usize),
    Copy(Vec<u8>),
    Zero(usize),
    Next(usize),
    Hash(usize),
    Span(usize),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let len = || prop_oneof![4 => 0usize..700, 1 => 0usize..20_000];
    let step = prop_oneof![
        len().prop_map(Step::Seek),
        vec(any::<u8>(), 0..700).prop_map(Step::Copy),
        len().prop_map(Step::Zero),
        prop_oneof![4 => len(), 1 => any::<usize>()].prop_map(Step::Next),
        (1usize..700).prop_map(Step::Hash),
        prop_oneof![4 => len(), 1 => any::<usize>()].prop_map(Step::Span),
    ];
    vec(step, 0..12)
}

/// Pieces of sectors, in which blocks mostly are whole.
fn sectors() -> impl Strategy<Value = Vec<(usize, usize)>> {
    let unit = prop_oneof![1 => Just(512usize), 2 => Just(4096usize)];
    let piece = (unit, 0usize..3, 0usize..4);
    vec(
        piece.prop_map(|(unit, gap, len)| (gap * unit, len * unit)),
        0..6,
    )
}

proptest! {
    #![proptest_config(slow())]

    /// Which blocks are not what is expected does not depend on the pieces they are in, nor on whether
    /// they are looked at where they are.
    #[test]
    fn blocks_are_told_apart(
        pieces in prop_oneof![pieces(), sectors()],
        block in prop_oneof![Just(512usize), Just(4096), Just(8192)],
        skip in prop_oneof![Just(0usize), Just(512), Just(4096), 0usize..9000],
        more in 0usize..2,
        wrong in vec((any::<prop::sample::Index>(), 0usize..4), 0..3),
        missing in prop_oneof![3 => Just(0usize), 1 => 0usize..3],
    ) {
        let memory = Pieces::new(&pieces);
        let vecs = memory.vecs();
        // No block is as another.
        let all: Vec<u8> = (0..memory.len()).map(|nr| (nr % 251 + nr / 512) as u8).collect();
        vecs.copy_from(&mut memory.cursor(0), &all);
        let at = skip.min(all.len());
        let there = (all.len() - at) / block;
        let alg = Algorithm::Crc32c;
        let mut digests: Vec<_> = all[at..]
            .chunks_exact(block)
            .map(|block| alg.hash(block)[..alg.digest_size()].to_vec())
            .collect();
        let mut bad = std::collections::BTreeSet::new();
        for (nr, byte) in wrong {
            if there > 0 {
                let nr = nr.index(there);
                digests[nr][byte] ^= u8::from(bad.insert(nr));
            }
        }
        digests.truncate(there - missing.min(there));
        bad.extend(digests.len()..there);
        // What is not there is not right either.
        let (count, wrong) = (there + more, (bad.len() + more) as u64);
        let expected = || digests.iter().map(Vec::as_slice);

        let mut cursor = memory.cursor(at);
        let mut scratch = vec![0; block];
        let found = vecs.mismatches(&mut cursor, block, count, alg, &mut expected(), &mut scratch);
        prop_assert_eq!(found, wrong);
        let found = vecs.mismatches_in_place(at, count * block, block, alg, &mut expected());
        prop_assert!(found.is_none_or(|found| found == wrong && more == 0 && count > 0));
        // It is not for nothing.
        let whole = |(gap, len): &(usize, usize)| gap % block == 0 && len % block == 0;
        let fits = block <= PAGE_SIZE || cfg!(not(CONFIG_HIGHMEM));
        if fits && more == 0 && count > 0 && at % block == 0 && pieces.iter().all(whole) {
            prop_assert!(found.is_some());
        }
    }

    /// Whatever is done with it, memory in pieces is as memory in one, and what is beside it stays as
    /// it was.
    #[test]
    fn pieces_are_as_one(pieces in pieces(), steps in steps()) {
        let memory = Pieces::new(&pieces);
        let vecs = memory.vecs();
        let mut all = memory.bytes();
        let (mut cursor, mut at) = (memory.cursor(0), 0);
        for step in steps {
            let left = all.len() - at;
            match step {
                Step::Seek(to) => {
                    vecs.seek(&mut cursor, to);
                    at = to.min(all.len());
                }
                Step::Copy(data) => {
                    let len = data.len().min(left);
                    vecs.copy_from(&mut cursor, &data);
                    all[at..at + len].copy_from_slice(&data[..len]);
                    at += len;
                }
                Step::Zero(len) => {
                    let len = len.min(left);
                    vecs.zero(&mut cursor, len);
                    all[at..at + len].fill(0);
                    at += len;
                }
                Step::Next(max) => {
                    let piece = vecs.next_piece(&mut cursor, max).map(|piece| piece.len());
                    match piece {
                        Some(len) => prop_assert!(len > 0 && len <= max && len <= left),
                        None => prop_assert!(max == 0 || left == 0),
                    }
                    at += piece.unwrap_or(0);
                }
                Step::Hash(len) => {
                    let mut scratch = vec![0; len];
                    let digest = vecs.hash(&mut cursor, len, Algorithm::Crc32c, &mut scratch);
                    prop_assert_eq!(digest.is_some(), len <= left);
                    if digest.is_some() {
                        prop_assert_eq!(digest, Some(Algorithm::Crc32c.hash(&all[at..at + len])));
                        at += len;
                    } else {
                        at = all.len();
                        cursor = memory.cursor(at);
                    }
                }
                Step::Span(len) => {
                    let pieces = vecs.pieces(&cursor, len.min(left));
                    prop_assert!(pieces <= len.min(left));
                    let span = vecs.span(&mut cursor, len);
                    prop_assert_eq!(span.is_some(), len > 0 && len <= left);
                    if span.is_some() {
                        at += len;
                    } else {
                        cursor = memory.cursor(at);
                    }
                }
            }
        }
        // What the cursor says is where it is.
        vecs.copy_from(&mut cursor, &[0x5a]);
        if let Some(byte) = all.get_mut(at) {
            *byte = 0x5a;
        }
        prop_assert_eq!(memory.bytes(), all);
        prop_assert!(memory.is_intact());
    }
}
