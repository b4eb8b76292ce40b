// SPDX-License-Identifier: GPL-2.0

//! LZO extents: what is well formed is decoded, what is not does no harm.
//!
//! Which segments there are, and where they go, is the module's to find out; what a segment decodes to
//! is left to another implementation of LZO, here as there.

use super::{lzo::Lzo, Decoder, Extent, Output, MAX_EXTENT};
use crate::{
    props::slow,
    safe::memory::{Pieces, CANARY},
};
use kernel::prelude::*;
use proptest::{collection::vec, prelude::*, sample::select};

const HEADER: usize = 4;

/// Decodes as `Decoders::extent()` does.
fn decode(
    input: &[u8],
    block: usize,
    ram_bytes: usize,
    skip: usize,
    output: &mut Output<'_>,
) -> Result {
    let extent = Extent::new(input, block, ram_bytes, skip)?;
    if output.left().saturating_add(skip) > MAX_EXTENT {
        return Err(EUCLEAN);
    }
    if output.left() > 0 {
        Lzo::new(GFP_KERNEL)?.extent(&extent, output)?;
    }
    output.zero_rest()
}

/// How a segment is made of data.
#[derive(Clone, Copy, Debug)]
enum How {
    Compressed,
    /// As one run of literals, longer than the data.
    Stored,
}

fn segment(data: &[u8], how: How) -> Vec<u8> {
    if matches!(how, How::Compressed) || data.len() < 4 {
        return lzokay::compress::compress(data).unwrap();
    }
    let mut out = match data.len() {
        len @ ..=238 => vec![17 + len as u8],
        len => {
            let more = len - 19;
            let mut out = vec![0; 1 + more / 255];
            out.push((more % 255) as u8 + 1);
            out
        }
    };
    out.extend(data);
    // The end: a match of three bytes from nowhere.
    out.extend([17, 0, 0]);
    out
}

/// Puts segments together as btrfs does: fs/btrfs/lzo.c, at the top.
fn frame(segments: &[Vec<u8>], block: usize) -> Vec<u8> {
    let mut out = vec![0; HEADER];
    for segment in segments {
        out.extend((segment.len() as u32).to_le_bytes());
        out.extend(segment);
        let left = out.len().next_multiple_of(block) - out.len();
        if left < HEADER {
            out.resize(out.len() + left, 0);
        }
    }
    let total = out.len() as u32;
    out[..HEADER].copy_from_slice(&total.to_le_bytes());
    out.resize(out.len().next_multiple_of(block), 0);
    out
}

/// Takes an extent apart as `lzo_decompress_bio()` of fs/btrfs/lzo.c does, of which the first `wanted`
/// bytes count. `None` if it fails before it has these.
fn btrfs_lzo_decompress(input: &[u8], block: usize, wanted: usize) -> Option<Vec<u8>> {
    let word = |at: usize| Some(u32::from_le_bytes(*input.get(at..)?.first_chunk()?) as usize);
    let most = block + block / 16 + 64 + 3 + 2;
    let total = word(0)?;
    if total > input.len() || total.div_ceil(block) * block < input.len() {
        return None;
    }
    let (mut at, mut out) = (HEADER, Vec::new());
    while at < total && out.len() < wanted {
        let len = word(at)?;
        at += HEADER;
        if len > most || at + len > input.len() {
            return None;
        }
        let mut segment = vec![0; most];
        let made = lzokay::decompress::decompress(&input[at..at + len], &mut segment).ok()?;
        out.extend(&segment[..made]);
        at += len;
        let left = block - at % block;
        if left < HEADER {
            at += left;
        }
    }
    out.resize(wanted.max(out.len()), 0);
    out.truncate(wanted);
    Some(out)
}

/// Bytes that compress more or less.
fn data(len: impl Strategy<Value = usize>) -> impl Strategy<Value = Vec<u8>> {
    (len, any::<u64>(), 0u32..9).prop_map(|(len, seed, noise)| {
        let mut state = seed | 1;
        let byte = |n: usize| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            let random = state as u32 % 8 < noise;
            if random {
                (state >> 32) as u8
            } else {
                b"some text, "[n % 11]
            }
        };
        (0..len).map(byte).collect()
    })
}

fn how() -> impl Strategy<Value = How> {
    select(&[How::Compressed, How::Stored])
}

fn block() -> impl Strategy<Value = usize> {
    select(&[512usize, 512, 512, 4096])
}

