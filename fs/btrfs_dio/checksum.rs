// SPDX-License-Identifier: GPL-2.0

//! Checksums: what they must be.

use crate::{
    checksum_cache::{
        self,
        ChecksumCache,
        Key, //
    },
    checksum_group::{
        digests_len,
        Group, //
    },
    error::{
        Reason,
        Stop, //
    },
    few::Few,
    safe::{
        btrfs::{
            csum_tree,
            extent_map::Space,
            fs::FsInfo,
            glance::Glance, //
        },
        hash::Algorithm,
        patience::Patience, //
    },
    stats::{
        self,
        Counter, //
    },
};
use core::{
    ops::Range,
    slice::ChunksExact, //
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
    /// What is yet to be looked up.
    late: Few<Late>,
}

/// Blocks whose checksums are to be looked up while their data is on its way.
struct Late {
    space: Space,
    logical: u64,
    /// Which bytes of the digests they are.
    start: usize,
    len: usize,
}

/// Digests, one after the other; those of a small read need no memory beside.
struct Digests {
    few: [u8; FEW],
    /// How many bytes of `few` are used, if `more` is not.
    len: usize,
    /// All of them, if they are more than `few` has room for.
    more: Option<KVVec<u8>>,
}

/// Bytes of digests that need no memory beside: those of 64 KiB with CRC-32C.
const FEW: usize = 64;

impl Digests {
    #[inline(always)]
    fn new() -> Self {
        Self {
            few: [0; FEW],
            len: 0,
            more: None,
        }
    }

    /// Adds `bytes` zeros, and returns them.
    fn extend(&mut self, bytes: usize, gfp: Flags) -> Result<&mut [u8], Stop> {
        let start = self.as_slice().len();
        let end = start.checked_add(bytes).ok_or(Reason::Mapping)?;
        if self.more.is_none() && end <= FEW {
            self.len = end;
            return Ok(self.few.get_mut(start..end).ok_or(Reason::Mapping)?);
        }
        let more = match &mut self.more {
            Some(more) => more,
            none => {
                let few = self.few.get(..self.len).ok_or(Reason::Mapping)?;
                let mut more = KVVec::with_capacity(end, gfp)?;
                more.extend_from_slice(few, gfp)?;
                none.insert(more)
            }
        };
        more.extend_with(bytes, 0, gfp)?;
        Ok(more.get_mut(start..).ok_or(Reason::Mapping)?)
    }

    fn get_mut(&mut self, range: Range<usize>) -> Option<&mut [u8]> {
        match &mut self.more {
            Some(more) => more.get_mut(range),
            None => self.few.get_mut(range),
        }
    }

    fn truncate(&mut self, len: usize) {
        match &mut self.more {
            Some(more) => more.truncate(len),
            None => self.len = self.len.min(len),
        }
    }

    fn as_slice(&self) -> &[u8] {
        match &self.more {
            Some(more) => more,
            None => self.few.get(..self.len).unwrap_or(&[]),
        }
    }
}

/// Where checksums are looked up, and whether that may wait.
pub(crate) struct Lookup<'l, 'a> {
    pub(crate) fs: FsInfo<'a>,
    /// `None` if the checksum tree itself is to be asked.
    pub(crate) cache: Option<&'l ChecksumCache>,
    pub(crate) patience: Patience,
    /// Whether what would have to wait may be put off.
    pub(crate) may_put_off: bool,
}

impl Lookup<'_, '_> {
    /// Looks up the checksums of the blocks from `logical` on, which are in `space`. Returns `false`
    /// if one is missing.
    fn find(
        &self,
        space: &Space,
        logical: u64,
        block: usize,
        size: usize,
        out: &mut [u8],
    ) -> Result<bool> {
        let Some(cache) = self.cache.filter(|_| out.len() <= checksum_cache::ENTRY) else {
            return self.search(space, logical, size, out);
        };
        let group = Group::new(block, size).ok_or(EINVAL)?;
        // Before the search: what is found belongs to that epoch, or to nobody who asks for it.
        let (fs, epoch) = (self.fs.id(), self.fs.epoch());
        group.each(logical, out, |at, start, first, out| {
            let key = Key::new(fs, epoch, start);
            if cache.get(&key, first, size, out) {
                stats::count(Counter::ChecksumHits);
                return Ok(true);
            }
            stats::count(Counter::ChecksumMisses);
            match self.search_near(cache, &key, space, &group, first, out) {
                Some(()) => Ok(true),
                None => self.search(space, at, size, out),
            }
        })
    }

    /// Looks up all checksums of a group that are in `space`, keeps them, and copies those from the
    /// block of number `first` on. `None` if that fails: it need not if fewer are asked for.
    fn search_near(
        &self,
        cache: &ChecksumCache,
        key: &Key,
        space: &Space,
        group: &Group,
        first: usize,
        out: &mut [u8],
    ) -> Option<()> {
        let from = key.start.max(space.logical);
        let end = key.start.checked_add(group.len)?;
        let end = end.min(space.logical.checked_add(space.len)?);
        let before = group.count(from.saturating_sub(key.start));
        let count = group.count(end.checked_sub(from)?);
        let mut all = [0u8; checksum_cache::ENTRY];
        let all = all.get_mut(..count.checked_mul(group.size)?)?;
        if !self.search(space, from, group.size, all).ok()? {
            return None;
        }
        cache.insert(key, before, group.size, all);
        let at = first.checked_sub(before)?.checked_mul(group.size)?;
        let wanted = all.get(at..at.checked_add(out.len())?)?;
        out.copy_from_slice(wanted);
        Some(())
    }

