// SPDX-License-Identifier: GPL-2.0

//! Blocks that say what they are: which file, which block of it, which version,
//! in every word. What a reader got under writers can be told from them alone.
//! They compress a little: of words, each comes a few times in a row.

use crate::buffer::BLOCK;

/// Words in a block.
pub const WORDS: usize = BLOCK / 8;

/// Words in a row that are the same.
const RUN: usize = 4;

/// One version of one block of one file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Version {
    pub file: u64,
    pub block: u64,
    pub version: u64,
}

/// What a block that was read turned out to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    Zeros,
    Whole(u64),
    /// Right, but too short to tell its version.
    Short,
    /// The beginning of a version, and zeros after it.
    Cut(u64),
    /// A beginning too short to tell of which version, and zeros after it.
    Stub,
    /// Of another file or place, or of no version whole; the first wrong word.
    Wrong(usize),
}

impl Version {
    /// A word of this version.
    pub fn word(&self, i: usize) -> u64 {
        match i {
            0 => self.file,
            1 => self.block,
            2 => self.version,
            _ => spread(self.base(), i),
        }
    }

    fn base(&self) -> u64 {
        let mut hash = self.file ^ self.block.rotate_left(24) ^ self.version.rotate_left(48);
        for _ in 0..2 {
            hash = (hash ^ (hash >> 31)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        }
        hash
    }

    /// Fills a block.
    pub fn fill(&self, bytes: &mut [u8]) {
        let base = self.base();
        for (i, word) in bytes.chunks_exact_mut(8).enumerate() {
            let value = match i {
                0..3 => self.word(i),
                _ => spread(base, i),
            };
            word.copy_from_slice(&value.to_le_bytes());
        }
    }
}

/// The `i`th word of a version with this base.
fn spread(base: u64, i: usize) -> u64 {
    base.wrapping_add(((i / RUN) as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15))
}

/// The `i`th word of a block.
fn word(bytes: &[u8], i: usize) -> u64 {
    let word = &bytes[i * 8..i * 8 + 8];
    u64::from_le_bytes(word.try_into().expect("eight bytes"))
}

/// Tells what `bytes`, a block or the beginning of one, is as block `block` of
/// file `file`.
pub fn identify(bytes: &[u8], file: u64, block: u64) -> Found {
    if bytes.iter().all(|&b| b == 0) {
        return Found::Zeros;
    }
    let words = bytes.len() / 8;
    if words < 3 {
        let right = (0..words).all(|i| word(bytes, i) == [file, block][i]);
        return if right { Found::Short } else { Found::Wrong(0) };
    }
    if bytes[16..].iter().all(|&b| b == 0) {
        let right = word(bytes, 0) == file && [block, 0].contains(&word(bytes, 1));
        return if right { Found::Stub } else { Found::Wrong(0) };
    }
    let version = word(bytes, 2);
    let expected = Version {
        file,
        block,
        version,
    };
    let base = expected.base();
    for i in 0..words {
        let want = match i {
            0..3 => expected.word(i),
            _ => spread(base, i),
        };
        if word(bytes, i) != want {
            let cut = i > 2 && bytes[i * 8..].iter().all(|&b| b == 0);
            return if cut {
                Found::Cut(version)
            } else {
                Found::Wrong(i)
            };
        }
    }
    Found::Whole(version)
}