prop_compose! {
    /// As btrfs writes them: all segments but the last are of a block.
    fn good()(block in block())(
        data in data(1..block * 8),
        hows in vec(how(), 8),
        block in Just(block),
    ) -> (usize, Vec<u8>, Vec<u8>) {
        let pieces = data.chunks(block).zip(hows);
        let segments: Vec<_> = pieces.map(|(piece, how)| segment(piece, how)).collect();
        (block, frame(&segments, block), data)
    }
}

/// What is wanted, in thousandths of what there is, or a little beyond.
fn part() -> impl Strategy<Value = (usize, usize)> {
    (0usize..1100, 1usize..1100)
}

fn cut((skip, len): (usize, usize), all: usize) -> (usize, usize) {
    (all * skip / 1000, (all * len / 1000).max(1))
}

/// Memory of `len` bytes in pieces that begin anywhere.
fn pieces(len: usize, cuts: &[usize]) -> Pieces {
    let (mut left, mut pieces) = (len, Vec::new());
    for piece in cuts {
        let now = left.min(*piece);
        pieces.push((piece % 97, now));
        left -= now;
    }
    pieces.push((3, left));
    Pieces::new(&pieces)
}

proptest! {
    #![proptest_config(slow())]

    /// A part of what btrfs has written is that part, in memory of our own and in the caller's.
    #[test]
    fn a_part_of_an_extent((block, input, data) in good(), part in part(), cuts in vec(1usize..3000, 0..4)) {
        let (skip, len) = cut(part, data.len());
        let mut wanted: Vec<u8> = data.iter().copied().skip(skip).take(len).collect();
        wanted.resize(len, 0);
        let mut out = vec![CANARY; len];
        let made = decode(&input, block, data.len(), skip, &mut Output::slice(&mut out));
        prop_assert_eq!(made, Ok(()));
        prop_assert!(out == wanted);
        let memory = pieces(len, &cuts);
        let mut output = Output::pages(memory.vecs(), memory.cursor(0), len);
        prop_assert_eq!(decode(&input, block, data.len(), skip, &mut output), Ok(()));
        prop_assert!(memory.bytes() == wanted);
        prop_assert!(memory.is_intact());
    }

    /// Segments of any lengths, as nobody writes them, are put together as btrfs does, unless there are
    /// as many as if each were a block, and those in front are skipped.
    #[test]
    fn segments_of_any_lengths(
        block in block(),
        all in vec((data(0usize..700), how()), 0..8),
        (skip, len) in (0usize..3000, 1usize..5000),
        cuts in vec(1usize..700, 0..4),
    ) {
        let segments: Vec<_> = all.iter().map(|(data, how)| segment(data, *how)).collect();
        let input = frame(&segments, block);
        let ram_bytes: usize = all.iter().map(|(data, _)| data.len()).sum();
        let is_lie = segments.len() * block == ram_bytes.next_multiple_of(block);
        let skip = if is_lie { 0 } else { skip };
        let memory = pieces(len, &cuts);
        let mut output = Output::pages(memory.vecs(), memory.cursor(0), len);
        let made = decode(&input, block, ram_bytes, skip, &mut output);
        let wanted = btrfs_lzo_decompress(&input, block, skip + len);
        prop_assert_eq!(made.is_ok(), wanted.is_some());
        if let Some(wanted) = wanted {
            prop_assert!(memory.bytes() == wanted[skip..]);
        }
        prop_assert!(memory.is_intact());
    }

    /// As many segments as blocks, but not each a block: if one that is wanted tells, all is decoded
    /// from the beginning, and what was written before that is written once more.
    #[test]
    fn segments_that_are_no_blocks(
        data in data(Just(6 * 512)),
        (short, long) in (1usize..4, 4usize..6),
        less in 1usize..60,
        skip in 1usize..4 * 512,
        cuts in vec(1usize..700, 0..4),
    ) {
        let block = 512;
        let (mut rest, mut segments) = (&data[..], Vec::new());
        for nr in 0..6 {
            let size = match nr {
                _ if nr == short => block - less,
                _ if nr == long => block + less,
                _ => block,
            };
            let (piece, later) = rest.split_at(size);
            segments.push(segment(piece, How::Compressed));
            rest = later;
        }
        let input = frame(&segments, block);
        let skip = skip.min((short + 1) * block - 1);
        let len = data.len() - skip;
        let memory = pieces(len, &cuts);
        let mut output = Output::pages(memory.vecs(), memory.cursor(0), len);
        prop_assert_eq!(decode(&input, block, data.len(), skip, &mut output), Ok(()));
        prop_assert!(memory.bytes() == data[skip..]);
        prop_assert!(memory.is_intact());
    }

    /// What was written well and then spoiled, in headers above all: from its beginning it gives what
    /// btrfs makes of it, or an error; and wherever it is begun with, nothing is written to but the
    /// memory that is to be filled.
    #[test]
    fn spoiled_extents(
        (block, good, data) in good(),
        blows in vec((any::<prop::sample::Index>(), any::<u8>(), any::<bool>()), 1..4),
        shorter in prop::option::of(any::<prop::sample::Index>()),
        ram_bytes in prop_oneof![Just(None), (0usize..MAX_EXTENT + 2).prop_map(Some)],
        part in part(),
        cuts in vec(1usize..3000, 0..4),
    ) {
        let mut input = good;
        let mut headers = vec![0];
        let mut at = HEADER;
        while let Some(len) = input.get(at..).and_then(|rest| rest.first_chunk()) {
            headers.push(at);
            let end = at + HEADER + u32::from_le_bytes(*len) as usize;
            let left = end.next_multiple_of(block) - end;
            at = if left < HEADER { end + left } else { end };
        }
        for (place, byte, header) in blows {
            let at = if header {
                headers[place.index(headers.len())] + usize::from(byte) % 2
            } else {
                place.index(input.len())
            };
            input[at] ^= byte;
        }
        if let Some(shorter) = shorter {
            input.truncate(shorter.index(input.len()) + 1);
        }
        let (skip, len) = cut(part, data.len());
        let ram_bytes = ram_bytes.unwrap_or(data.len());
        for skip in [0, skip] {
            let memory = pieces(len, &cuts);
            let mut output = Output::pages(memory.vecs(), memory.cursor(0), len);
            let made = decode(&input, block, ram_bytes, skip, &mut output);
            prop_assert!(memory.is_intact());
            if skip == 0 && ram_bytes <= MAX_EXTENT {
                let wanted = btrfs_lzo_decompress(&input, block, len);
                prop_assert_eq!(made.is_ok(), wanted.is_some());
                prop_assert!(wanted.is_none_or(|wanted| memory.bytes() == wanted));
            }
        }
    }

    /// Nothing but noise, extents as well as inline.
    #[test]
    fn noise(
        mut input in vec(any::<u8>(), 0..3000),
        total in prop::option::of(0u32..4000),
        block in prop_oneof![block(), any::<usize>()],
        (ram_bytes, skip, len) in (0usize..9000, 0usize..9000, 0usize..4096),
    ) {
        if let (Some(total), Some(header)) = (total, input.first_chunk_mut()) {
            *header = total.to_le_bytes();
        }
        let mut out = vec![CANARY; len + 64];
        let (to, guard) = out.split_at_mut(len);
        let _ = decode(&input, block, ram_bytes, skip, &mut Output::slice(to));
        prop_assert!(guard.iter().all(|byte| *byte == CANARY));
        if let Ok(extent) = Extent::new(&input, block, ram_bytes.min(block), 0) {
            let len = len.min(extent.ram_bytes);
            let _ = Lzo::new(GFP_KERNEL).unwrap().inline(&extent, &mut to[..len]);
        }
    }

    /// Inline extents: of one segment, with two headers, and nothing else.
    #[test]
    fn inline_extents(
        block in block(),
        (data, how) in (data(1usize..512), how()),
        len in 0usize..512,
        longer in select(&[0i32, 0, 0, -1, 1]),
        inner in select(&[0i32, 0, -1, 1]),
    ) {
        let segment = segment(&data, how);
        let size = |len: usize, longer: i32| (len as i32 + longer) as u32;
        let mut input = Vec::new();
        input.extend(size(segment.len() + 2 * HEADER, longer).to_le_bytes());
        input.extend(size(segment.len(), inner).to_le_bytes());
        input.extend(&segment);
        let mut out = vec![CANARY; len.min(data.len())];
        let extent = Extent::new(&input, block, data.len(), 0).unwrap();
        let made = Lzo::new(GFP_KERNEL).unwrap().inline(&extent, &mut out);
        if longer == 0 && inner == 0 {
            prop_assert_eq!(made, Ok(()));
            prop_assert!(out == data[..out.len()]);
        } else {
            prop_assert_eq!(made, Err(EUCLEAN));
        }
        // Less than it says.
        let extent = Extent::new(&input, block, data.len() + 1, 0).unwrap();
        prop_assert!(Lzo::new(GFP_KERNEL).unwrap().inline(&extent, &mut out).is_err());
    }
}
