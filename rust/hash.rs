// SPDX-License-Identifier: GPL-2.0

//! The hash functions that btrfs checksums data with.
//!
//! Conventions of each (seed, byte order, length) are those of `btrfs_csum()`,
//! [`fs/btrfs/fs.c`](srctree/fs/btrfs/fs.c). Any context, no allocation.

use crate::bindings;

/// Size of the longest digest in bytes.
pub(crate) const MAX_DIGEST: usize = 32;

/// How many blocks [`crc32c_mismatches`] hashes at a time: as many as `crc32c_4x()` takes
/// ([`include/linux/crc32.h`](srctree/include/linux/crc32.h)).
pub(crate) const TOGETHER: usize = 4;

/// A digest; only the first [`Algorithm::digest_size`] bytes mean something.
pub(crate) type Digest = [u8; MAX_DIGEST];

/// A checksum algorithm of btrfs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Algorithm {
    /// CRC-32C, 4 bytes.
    Crc32c,
    /// xxHash64, 8 bytes.
    Xxhash64,
    /// SHA-256, 32 bytes.
    Sha256,
    /// BLAKE2b, 32 bytes of digest.
    Blake2b,
}

impl Algorithm {
    /// Returns the algorithm that `csum_type` of a superblock stands for.
    pub(crate) fn from_csum_type(csum_type: u32) -> Option<Self> {
        match csum_type {
            bindings::btrfs_csum_type_BTRFS_CSUM_TYPE_CRC32 => Some(Self::Crc32c),
            bindings::btrfs_csum_type_BTRFS_CSUM_TYPE_XXHASH => Some(Self::Xxhash64),
            bindings::btrfs_csum_type_BTRFS_CSUM_TYPE_SHA256 => Some(Self::Sha256),
            bindings::btrfs_csum_type_BTRFS_CSUM_TYPE_BLAKE2 => Some(Self::Blake2b),
            _ => None,
        }
    }

    /// Returns the size of a digest in bytes.
    pub(crate) const fn digest_size(self) -> usize {
        match self {
            Self::Crc32c => 4,
            Self::Xxhash64 => 8,
            Self::Sha256 | Self::Blake2b => MAX_DIGEST,
        }
    }

    /// Returns whether a digest is the one expected, of which there are as many bytes as a digest
    /// has.
    pub(crate) fn matches(self, digest: &Digest, expected: &[u8]) -> bool {
        // By cases, so that each has a length that is known beforehand.
        match self {
            Self::Crc32c => digest.first_chunk::<4>() == expected.first_chunk(),
            Self::Xxhash64 => digest.first_chunk::<8>() == expected.first_chunk(),
            Self::Sha256 | Self::Blake2b => Some(digest) == expected.first_chunk(),
        }
    }

    /// Hashes `len` bytes at `data`.
    ///
    /// The memory may change meanwhile (it belongs to a user): the digest is then that of no
    /// particular content, which is why no Rust slice is formed over it.
    ///
    /// # Safety
    ///
    /// `data` must be mapped and readable for `len` bytes.
    pub(crate) unsafe fn hash_raw(self, data: *const u8, len: usize) -> Digest {
        let mut out: Digest = [0; MAX_DIGEST];
        match self {
            Self::Crc32c => {
                // SAFETY: `data` is readable for `len` bytes by the contract of this function.
                let crc = !unsafe { bindings::crc32c(!0, data.cast(), len) };
                out[..4].copy_from_slice(&crc.to_le_bytes());
            }
            Self::Xxhash64 => {
                // SAFETY: As above.
                let hash = unsafe { bindings::xxh64(data.cast(), len, 0) };
                out[..8].copy_from_slice(&hash.to_le_bytes());
            }
            // SAFETY: As above, and `out` has the 32 bytes that are written.
            Self::Sha256 => unsafe { bindings::bdio_sha256(data.cast(), len, out.as_mut_ptr()) },
            Self::Blake2b => {
                // SAFETY: As above.
                unsafe { bindings::bdio_blake2b_256(data.cast(), len, out.as_mut_ptr()) }
            }
        }
        out
    }

    /// Returns whether `len` bytes at `data` have the digest expected, of which there are as many bytes
    /// as a digest has.
    ///
    /// # Safety
    ///
    /// As that of [`Self::hash_raw`].
    #[inline]
    pub(crate) unsafe fn matches_raw(self, data: *const u8, len: usize, expected: &[u8]) -> bool {
        match self {
            Self::Crc32c => {
                // SAFETY: By the contract of this function.
                let crc = !unsafe { bindings::crc32c(!0, data.cast(), len) };
                expected.first_chunk() == Some(&crc.to_le_bytes())
            }
            // SAFETY: By the contract of this function.
            _ => self.matches(&unsafe { self.hash_raw(data, len) }, expected),
        }
    }

    /// Hashes bytes that nobody else can change.
    pub(crate) fn hash(self, data: &[u8]) -> Digest {
        // SAFETY: A slice is readable over its length.
        unsafe { self.hash_raw(data.as_ptr(), data.len()) }
    }
}

/// Returns how many of the blocks of `len` bytes at each `data` do not have the next CRC-32C expected;
/// nor has one for which there is none left.
///
/// # Safety
///
/// As that of [`Algorithm::hash_raw`], of each block.
pub(crate) unsafe fn crc32c_mismatches<'d>(
    data: &[*const u8; TOGETHER],
    len: usize,
    expected: &mut impl Iterator<Item = &'d [u8]>,
) -> u64 {
    let mut crcs = [!0u32; TOGETHER];
    // SAFETY: There are four of both, which are all that it takes; the blocks are readable by the
    // contract of this function.
    unsafe { bindings::crc32c_4x(crcs.as_mut_ptr(), data.as_ptr().cast(), len) };
    let mut bad = 0u64;
    for crc in crcs {
        let expected = expected.next().unwrap_or_default();
        let is_right = expected.first_chunk() == Some(&(!crc).to_le_bytes());
        bad = bad.saturating_add(u64::from(!is_right));
    }
    bad
}
