// SPDX-License-Identifier: GPL-2.0

//! Extents compressed with LZO: headers of extents and of segments, and what they may say.

use kernel::prelude::*;

#[kunit_tests(btrfs_dio_decode_lzo)]
mod tests {
    use super::super::decode::*;

    #[test]
    fn lzo_headers_of_extents() -> Result {
        let decoders = decoders()?;
        let data = sample(19, 24 * BLOCK)?;
        let whole = extent(Compression::Lzo, &data, BLOCK)?;
        let total = u32::from_le_bytes([whole[0], whole[1], whole[2], whole[3]]);
        let len = whole.len() as u32;
        let cases = [
            (total, None),
            // All of the last block is as good.
            (len, None),
            (len + 1, Some(EUCLEAN)),
            (u32::MAX, Some(EUCLEAN)),
            // The last block is not used.
            (len - BLOCK as u32, Some(EUCLEAN)),
            (4, Some(EUCLEAN)),
            (0, Some(EUCLEAN)),
        ];
        for (total, error) in cases {
            let mut input = KVVec::new();
            input.extend_from_slice(&whole, GFP_KERNEL)?;
            input[..4].copy_from_slice(&total.to_le_bytes());
            for skip in [0, 2 * BLOCK] {
                let got = decode(
                    &decoders,
                    Compression::Lzo,
                    &input,
                    (BLOCK, data.len()),
                    (skip, BLOCK),
                    BLOCK,
                );
                assert_eq!(got.err(), error);
            }
        }
        // The header alone, and less than that.
        for len in 1..=8u8 {
            let input = [len, 0, 0, 0, 0, 0, 0, 0];
            let got = decode(
                &decoders,
                Compression::Lzo,
                &input[..usize::from(len)],
                (BLOCK, BLOCK),
                (0, BLOCK),
                BLOCK,
            );
            match len {
                // No segments.
                4 => assert!(is_range(&got?, &[], 0)),
                // A segment of no bytes is no LZO stream.
                8 => assert_eq!(got.err(), Some(EIO)),
                _ => assert_eq!(got.err(), Some(EUCLEAN)),
            }
        }
        Ok(())
    }

    #[test]
    fn lzo_headers_of_segments() -> Result {
        let decoders = decoders()?;
        let data = sample(23, 2 * BLOCK)?;
        let whole = extent(Compression::Lzo, &data, BLOCK)?;
        let most = (BLOCK + BLOCK / 16 + 64 + 3 + 2) as u32;
        let first = u32::from_le_bytes([whole[4], whole[5], whole[6], whole[7]]);
        // The largest segment may not be longer than the input from behind its header on.
        let room = whole.len() as u32 - 8;
        let cases = [
            (first, None),
            (0, Some(EIO)),
            (first - 1, Some(EIO)),
            (first + 1, Some(EIO)),
            (most + 1, Some(EIO)),
            (u32::MAX, Some(EIO)),
            (room + 1, Some(if room < most { EUCLEAN } else { EIO })),
        ];
        for (len, error) in cases {
            let mut input = KVVec::new();
            input.extend_from_slice(&whole, GFP_KERNEL)?;
            input[4..8].copy_from_slice(&len.to_le_bytes());
            let got = decode(
                &decoders,
                Compression::Lzo,
                &input,
                (BLOCK, data.len()),
                (0, data.len()),
                BLOCK,
            );
            assert_eq!(got.err(), error);
        }
        // Beyond the input, and not too long for a segment.
        let mut input = KVVec::new();
        input.extend_from_slice(&[12, 0, 0, 0, 200, 0, 0, 0, 1, 2, 3, 4], GFP_KERNEL)?;
        let got = decode(
            &decoders,
            Compression::Lzo,
            &input,
            (BLOCK, BLOCK),
            (0, BLOCK),
            BLOCK,
        );
        assert_eq!(got.err(), Some(EUCLEAN));
        Ok(())
    }

