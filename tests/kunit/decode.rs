// SPDX-License-Identifier: GPL-2.0

//! Decoding of extents: what compressors make, what is cut off, and what is malformed.

pub(super) use crate::safe::decode::{
    encode,
    Compression,
    Decoders,
    Output, //
};
pub(super) use kernel::{
    prelude::*,
    sync::Arc, //
};

pub(super) const ALL: [Compression; 3] = [Compression::Zlib, Compression::Lzo, Compression::Zstd];

/// A block that makes small extents of several blocks.
pub(super) const BLOCK: usize = 512;

/// What is around an output, and must stay.
pub(super) const GUARD: usize = 64;
pub(super) const CANARY: u8 = 0xa5;

/// A generator of numbers that look random.
pub(super) struct Random(pub(super) u64);

impl Random {
    pub(super) fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    pub(super) fn below(&mut self, end: usize) -> usize {
        self.next().checked_rem(end as u64).unwrap_or(0) as usize
    }
}

/// Makes `len` bytes: stretches of noise, of text and of zeros, that cross blocks.
pub(super) fn sample(seed: u64, len: usize) -> Result<KVVec<u8>> {
    let mut random = Random(seed | 1);
    let mut data = KVVec::with_capacity(len, GFP_KERNEL)?;
    while data.len() < len {
        let stretch = (random.below(1500) + 1).min(len - data.len());
        let kind = random.below(4);
        for i in 0..stretch {
            let byte = match kind {
                0 => random.next() as u8,
                1 => 0,
                _ => b"a line of text that repeats, "[i % 29],
            };
            data.push(byte, GFP_KERNEL)?;
        }
    }
    Ok(data)
}

/// Makes an LZO extent of segments that each hold one of `pieces`.
pub(super) fn lzo_extent<'a>(
    pieces: impl Iterator<Item = &'a [u8]>,
    block: usize,
) -> Result<KVVec<u8>> {
    let mut out = KVVec::new();
    out.extend_with(4, 0, GFP_KERNEL)?;
    for piece in pieces {
        let segment = encode::lzo_segment(piece)?;
        out.extend_from_slice(&(segment.len() as u32).to_le_bytes(), GFP_KERNEL)?;
        out.extend_from_slice(&segment, GFP_KERNEL)?;
        let left = out.len().next_multiple_of(block) - out.len();
        if left < 4 {
            out.extend_with(left, 0, GFP_KERNEL)?;
        }
    }
    let total = out.len() as u32;
    out[..4].copy_from_slice(&total.to_le_bytes());
    Ok(out)
}

/// Compresses `data` to an extent, without the padding to a block.
pub(super) fn encoded(how: Compression, data: &[u8], block: usize) -> Result<KVVec<u8>> {
    match how {
        Compression::Zlib => encode::zlib(data, block, 15),
        Compression::Zstd => encode::zstd(data),
        Compression::Lzo => lzo_extent(data.chunks(block), block),
    }
}

/// Compresses `data` to an extent as it is on disk.
pub(super) fn extent(how: Compression, data: &[u8], block: usize) -> Result<KVVec<u8>> {
    let mut out = encoded(how, data, block)?;
    let padding = out.len().next_multiple_of(block) - out.len();
    out.extend_with(padding, 0, GFP_KERNEL)?;
    Ok(out)
}

pub(super) fn decoders() -> Result<Arc<Decoders>> {
    Arc::pin_init(Decoders::new(), GFP_KERNEL)
}

/// Decodes with memory around that must stay as it is, in pieces of `piece` bytes. Panics of the
/// kind that fail a test are not for here, so a write outside is `EFAULT`.
pub(super) fn decode(
    decoders: &Decoders,
    how: Compression,
    input: &[u8],
    (block, ram_bytes): (usize, usize),
    (skip, len): (usize, usize),
    piece: usize,
) -> Result<KVVec<u8>> {
    let mut memory = KVVec::from_elem(CANARY, len + 2 * GUARD, GFP_KERNEL)?;
    let mut output = Output::pieces(&mut memory[GUARD..GUARD + len], piece);
    let result = decoders.extent(how, input, block, ram_bytes, skip, &mut output);
    let left = output.left();
    guarded(memory, len, result.map(|()| left == 0))
}

/// Decodes an inline extent, as [`decode`] does a regular one.
pub(super) fn decode_inline(
    decoders: &Decoders,
    how: Compression,
    input: &[u8],
    (block, ram_bytes): (usize, usize),
    len: usize,
) -> Result<KVVec<u8>> {
    let mut memory = KVVec::from_elem(CANARY, len + 2 * GUARD, GFP_KERNEL)?;
    let out = &mut memory[GUARD..GUARD + len];
    let result = decoders.inline(how, input, block, ram_bytes, out);
    guarded(memory, len, result.map(|()| true))
}

