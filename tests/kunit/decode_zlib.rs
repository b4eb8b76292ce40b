// SPDX-License-Identifier: GPL-2.0

//! What inflate makes of zlib streams at the limits: matches of any distance and length, outputs
//! that end anywhere, and a window that is smaller than what the stream refers to.

use kernel::prelude::*;

#[kunit_tests(btrfs_dio_decode_zlib)]
mod tests {
    use super::super::decode::*;

    /// Says that its window has 256 bytes, which is what inflate keeps of the output before.
    const SMALLEST_WINDOW: [u8; 2] = [0x08, 0x1d];

    /// Decodes the whole of `input`, in pieces.
    fn inflate(decoders: &Decoders, input: &[u8], len: usize, piece: usize) -> Result<KVVec<u8>> {
        decode(
            decoders,
            Compression::Zlib,
            input,
            (4096, len),
            (0, len),
            piece,
        )
    }

    /// Returns whether `data` is inflated as it was, in pieces of each of these sizes. Fails if it
    /// is not inflated.
    fn comes_back(data: &[u8], pieces: impl IntoIterator<Item = usize>) -> Result<bool> {
        let decoders = decoders()?;
        let input = encode::zlib(data, 4096, 15)?;
        for piece in pieces {
            if !is_range(&inflate(&decoders, &input, data.len(), piece)?, data, 0) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Appends `len` bytes as they are `distance` before.
    fn repeat(data: &mut KVVec<u8>, distance: usize, len: usize) -> Result {
        for _ in 0..len {
            data.push(data[data.len() - distance], GFP_KERNEL)?;
        }
        Ok(())
    }

    fn noise(data: &mut KVVec<u8>, random: &mut Random, len: usize) -> Result {
        for _ in 0..len {
            data.push(random.next() as u8, GFP_KERNEL)?;
        }
        Ok(())
    }

    #[test]
    fn matches_of_any_distance_and_length() -> Result {
        let mut random = Random(0x2177);
        let lengths = [
            3usize, 4, 7, 8, 9, 10, 15, 16, 17, 23, 24, 25, 63, 257, 258, 259,
        ];
        let far = [255, 256, 257, 4095, 4096, 4097, 20_000];
        for distance in Iterator::chain(1..=34, far) {
            let mut data = KVVec::new();
            noise(&mut data, &mut random, distance)?;
            for len in lengths {
                repeat(&mut data, distance, len)?;
                let between = random.below(8) + 1;
                noise(&mut data, &mut random, between)?;
            }
            assert!(comes_back(&data, [usize::MAX, 4096, 300])?);
        }
        Ok(())
    }

    #[test]
    fn outputs_that_end_anywhere() -> Result {
        assert!(comes_back(&sample(0x1977, 3000)?, 1..=600)?);
        Ok(())
    }

    /// What inflate does at most before it looks at what is left of the output: four literals, and the
    /// longest match. And the input, in memory that ends with it, may be cut off anywhere.
    #[test]
    fn no_more_than_there_is() -> Result {
        const GROUP: usize = 4 + 258;
        let decoders = decoders()?;
        let mut random = Random(0x1262);
        let mut data = KVVec::new();
        for _ in 0..12 {
            noise(&mut data, &mut random, 4)?;
            repeat(&mut data, 1, GROUP - 4)?;
        }
        let input = encode::zlib(&data, 4096, 15)?;
        for len in (1..4).flat_map(|groups| groups * GROUP - 12..groups * GROUP + 12) {
            let got = decode(
                &decoders,
                Compression::Zlib,
                &input,
                (4096, data.len()),
                (0, len),
                usize::MAX,
            )?;
            assert!(is_range(&got, &data[..len], 0));
        }
        for cut in 1..input.len() {
            let mut part = KVVec::with_capacity(cut, GFP_KERNEL)?;
            part.extend_from_slice(&input[..cut], GFP_KERNEL)?;
            let got = inflate(&decoders, &part, data.len(), usize::MAX);
            assert!(got.map_or_else(|e| e == EIO, |got| is_range(&got, &data, 0)));
        }
        Ok(())
    }

    /// Codes of few bits and of many, next to each other.
    #[test]
    fn codes_of_any_length() -> Result {
        let mut random = Random(0x6c65);
        for spread in [1usize, 4, 20] {
            let mut data = KVVec::new();
            for _ in 0..40_000 {
                // A byte has the half of the probability of the one before.
                let byte = (random.next() | 1 << 11).trailing_zeros() as usize;
                data.push((byte * spread + random.below(spread)) as u8, GFP_KERNEL)?;
            }
            assert!(comes_back(&data, [usize::MAX, 4096, 1000])?);
        }
        Ok(())
    }

    /// A match that refers to more than the window is fine as long as the output has it, and an
    /// error when it is continued in another. It once was taken from 4 GiB behind the window.
    #[test]
    fn matches_beyond_the_window() -> Result {
        let decoders = decoders()?;
        let mut data = KVVec::new();
        noise(&mut data, &mut Random(0x0815), 3000)?;
        repeat(&mut data, 3000, 250)?;
        let mut input = encode::zlib(&data, 4096, 15)?;
        input[..2].copy_from_slice(&SMALLEST_WINDOW);
        let got = inflate(&decoders, &input, data.len(), usize::MAX)?;
        assert!(is_range(&got, &data, 0));
        for piece in 3001..3250 {
            let got = inflate(&decoders, &input, data.len(), piece);
            assert_eq!(got.err(), Some(EIO));
        }
        Ok(())
    }
}