    /// A segment that ends 0 to 5 bytes before the end of a block of the input: the next header
    /// follows if it fits, else it is in the next block.
    #[test]
    fn lzo_headers_do_not_cross_blocks() -> Result {
        let decoders = decoders()?;
        for gap in 0..=5usize {
            // Literals only, so that lengths are known: `n` bytes become `n + 4`.
            let lengths = [200usize, 200, 84 - gap, 50];
            let mut random = Random(29);
            let mut data = KVVec::new();
            for _ in 0..lengths.iter().sum() {
                data.push(random.next() as u8, GFP_KERNEL)?;
            }
            let mut input = KVVec::new();
            let mut at = 0;
            input.extend_with(4, 0, GFP_KERNEL)?;
            for len in lengths {
                let segment = encode::lzo_segment(&data[at..at + len])?;
                input.extend_from_slice(&(segment.len() as u32).to_le_bytes(), GFP_KERNEL)?;
                input.extend_from_slice(&segment, GFP_KERNEL)?;
                at += len;
                if at == 484 - gap {
                    // Whatever the compressor made of it, this is the end in question.
                    let left = input.len().next_multiple_of(BLOCK) - input.len();
                    assert_eq!(left, gap);
                    if gap < 4 {
                        input.extend_with(gap, 0, GFP_KERNEL)?;
                    }
                }
            }
            let total = input.len() as u32;
            input[..4].copy_from_slice(&total.to_le_bytes());
            let padding = input.len().next_multiple_of(BLOCK) - input.len();
            input.extend_with(padding, 0xff, GFP_KERNEL)?;
            let got = decode(
                &decoders,
                Compression::Lzo,
                &input,
                (BLOCK, 2 * BLOCK),
                (0, 2 * BLOCK),
                BLOCK,
            )?;
            assert!(is_range(&got, &data, 0));
        }
        Ok(())
    }

    /// Segments that are not a block each are read one after the other, as btrfs does.
    #[test]
    fn lzo_odd_segments() -> Result {
        let decoders = decoders()?;
        let data = sample(31, 4 * BLOCK)?;
        // (lengths of segments, ram_bytes, skip): as many as blocks, but a wanted one is short or
        // long; and not as many.
        let cases: [(&[usize], usize, usize); 5] = [
            (&[512, 100, 512], 3 * BLOCK, BLOCK),
            (&[512, 530, 100], 3 * BLOCK, BLOCK),
            (&[256, 256, 512], 2 * BLOCK, BLOCK),
            (&[512, 512], 3 * BLOCK, BLOCK),
            (&[512, 512, 512, 1], 3 * BLOCK, 2 * BLOCK),
        ];
        for (lengths, ram_bytes, skip) in cases {
            let mut rest = &data[..];
            let pieces = lengths.iter().map(|&len| {
                let (piece, behind) = rest.split_at(len);
                rest = behind;
                piece
            });
            let mut input = lzo_extent(pieces, BLOCK)?;
            let padding = input.len().next_multiple_of(BLOCK) - input.len();
            input.extend_with(padding, 0, GFP_KERNEL)?;
            let sum: usize = lengths.iter().sum();
            let got = decode(
                &decoders,
                Compression::Lzo,
                &input,
                (BLOCK, ram_bytes),
                (skip, ram_bytes - skip),
                BLOCK,
            )?;
            assert!(is_range(&got, &data[..sum], skip));
        }
        Ok(())
    }

    /// What is malformed in front of and behind the blocks that are wanted is not looked at.
    #[test]
    fn lzo_decodes_what_is_wanted() -> Result {
        let decoders = decoders()?;
        let data = sample(37, 3 * BLOCK)?;
        let mut input = extent(Compression::Lzo, &data, BLOCK)?;
        // The first byte of the first segment: a match that has nothing to refer to.
        input[8] = 0xff;
        let sizes = (BLOCK, data.len());
        for (skip, error) in [(BLOCK, None), (BLOCK - 1, Some(EIO)), (0, Some(EIO))] {
            let range = (skip, BLOCK);
            let got = decode(&decoders, Compression::Lzo, &input, sizes, range, BLOCK);
            assert_eq!(got.err(), error);
        }
        Ok(())
    }

    #[test]
    fn lzo_inline_headers() -> Result {
        let decoders = decoders()?;
        let data = sample(43, 300)?;
        let whole = encoded(Compression::Lzo, &data, BLOCK)?;
        let change = |at: usize, by: u8| -> Result<Option<Error>> {
            let mut input = KVVec::new();
            input.extend_from_slice(&whole, GFP_KERNEL)?;
            input[at] = input[at].wrapping_add(by);
            Ok(decode_inline(&decoders, Compression::Lzo, &input, (BLOCK, 300), 300).err())
        };
        assert_eq!(change(0, 0)?, None);
        for at in [0, 4] {
            assert_eq!(change(at, 1)?, Some(EUCLEAN));
            assert_eq!(change(at, 255)?, Some(EUCLEAN));
        }
        for len in 1..=8 {
            let input = &whole[..len];
            let got = decode_inline(&decoders, Compression::Lzo, input, (BLOCK, 300), 300);
            assert_eq!(got.err(), Some(EUCLEAN));
        }
        Ok(())
    }
}