    /// Returns the same, for what must not be put off.
    pub(crate) fn at_once(&self) -> Self {
        Self {
            may_put_off: false,
            ..*self
        }
    }

    /// Returns the same, for what is put off if it would have to wait.
    fn without_waiting(&self) -> Self {
        Self {
            patience: Patience::Nowait,
            ..*self
        }
    }

    /// Searches the checksum tree.
    fn search(&self, space: &Space, from: u64, size: usize, out: &mut [u8]) -> Result<bool> {
        csum_tree::lookup(self.fs, from, space.generation, size, out, self.patience)
    }
}

/// Returns what to do if checksums were found, or are missing, or cannot be looked up.
fn is_there(found: Result<bool>) -> Result<(), Stop> {
    match found.map_err(Stop::from_mapping)? {
        true => Ok(()),
        false => Err(Reason::Checksum.into()),
    }
}

impl Expected {
    /// Makes an empty list of checksums by `algorithm`. To be made where it stays.
    #[inline(always)]
    pub(crate) fn new(algorithm: Algorithm, block: usize) -> Self {
        Self {
            algorithm,
            block,
            digests: Digests::new(),
            late: Few::new(),
        }
    }

    /// Looks up the checksums of `len` bytes from `logical` on, which are in `space`, and adds them.
    /// Sleeps, unless it must not.
    ///
    /// What would have to wait for a device is put off, if it may be: see [`Self::look_up_late`].
    pub(crate) fn look_up(
        &mut self,
        lookup: &Lookup<'_, '_>,
        space: &Space,
        logical: u64,
        len: usize,
    ) -> Result<(), Stop> {
        let size = self.algorithm.digest_size();
        let more = digests_len(len, self.block, size).ok_or(Reason::Mapping)?;
        let start = self.len();
        let out = self.digests.extend(more, lookup.patience.gfp())?;
        if !lookup.may_put_off {
            let found = lookup.find(space, logical, self.block, size, out);
            return is_there(found);
        }
        let (now, space) = (lookup.without_waiting(), *space);
        let found = match now.find(&space, logical, self.block, size, out) {
            Err(error) if error == EAGAIN => {
                let len = more;
                let late = Late {
                    space,
                    logical,
                    start,
                    len,
                };
                self.late.push(late, lookup.patience.gfp())?;
                return Ok(());
            }
            found => found,
        };
        is_there(found)
    }

    /// Returns whether some checksums are yet to be looked up.
    pub(crate) fn is_late(&self) -> bool {
        !self.late.as_slice().is_empty()
    }

    /// Looks up what was put off. What it finds counts if the extents are current afterwards. Sleeps.
    pub(crate) fn look_up_late(&mut self, lookup: &Lookup<'_, '_>) -> Result<(), Stop> {
        let size = self.algorithm.digest_size();
        let all = core::mem::replace(&mut self.late, Few::new());
        for late in all.as_slice() {
            let end = late.start.checked_add(late.len).ok_or(Reason::Mapping)?;
            let out = self
                .digests
                .get_mut(late.start..end)
                .ok_or(Reason::Mapping)?;
            is_there(lookup.find(&late.space, late.logical, self.block, size, out))?;
        }
        Ok(())
    }

    /// Adds the checksums of `len` bytes from `logical` on, if all of them are known, and returns
    /// whether they are. The bytes are of an extent at a glance. Does not sleep.
    pub(crate) fn recall(
        &mut self,
        cache: &ChecksumCache,
        glance: &Glance<'_>,
        logical: u64,
        len: usize,
    ) -> Result<bool, Stop> {
        let size = self.algorithm.digest_size();
        let more = digests_len(len, self.block, size).ok_or(Reason::Mapping)?;
        let out = self.digests.extend(more, GFP_NOWAIT)?;
        let group = Group::new(self.block, size).ok_or(Reason::Features)?;
        let (fs, epoch) = (glance.fs().id(), glance.fs().epoch());
        group
            .each(logical, out, |_, start, first, out| {
                let known = cache.get(&Key::new(fs, epoch, start), first, size, out);
                if known {
                    stats::count(Counter::ChecksumHits);
                }
                Ok(known)
            })
            .map_err(Stop::from_mapping)
    }

    /// Returns where the digests of the next blocks will be.
    pub(crate) fn len(&self) -> usize {
        self.digests.as_slice().len()
    }

    /// Returns the algorithm.
    pub(crate) fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// Returns the size of a block in bytes.
    pub(crate) fn block(&self) -> usize {
        self.block
    }

    /// Returns how many whole blocks there are in `len` bytes.
    pub(crate) fn blocks_in(&self, len: usize) -> usize {
        len.checked_shr(self.block.trailing_zeros()).unwrap_or(0)
    }

    /// Returns the digest of each block.
    pub(crate) fn each(&self) -> ChunksExact<'_, u8> {
        let size = self.algorithm.digest_size();
        self.digests.as_slice().chunks_exact(size)
    }

    /// Returns the digests from a place on.
    pub(crate) fn digests(&self, range: Range<usize>) -> &[u8] {
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
}