pub(super) fn guarded(memory: KVVec<u8>, len: usize, result: Result<bool>) -> Result<KVVec<u8>> {
    let (before, behind) = (&memory[..GUARD], &memory[GUARD + len..]);
    if [before, behind]
        .iter()
        .any(|g| g.iter().any(|&byte| byte != CANARY))
    {
        return Err(EFAULT);
    }
    if !result? {
        return Err(ENODATA);
    }
    let mut out = KVVec::with_capacity(len, GFP_KERNEL)?;
    out.extend_from_slice(&memory[GUARD..GUARD + len], GFP_KERNEL)?;
    Ok(out)
}

/// Returns whether `got` is `data` from `skip` on, and then zeros.
pub(super) fn is_range(got: &[u8], data: &[u8], skip: usize) -> bool {
    let there = data.get(skip..).unwrap_or_default();
    let (now, rest) = got.split_at(got.len().min(there.len()));
    there.starts_with(now) && rest.iter().all(|&byte| byte == 0)
}

#[kunit_tests(btrfs_dio_decode)]
mod tests {
    use super::*;
    use kernel::{
        sync::{
            atomic::{
                Atomic,
                Relaxed, //
            },
            Completion, //
        },
        workqueue, //
    };

    #[test]
    fn types_are_those_on_disk() {
        let types = [
            (0u8, None),
            (1, Some(Compression::Zlib)),
            (2, Some(Compression::Lzo)),
            (3, Some(Compression::Zstd)),
            (4, None),
            (255, None),
        ];
        for (number, how) in types {
            assert_eq!(Compression::from_type(number), how);
        }
    }

    #[test]
    fn whole_extents_come_back() -> Result {
        let decoders = decoders()?;
        for how in ALL {
            for block in [BLOCK, 4096, 65536] {
                for len in [1, 511, 4096, 4097, 100_000, 128 << 10] {
                    let data = sample(len as u64, len)?;
                    let input = extent(how, &data, block)?;
                    if input.len() > 128 << 10 {
                        continue;
                    }
                    for piece in [usize::MAX, 4096, 100] {
                        let got = decode(&decoders, how, &input, (block, len), (0, len), piece)?;
                        assert!(is_range(&got, &data, 0));
                    }
                }
            }
        }
        Ok(())
    }

    #[test]
    fn ranges_are_those_of_the_whole() -> Result {
        let decoders = decoders()?;
        // Blocks, and a last one that is not whole.
        let len = 5 * BLOCK + 100;
        let data = sample(7, len)?;
        let ends = [
            0usize, 1, 100, 511, 512, 513, 1023, 1024, 1025, 1536, 2047, 2048, 2049, 2559, 2560,
            2561, 2659, 2660, 2661, 3072,
        ];
        for how in ALL {
            let input = extent(how, &data, BLOCK)?;
            for skip in ends {
                for end in ends {
                    let want = end.saturating_sub(skip);
                    for piece in [usize::MAX, BLOCK, 200] {
                        let got =
                            decode(&decoders, how, &input, (BLOCK, len), (skip, want), piece)?;
                        assert!(is_range(&got, &data, skip));
                    }
                }
            }
        }
        Ok(())
    }

    #[test]
    fn ranges_of_the_largest_extent() -> Result {
        let decoders = decoders()?;
        let data = sample(11, 128 << 10)?;
        let mut random = Random(99);
        for how in ALL {
            let input = extent(how, &data, 4096)?;
            for _ in 0..40 {
                let skip = random.below(data.len());
                let want = random.below(data.len() - skip) + 1;
                let (skip, want) = match random.below(2) {
                    0 => (skip / 4096 * 4096, want.next_multiple_of(4096)),
                    _ => (skip, want),
                };
                let want = want.min(data.len() - skip);
                let got = decode(
                    &decoders,
                    how,
                    &input,
                    (4096, data.len()),
                    (skip, want),
                    4096,
                )?;
                assert!(is_range(&got, &data, skip));
            }
        }
        Ok(())
    }

    #[test]
    fn what_a_stream_lacks_is_zero() -> Result {
        let decoders = decoders()?;
        for how in ALL {
            for len in [1, 600, 2 * BLOCK] {
                let data = sample(3, len)?;
                let input = extent(how, &data, BLOCK)?;
                for skip in [0, 1, BLOCK, 2 * BLOCK, 3 * BLOCK] {
                    let ram_bytes = 4 * BLOCK;
                    let got = decode(
                        &decoders,
                        how,
                        &input,
                        (BLOCK, ram_bytes),
                        (skip, ram_bytes - skip),
                        BLOCK,
                    )?;
                    assert!(is_range(&got, &data, skip));
                }
            }
        }
        Ok(())
    }

