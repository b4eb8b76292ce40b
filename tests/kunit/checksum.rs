// SPDX-License-Identifier: GPL-2.0

//! Checksums: where they lie, and what they are.

use kernel::prelude::*;

#[kunit_tests(btrfs_dio_checksum)]
mod tests {
    use super::*;
    use crate::{
        checksum_group::digests_len,
        safe::{
            comparison::Comparison,
            hash::Algorithm, //
        },
    };

    #[test]
    fn each_block_has_a_digest() {
        // (length, block, size of a digest, size of all)
        let cases = [
            (0usize, 4096usize, 4usize, Some(0usize)),
            (4096, 4096, 4, Some(4)),
            (8192, 4096, 8, Some(16)),
            (4 << 20, 4096, 32, Some(32768)),
            (65536, 65536, 32, Some(32)),
            // No whole blocks.
            (512, 4096, 4, None),
            (4097, 4096, 4, None),
            // No block at all.
            (4096, 0, 4, None),
            // More than there can be.
            (8192, 4096, usize::MAX, None),
        ];
        for (len, block, size, expected) in cases {
            assert_eq!(digests_len(len, block, size), expected);
        }
    }

    #[test]
    fn algorithms_have_their_sizes() {
        let sizes = [
            (0u32, Some(4usize)),
            (1, Some(8)),
            (2, Some(32)),
            (3, Some(32)),
            (4, None),
            (u32::MAX, None),
        ];
        for (csum_type, size) in sizes {
            assert_eq!(
                Algorithm::from_csum_type(csum_type).map(Algorithm::digest_size),
                size
            );
        }
    }

    /// What the publications of the algorithms, or `btrfs_csum()`, give for these messages.
    #[test]
    fn known_answers() {
        // CRC-32C: the check value of the CRC catalogue, little endian.
        assert_eq!(
            Algorithm::Crc32c.hash(b"123456789")[..4],
            0xe306_9283u32.to_le_bytes()
        );
        // xxHash64 with seed 0 of nothing.
        assert_eq!(
            Algorithm::Xxhash64.hash(b"")[..8],
            0xef46_db37_51d8_e999u64.to_le_bytes()
        );
        // SHA-256 of "abc", FIPS 180-2 appendix B.1.
        assert_eq!(
            Algorithm::Sha256.hash(b"abc"),
            [
                0xba, 0x78, 0x16, 0xbf, 0x8f, 0x01, 0xcf, 0xea, 0x41, 0x41, 0x40, 0xde, 0x5d, 0xae,
                0x22, 0x23, 0xb0, 0x03, 0x61, 0xa3, 0x96, 0x17, 0x7a, 0x9c, 0xb4, 0x10, 0xff, 0x61,
                0xf2, 0x00, 0x15, 0xad,
            ]
        );
        // BLAKE2b with 32 bytes of digest, of "abc".
        assert_eq!(Algorithm::Blake2b.hash(b"abc"), BLAKE2B_ABC);
    }

    /// However many blocks are hashed together, each is compared with what is expected of it.
    #[test]
    fn blocks_are_told_apart() -> Result {
        const MOST: usize = 10;
        const BLOCKS: [usize; 8] = [1, 8, 63, 129, 200, 512, 4095, 4096];
        let mut data = KVVec::from_elem(0u8, MOST * 4096, GFP_KERNEL)?;
        for (nr, byte) in data.iter_mut().enumerate() {
            *byte = (nr % 251) as u8;
        }
        // Which block does not wait for others.
        let cases = (0..=MOST).flat_map(|count| [(count, MOST), (count, 0), (count, 5)]);
        for ((count, at_once), block) in cases.flat_map(|case| BLOCKS.map(|block| (case, block))) {
            for alg in [Algorithm::Crc32c, Algorithm::Xxhash64] {
                let (data, size) = (&data[..block * count], alg.digest_size());
                let mut digests = KVVec::new();
                for block in data.chunks_exact(block) {
                    digests.extend_from_slice(&alg.hash(block)[..size], GFP_KERNEL)?;
                }
                let wrong = |digests: &[u8]| {
                    let mut expected = digests.chunks_exact(size);
                    let mut comparison = Comparison::new(alg, block, &mut expected);
                    for (nr, block) in data.chunks_exact(block).enumerate() {
                        match nr == at_once {
                            true => comparison.add_by(|to| alg.matches(&alg.hash(block), to)),
                            // SAFETY: A slice is readable over its length.
                            false => unsafe { comparison.add(block.as_ptr()) },
                        }
                    }
                    comparison.mismatches()
                };
                assert_eq!(wrong(&digests), 0);
                for nr in 0..count {
                    let byte = nr * size + nr % size;
                    digests[byte] ^= 1;
                    assert_eq!(wrong(&digests), 1);
                    digests[byte] ^= 1;
                    // If there is none for it, nor for all behind it.
                    assert_eq!(wrong(&digests[..nr * size]), (count - nr) as u64);
                }
            }
        }
        Ok(())
    }

    const BLAKE2B_ABC: [u8; 32] = [
        0xbd, 0xdd, 0x81, 0x3c, 0x63, 0x42, 0x39, 0x72, 0x31, 0x71, 0xef, 0x3f, 0xee, 0x98, 0x57,
        0x9b, 0x94, 0x96, 0x4e, 0x3b, 0xb1, 0xcb, 0x3e, 0x42, 0x72, 0x62, 0xc8, 0xc0, 0x68, 0xd5,
        0x23, 0x19,
    ];
}
