// SPDX-License-Identifier: GPL-2.0

//! Where decompressed bytes go.

use super::super::vecs::{
    self,
    Cursor,
    Vecs, //
};
use kernel::prelude::*;

/// Memory that is filled from its start to its end.
///
/// A chunk of it that is mapped as a whole is handed out by address, to be written to. What lies
/// behind the bytes that were made may be written to as well, as decoders do: it is filled later.
/// They also read there what they have written, which a user may have changed meanwhile: that is data
/// only, all they take from it goes there as well.
pub(crate) struct Output<'a> {
    to: Memory<'a>,
    /// Bytes that are still to be filled.
    left: usize,
}

/// The memory that is not filled yet.
enum Memory<'a> {
    /// From the cursor on.
    Pages { pages: Vecs<'a>, cursor: Cursor },
    /// From this offset on. A chunk crosses no multiple of `piece`, for the tests: that of a buffer
    /// of pages may cross none of a page.
    Slice {
        slice: &'a mut [u8],
        at: usize,
        #[cfg(CONFIG_KUNIT = "y")]
        piece: usize,
    },
}

/// A place in an output, to come back to.
pub(super) struct Mark {
    cursor: Cursor,
    at: usize,
    left: usize,
}

impl<'a> Output<'a> {
    /// The next `len` bytes of the caller's buffer, from `cursor` on.
    pub(crate) fn pages(pages: Vecs<'a>, cursor: Cursor, len: usize) -> Self {
        Self {
            to: Memory::Pages { pages, cursor },
            left: len,
        }
    }

    /// Memory of our own.
    pub(crate) fn slice(slice: &'a mut [u8]) -> Self {
        let left = slice.len();
        Self {
            to: Memory::Slice {
                slice,
                at: 0,
                #[cfg(CONFIG_KUNIT = "y")]
                piece: usize::MAX,
            },
            left,
        }
    }

    /// Memory of our own, taken in pieces. For the tests.
    #[cfg(CONFIG_KUNIT = "y")]
    pub(crate) fn pieces(slice: &'a mut [u8], piece: usize) -> Self {
        let left = slice.len();
        Self {
            to: Memory::Slice {
                slice,
                at: 0,
                piece: piece.max(1),
            },
            left,
        }
    }

    /// Returns the number of bytes that are still to be filled.
    pub(crate) fn left(&self) -> usize {
        self.left
    }

    /// Calls `f` with the address and the length of the next chunk, of at most `max` bytes and at
    /// most what is left, and moves on by the number of bytes that `f` says it made.
    ///
    /// For the duration of the call the memory may be written to over the whole length. It may be
    /// that of a user, and so change by itself; it is not necessarily initialised.
    ///
    /// Returns what `f` returns; `EINVAL` if there is no memory left, or `max` is 0.
    pub(super) fn chunk(
        &mut self,
        max: usize,
        f: impl FnOnce(*mut u8, usize) -> Result<usize>,
    ) -> Result<usize> {
        let max = max.min(self.left);
        let made = match &mut self.to {
            Memory::Pages { pages, cursor } => {
                // What is at the cursor may have to be mapped in parts: the first is what is looked for.
                let piece = pages
                    .next_piece(&mut cursor.clone(), vecs::mapped(max))
                    .ok_or(EINVAL)?;
                let mut f = Some(f);
                let mut result = Err(EINVAL);
                pages.with_each_mapping(piece, |ptr, len| {
                    if let Some(f) = f.take() {
                        result = f(ptr, len).map(|n| n.min(len));
                    }
                });
                let made = result?;
                if made > 0 {
                    pages.next_piece(cursor, made).ok_or(EINVAL)?;
                }
                made
            }
            Memory::Slice {
                slice,
                at,
                #[cfg(CONFIG_KUNIT = "y")]
                piece,
            } => {
                #[cfg(CONFIG_KUNIT = "y")]
                let max = max.min(piece.saturating_sub(at.checked_rem(*piece).unwrap_or(0)));
                let rest = slice.get_mut(*at..).ok_or(EINVAL)?;
                let len = rest.len().min(max);
                if len == 0 {
                    return Err(EINVAL);
                }
                let made = f(rest.as_mut_ptr(), len)?.min(len);
                *at = at.saturating_add(made);
                made
            }
        };
        self.left = self.left.saturating_sub(made);
        Ok(made)
    }

    /// Copies as much of `data` as fits, and moves on by that.
    pub(super) fn copy(&mut self, mut data: &[u8]) -> Result {
        while !data.is_empty() && self.left > 0 {
            let made = self.chunk(data.len(), |to, len| {
                let now = data.get(..len).ok_or(EINVAL)?;
                // SAFETY: `to` is memory to write to over `len` bytes, by `chunk()`, and `now` has
                // as many. It is private memory, and so not the same.
                unsafe { core::ptr::copy_nonoverlapping(now.as_ptr(), to, len) };
                Ok(len)
            })?;
            data = data.get(made..).ok_or(EINVAL)?;
        }
        Ok(())
    }

    /// Sets all that is left to 0.
    pub(super) fn zero_rest(&mut self) -> Result {
        while self.left > 0 {
            self.chunk(usize::MAX, |to, len| {
                // SAFETY: `to` is memory to write to over `len` bytes, by `chunk()`.
                unsafe { core::ptr::write_bytes(to, 0, len) };
                Ok(len)
            })?;
        }
        Ok(())
    }

    /// Returns the place that has been reached.
    pub(super) fn mark(&self) -> Mark {
        let (cursor, at) = match &self.to {
            Memory::Pages { cursor, .. } => (*cursor, 0),
            Memory::Slice { at, .. } => (Cursor::default(), *at),
        };
        Mark {
            cursor,
            at,
            left: self.left,
        }
    }

    /// Goes back to a place of this output, to fill it again.
    pub(super) fn rewind(&mut self, mark: &Mark) {
        match &mut self.to {
            Memory::Pages { cursor, .. } => *cursor = mark.cursor,
            Memory::Slice { at, .. } => *at = mark.at,
        }
        self.left = mark.left;
    }
}