    /// zlib has to reach its end, unless there is all that is wanted. Zstandard need not. An LZO
    /// extent says how long it is.
    #[test]
    fn cut_off_streams() -> Result {
        let decoders = decoders()?;
        let data = sample(5, 16 * BLOCK)?;
        let sizes = (BLOCK, data.len());
        for how in ALL {
            let whole = encoded(how, &data, BLOCK)?;
            for cut in 0..whole.len() {
                let input = &whole[..cut];
                let got = decode(&decoders, how, input, sizes, (0, data.len()), BLOCK);
                match (how, got) {
                    // What is missing is an empty block, or the checksum.
                    (Compression::Zlib, Ok(got)) => {
                        assert!(cut + 16 > whole.len() && is_range(&got, &data, 0));
                    }
                    (Compression::Zlib, Err(e)) => {
                        assert_eq!(e, if cut == 0 { EUCLEAN } else { EIO });
                    }
                    (Compression::Lzo, got) => assert_eq!(got.err(), Some(EUCLEAN)),
                    (Compression::Zstd, Ok(got)) => {
                        let same = data.iter().zip(&got).take_while(|(a, b)| a == b).count();
                        assert!(got[same..].iter().all(|&byte| byte == 0));
                    }
                    (Compression::Zstd, Err(e)) => assert_eq!((cut, e), (0, EUCLEAN)),
                }
            }
        }
        let whole = encoded(Compression::Zlib, &data, BLOCK)?;
        let half = &whole[..whole.len() / 2];
        let got = decode(
            &decoders,
            Compression::Zlib,
            half,
            sizes,
            (BLOCK, BLOCK),
            BLOCK,
        )?;
        assert!(is_range(&got, &data, BLOCK));
        Ok(())
    }

    #[test]
    fn zlib_headers() -> Result {
        let decoders = decoders()?;
        let data = sample(13, 3 * BLOCK)?;
        let try_with = |input: &[u8]| {
            decode(
                &decoders,
                Compression::Zlib,
                input,
                (BLOCK, data.len()),
                (0, data.len()),
                BLOCK,
            )
        };
        for window_bits in 9..=15 {
            let mut input = encode::zlib(&data, BLOCK, window_bits)?;
            assert!(is_range(&try_with(&input)?, &data, 0));
            // The checksum of the stream is not looked at.
            if let Some(last) = input.last_mut() {
                *last ^= 1;
            }
            assert!(is_range(&try_with(&input)?, &data, 0));
        }
        let input = encode::zlib(&data, BLOCK, 15)?;
        // (method and window, flags): a header that is none, other methods, a dictionary, a window
        // that is too large.
        for (method, flags) in [
            (0u8, 0u8),
            (0x78, 0),
            (0x79, 0x9a),
            (0x78, 0xbb),
            (0x88, 0x1c),
        ] {
            let mut bad = KVVec::new();
            bad.extend_from_slice(&input, GFP_KERNEL)?;
            bad[0] = method;
            bad[1] = flags;
            assert_eq!(try_with(&bad).err(), Some(EIO));
        }
        Ok(())
    }

    #[test]
    fn zstd_headers() -> Result {
        let decoders = decoders()?;
        let data = sample(17, 3 * BLOCK)?;
        let mut input = extent(Compression::Zstd, &data, BLOCK)?;
        for at in 0..4 {
            input[at] ^= 0x10;
            let got = decode(
                &decoders,
                Compression::Zstd,
                &input,
                (BLOCK, data.len()),
                (0, data.len()),
                BLOCK,
            );
            input[at] ^= 0x10;
            assert_eq!(got.err(), Some(EIO));
        }
        Ok(())
    }

    #[test]
    fn inline_extents() -> Result {
        let decoders = decoders()?;
        for how in ALL {
            for len in [1usize, 5, 100, 511, 512] {
                let data = sample(41, len)?;
                let input = encoded(how, &data, BLOCK)?;
                for out in [0, 1, 99, len, BLOCK] {
                    let got = decode_inline(&decoders, how, &input, (BLOCK, len), out)?;
                    assert!(is_range(&got, &data, 0));
                    // The metadata says less than there is.
                    let less = len - 1;
                    let got = decode_inline(&decoders, how, &input, (BLOCK, less), out)?;
                    assert!(is_range(&got, &data[..less], 0));
                    // The metadata says more than there is.
                    let got = decode_inline(&decoders, how, &input, (BLOCK, len + 1), out);
                    assert_eq!(got.err(), (len < BLOCK).then_some(EIO));
                }
                // No more than a block, whatever the metadata says.
                if len == BLOCK {
                    let got = decode_inline(&decoders, how, &input, (BLOCK, usize::MAX), len)?;
                    assert!(is_range(&got, &data, 0));
                }
                let got = decode_inline(&decoders, how, &input, (BLOCK, len), BLOCK + 1);
                assert_eq!(got.err(), Some(EINVAL));
            }
        }
        Ok(())
    }

