// SPDX-License-Identifier: GPL-2.0

//! Checksums: what they should be, and whether they are.

use crate::{
    error::{
        Reason,
        Stop, //
    },
    fetch::{
        Fetches,
        Memory, //
    },
    safe::{
        btrfs::{
            csum_tree,
            extent_lock::ExtentLock,
            fs::FsInfo, //
        },
        hash::Algorithm,
        patience::Patience,
        user_pages::UserPages,
        vecs::Cursor, //
    },
};
use kernel::{
    alloc::Flags,
    prelude::*, //
};

/// The checksums that the blocks of a window must have, in the order they are fetched in.
pub(crate) struct Expected {
    algorithm: Algorithm,
    block: usize,
    digests: Digests,
}

/// Digests, one after the other; those of a small read need no memory beside.
struct Digests {
    few: [u8; FEW],
    /// How many bytes of `few` are used, if `more` is not.
    len: usize,
    /// All of them, if they are more than `few` has room for.
    more: KVVec<u8>,
}

/// Bytes of digests that need no memory beside: those of 64 KiB with CRC-32C.
const FEW: usize = 64;

impl Digests {
    fn new() -> Self {
        Self {
            few: [0; FEW],
            len: 0,
            more: KVVec::new(),
        }
    }

    /// Adds `bytes` zeros, and returns them.
    fn extend(&mut self, bytes: usize, gfp: Flags) -> Result<&mut [u8], Stop> {
        let start = self.as_slice().len();
        let end = start.checked_add(bytes).ok_or(Reason::Mapping)?;
        if self.more.is_empty() && end <= FEW {
            self.len = end;
            return Ok(self.few.get_mut(start..end).ok_or(Reason::Mapping)?);
        }
        if self.more.is_empty() {
            let few = self.few.get(..self.len).ok_or(Reason::Mapping)?;
            self.more.extend_from_slice(few, gfp)?;
        }
        self.more.extend_with(bytes, 0, gfp)?;
        Ok(self.more.get_mut(start..).ok_or(Reason::Mapping)?)
    }

    fn truncate(&mut self, len: usize) {
        self.len = self.len.min(len);
        // What is in `more` stays there, if there is something left of it.
        self.more.truncate(len);
        if len == 0 {
            self.len = 0;
        }
    }

    fn as_slice(&self) -> &[u8] {
        if self.more.is_empty() {
            self.few.get(..self.len).unwrap_or(&[])
        } else {
            &self.more
        }
    }
}

/// Returns how many bytes the digests of `len` bytes take. `None` if these are not whole blocks.
pub(crate) fn digests_len(len: usize, block: usize, digest_size: usize) -> Option<usize> {
    if len.checked_rem(block)? != 0 {
        return None;
    }
    (len / block).checked_mul(digest_size)
}

impl Expected {
    /// Makes an empty list.
    pub(crate) fn new(fs: FsInfo<'_>, block: usize) -> Result<Self, Stop> {
        Ok(Self {
            algorithm: fs.checksum_algorithm().ok_or(Reason::Features)?,
            block,
            digests: Digests::new(),
        })
    }

    /// Looks up the checksums of `len` bytes from `logical` on, of an extent of `generation`, and
    /// adds them. Sleeps, unless `patience` forbids it.
    pub(crate) fn look_up(
        &mut self,
        lock: &ExtentLock<'_>,
        logical: u64,
        len: usize,
        generation: u64,
        patience: Patience,
    ) -> Result<(), Stop> {
        let size = self.algorithm.digest_size();
        let more = digests_len(len, self.block, size).ok_or(Reason::Mapping)?;
        let out = self.digests.extend(more, patience.gfp())?;
        let found = csum_tree::lookup(lock, logical, generation, size, out, patience)
            .map_err(Stop::from_mapping)?;
        if found {
            Ok(())
        } else {
            Err(Reason::Checksum.into())
        }
    }

    /// Returns where the digests of the next blocks will be.
    pub(crate) fn len(&self) -> usize {
        self.digests.as_slice().len()
    }

    /// Returns the digests from a place on.
    pub(crate) fn digests(&self, range: core::ops::Range<usize>) -> &[u8] {
        self.digests.as_slice().get(range).unwrap_or(&[])
    }

    /// Forgets the digests from a place on: the blocks are not fetched.
    pub(crate) fn forget(&mut self, from: usize) {
        self.digests.truncate(from);
    }

    /// Returns whether digests are computed fast enough for it to be done in an interrupt.
    pub(crate) fn is_fast(&self) -> bool {
        matches!(self.algorithm, Algorithm::Crc32c | Algorithm::Xxhash64)
    }

    /// Returns the number of blocks that do not have the checksum they must have. Any context.
    ///
    /// `scratch` is a block of memory, or empty if no block is in pieces.
    pub(crate) fn mismatches(
        &self,
        fetches: &Fetches,
        pages: &UserPages<'_>,
        scratch: &mut [u8],
    ) -> u64 {
        let size = self.algorithm.digest_size();
        let mut digests = self.digests.as_slice().chunks_exact(size);
        let mut bad = 0u64;
        let mut callers = Cursor::default();
        for fetch in fetches.list() {
            let mut private = Cursor::default();
            let cursor = match fetch.memory {
                Memory::Caller { .. } => &mut callers,
                Memory::Private { .. } => &mut private,
            };
            let vecs = fetches.vecs(fetch.memory, pages);
            let (Memory::Caller { at } | Memory::Private { at, .. }) = fetch.memory;
            if let Some(vecs) = vecs {
                vecs.seek(cursor, at);
            }
            for _ in 0..fetch.len.checked_div(self.block).unwrap_or(0) {
                let expected = digests.next();
                let digest =
                    vecs.and_then(|vecs| vecs.hash(cursor, self.block, self.algorithm, scratch));
                let digest = digest.as_ref().and_then(|digest| digest.get(..size));
                if expected.is_none() || digest != expected {
                    bad = bad.saturating_add(1);
                }
            }
        }
        bad
    }
}
