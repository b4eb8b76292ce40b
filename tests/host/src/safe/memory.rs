// SPDX-License-Identifier: GPL-2.0

//! Pages that a test can look at, as memory in pieces.

use super::vecs::{Cursor, Vecs};
use kernel::{
    bindings::{bio_vec, page},
    page::PAGE_SIZE,
};

/// What bytes are set to that nobody may write to, or has written to yet.
pub(crate) const CANARY: u8 = 0xa5;

/// Memory in pieces.
pub(crate) struct Pieces {
    pages: Vec<page>,
    vecs: Vec<bio_vec>,
    /// Where the bytes of the pieces are, one after the other, in the pages.
    places: Vec<usize>,
}

impl Pieces {
    /// Makes pieces of these lengths, each behind a gap of that many bytes; in what pages it takes.
    pub(crate) fn new(pieces: &[(usize, usize)]) -> Self {
        let all: usize = pieces.iter().map(|(gap, len)| gap + len).sum();
        let mut pages = vec![
            page {
                bytes: [CANARY; PAGE_SIZE],
            };
            all / PAGE_SIZE + 2
        ];
        let first = pages.as_mut_ptr();
        let (mut at, mut vecs, mut places) = (0, Vec::new(), Vec::new());
        for (gap, len) in pieces {
            at += gap;
            vecs.push(bio_vec {
                // SAFETY: There are as many pages.
                bv_page: unsafe { first.add(at / PAGE_SIZE) },
                bv_len: *len as u32,
                bv_offset: (at % PAGE_SIZE) as u32,
            });
            places.extend(at..at + len);
            at += len;
        }
        Self {
            pages,
            vecs,
            places,
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.places.len()
    }

    pub(crate) fn vecs(&self) -> Vecs<'_> {
        // SAFETY: The vectors describe memory of the pages, which nothing else has a reference to.
        unsafe { Vecs::new(&self.vecs) }
    }

    /// Returns a cursor at an offset.
    pub(crate) fn cursor(&self, at: usize) -> Cursor {
        let mut cursor = Cursor::default();
        self.vecs().seek(&mut cursor, at);
        cursor
    }

    /// Returns what is in the pieces.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        let byte = |at: &usize| self.pages[at / PAGE_SIZE].bytes[at % PAGE_SIZE];
        self.places.iter().map(byte).collect()
    }

    /// Returns whether nothing beside the pieces has been written to.
    pub(crate) fn is_intact(&self) -> bool {
        let mut all: Vec<u8> = self.pages.iter().flat_map(|page| page.bytes).collect();
        for at in &self.places {
            all[*at] = CANARY;
        }
        all.iter().all(|byte| *byte == CANARY)
    }
}
