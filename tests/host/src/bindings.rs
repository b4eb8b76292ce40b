// SPDX-License-Identifier: GPL-2.0

//! What the module imports of C.
#![allow(non_upper_case_globals)]

use core::ffi::{c_int, c_void};

// include/uapi/linux/btrfs_tree.h, fs/btrfs/fs.h
pub(crate) const BTRFS_FILE_EXTENT_INLINE: u32 = 0;
pub(crate) const BTRFS_INLINE_DATA_START: u32 = 21;
pub(crate) const btrfs_compression_type_BTRFS_COMPRESS_ZLIB: u32 = 1;
pub(crate) const btrfs_compression_type_BTRFS_COMPRESS_LZO: u32 = 2;
pub(crate) const btrfs_compression_type_BTRFS_COMPRESS_ZSTD: u32 = 3;
pub(crate) const btrfs_csum_type_BTRFS_CSUM_TYPE_CRC32: u32 = 0;
pub(crate) const btrfs_csum_type_BTRFS_CSUM_TYPE_XXHASH: u32 = 1;
pub(crate) const btrfs_csum_type_BTRFS_CSUM_TYPE_SHA256: u32 = 2;
pub(crate) const btrfs_csum_type_BTRFS_CSUM_TYPE_BLAKE2: u32 = 3;

// include/linux/lzo.h
pub(crate) const LZO_E_OK: u32 = 0;
const LZO_E_ERROR: c_int = -1;

/// # Safety
///
/// None: as C functions are.
pub(crate) unsafe fn bdio_lzo1x_worst_compress(len: usize) -> usize {
    len + len / 16 + 64 + 3 + 2
}

/// Another implementation than the kernel's; what is tested is which segments it is given.
///
/// # Safety
///
/// `src` must be readable over `src_len` bytes, `dst` writable over `*dst_len`.
pub(crate) unsafe fn lzo1x_decompress_safe(
    src: *const u8,
    src_len: usize,
    dst: *mut u8,
    dst_len: &mut usize,
) -> c_int {
    // SAFETY: By the contract; the memory of the tests is initialised.
    let (src, dst) = unsafe {
        (
            core::slice::from_raw_parts(src, src_len),
            core::slice::from_raw_parts_mut(dst, *dst_len),
        )
    };
    match lzokay::decompress::decompress(src, dst) {
        Ok(made) => {
            *dst_len = made;
            LZO_E_OK as c_int
        }
        Err(_) => LZO_E_ERROR,
    }
}

/// # Safety
///
/// `data` must be readable over `len` bytes.
pub(crate) unsafe fn crc32c(seed: u32, data: *const c_void, len: usize) -> u32 {
    // SAFETY: By the contract.
    let data = unsafe { core::slice::from_raw_parts(data.cast::<u8>(), len) };
    data.iter().fold(seed, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| {
            (crc >> 1) ^ (0x82f6_3b78 & (crc & 1).wrapping_neg())
        })
    })
}

/// # Safety
///
/// There must be four values at `crcs`, and at `data` where four blocks of `len` bytes are readable.
pub(crate) unsafe fn crc32c_4x(crcs: *mut u32, data: *const *const c_void, len: usize) {
    for nr in 0..4 {
        // SAFETY: By the contract.
        unsafe { *crcs.add(nr) = crc32c(*crcs.add(nr), *data.add(nr), len) };
    }
}

/// Not used by any test.
///
/// # Safety
///
/// As that of [`crc32c`].
pub(crate) unsafe fn xxh64(_data: *const c_void, _len: usize, _seed: u64) -> u64 {
    unimplemented!()
}

/// Not used by any test.
///
/// # Safety
///
/// As that of [`crc32c`].
pub(crate) unsafe fn bdio_sha256(_data: *const c_void, _len: usize, _out: *mut u8) {
    unimplemented!()
}

/// Not used by any test.
///
/// # Safety
///
/// As that of [`crc32c`].
pub(crate) unsafe fn bdio_blake2b_256(_data: *const c_void, _len: usize, _out: *mut u8) {
    unimplemented!()
}