    #[test]
    fn limits() -> Result {
        let decoders = decoders()?;
        let most = 128usize << 10;
        let zeros = KVVec::from_elem(0u8, most + 1, GFP_KERNEL)?;
        // (input, block, ram_bytes, skip, length, error)
        let cases = [
            (0, 4096, 4096, 0, 4096, EUCLEAN),
            (most + 1, 4096, 4096, 0, 4096, EUCLEAN),
            (4096, 4096, most + 1, 0, 4096, EUCLEAN),
            (4096, 4096, 4096, usize::MAX, 4096, EUCLEAN),
            (4096, 4096, most, most, 1, EUCLEAN),
            (4096, 0, 4096, 0, 4096, EINVAL),
            (4096, 256, 4096, 0, 4096, EINVAL),
            (4096, 4095, 4096, 0, 4096, EINVAL),
            (4096, 128 << 10, 4096, 0, 4096, EINVAL),
        ];
        for how in ALL {
            for (input, block, ram_bytes, skip, len, error) in cases {
                let input = &zeros[..input];
                let got = decode(&decoders, how, input, (block, ram_bytes), (skip, len), 4096);
                assert_eq!(got.err(), Some(error));
            }
            // Nothing wanted of nothing good.
            let input = &zeros[..4096];
            assert!(decode(&decoders, how, input, (4096, most), (most, 0), 4096).is_ok());
            let got = decode_inline(&decoders, how, &zeros, (4096, 4096), 4096);
            assert_eq!(got.err(), Some(EUCLEAN));
        }
        Ok(())
    }

    /// Whatever the input is, nothing outside the output is written to, and the errors are those.
    #[test]
    fn flipped_bits() -> Result {
        let decoders = decoders()?;
        let mut random = Random(0x5eed);
        for how in ALL {
            for round in 0..400 {
                let len = random.below(6 * BLOCK) + 1;
                let data = sample(random.next(), len)?;
                let inline = round % 4 == 3;
                let data = if inline {
                    &data[..len.min(BLOCK)]
                } else {
                    &data
                };
                let mut input = if inline {
                    encoded(how, data, BLOCK)?
                } else {
                    extent(how, data, BLOCK)?
                };
                for _ in 0..=random.below(4) {
                    // Headers more often than chance has it.
                    let end = if random.below(2) == 0 {
                        16
                    } else {
                        input.len()
                    };
                    let at = random.below(end.min(input.len()));
                    input[at] ^= 1 << random.below(8);
                }
                let skip = random.below(data.len());
                let want = random.below(data.len() + BLOCK - skip) + 1;
                let sizes = (BLOCK, data.len());
                let got = if inline {
                    decode_inline(&decoders, how, &input, sizes, want.min(BLOCK))
                } else {
                    let piece = [usize::MAX, BLOCK, 300][random.below(3)];
                    decode(&decoders, how, &input, sizes, (skip, want), piece)
                };
                assert!(matches!(got.err(), None | Some(EIO | EUCLEAN)));
            }
        }
        Ok(())
    }

    /// More tasks than decoders: everybody gets one in the end.
    #[test]
    fn tasks_wait_for_a_decoder() -> Result {
        const TASKS: usize = 12;
        let decoders = decoders()?;
        let done = Arc::pin_init(Completion::new(), GFP_KERNEL)?;
        let left = Arc::new(Atomic::new(TASKS as i32), GFP_KERNEL)?;
        let good = Arc::new(Atomic::new(0i32), GFP_KERNEL)?;
        let mut started = 0;
        for task in 0..TASKS {
            let (decoders, done) = (decoders.clone(), done.clone());
            let (left, good) = (left.clone(), good.clone());
            let work = move || {
                let run = || -> Result<bool> {
                    let data = sample(task as u64, 64 << 10)?;
                    let how = ALL[task % 3];
                    let input = extent(how, &data, 4096)?;
                    let sizes = (4096, data.len());
                    let mut same = true;
                    for _ in 0..20 {
                        let got = decode(&decoders, how, &input, sizes, (0, data.len()), 4096)?;
                        same &= is_range(&got, &data, 0);
                    }
                    Ok(same)
                };
                good.fetch_add(i32::from(run() == Ok(true)), Relaxed);
                if left.fetch_sub(1, Relaxed) == 1 {
                    done.complete_all();
                }
            };
            workqueue::system_unbound().try_spawn(GFP_KERNEL, work)?;
            started += 1;
        }
        assert_eq!(started, TASKS);
        done.wait_for_completion();
        assert_eq!(good.load(Relaxed), TASKS as i32);
        Ok(())
    }
}
