// SPDX-License-Identifier: GPL-2.0

//! Checksums: what they should be, and whether they are.

use crate::{
    error::{
        Reason,
        Stop, //
    },
    plan::{
        Segment,
        Source, //
    },
    safe::{
        btrfs::{
            csum_tree,
            extent_lock::ExtentLock,
            extent_map::Extent,
            fs::FsInfo, //
        },
        hash::Algorithm,
        user_pages::{
            Cursor,
            UserPages, //
        },
    },
    window::Range,
};
use kernel::prelude::*;

/// The checksums that the blocks of a window must have.
pub(crate) struct Expected {
    algorithm: Algorithm,
    block: usize,
    /// One digest for each block of the window, those of blocks that are not on devices unused.
    digests: KVVec<u8>,
}

/// Returns where in the digests of a window those of the `len` bytes from offset `at` of it on lie.
///
/// `None` if these are not whole blocks.
pub(crate) fn digest_range(
    at: usize,
    len: usize,
    block: usize,
    digest_size: usize,
) -> Option<core::ops::Range<usize>> {
    if at.checked_rem(block)? != 0 || len.checked_rem(block)? != 0 {
        return None;
    }
    let start = (at / block).checked_mul(digest_size)?;
    let end = (len / block).checked_mul(digest_size)?.checked_add(start)?;
    Some(start..end)
}

impl Expected {
    /// Makes room for the checksums of a window.
    pub(crate) fn new(fs: FsInfo<'_>, range: &Range) -> Result<Self, Stop> {
        let algorithm = fs.checksum_algorithm().ok_or(Reason::Features)?;
        let size = digest_range(0, range.len, range.block, algorithm.digest_size())
            .ok_or(Reason::Mapping)?
            .end;
        Ok(Self {
            algorithm,
            block: range.block,
            digests: KVVec::from_elem(0u8, size, GFP_KERNEL)?,
        })
    }

    /// Looks up the checksums of a segment that begins at `logical`. Sleeps.
    pub(crate) fn look_up(
        &mut self,
        lock: &ExtentLock<'_>,
        segment: &Segment,
        logical: u64,
        extent: &Extent,
    ) -> Result<(), Stop> {
        let size = self.algorithm.digest_size();
        let out = digest_range(segment.at, segment.len, self.block, size)
            .and_then(|range| self.digests.get_mut(range))
            .ok_or(Reason::Mapping)?;
        let found = csum_tree::lookup(lock, logical, extent.generation, size, out)
            .map_err(Stop::from_mapping)?;
        if found {
            Ok(())
        } else {
            Err(Reason::Checksum.into())
        }
    }

    /// Returns the number of blocks of `segments` that are on devices, and do not have the checksum
    /// they must have. Any task context.
    pub(crate) fn mismatches(&self, segments: &[Segment], pages: &UserPages<'_>) -> u64 {
        let size = self.algorithm.digest_size();
        let mut bad = 0u64;
        let mut cursor = Cursor::default();
        let mut behind = 0usize;
        for segment in segments {
            if !matches!(segment.source, Source::Disk { .. }) {
                continue;
            }
            pages.skip(&mut cursor, segment.at.saturating_sub(behind));
            behind = segment.at.saturating_add(segment.len);
            let digests = digest_range(segment.at, segment.len, self.block, size)
                .and_then(|range| self.digests.get(range))
                .unwrap_or(&[]);
            let blocks = segment.len.checked_div(self.block).unwrap_or(0);
            let mut good = 0usize;
            for expected in digests.chunks_exact(size) {
                let digest = pages.hash(&mut cursor, self.block, self.algorithm);
                if digest.as_ref().and_then(|digest| digest.get(..size)) == Some(expected) {
                    good = good.saturating_add(1);
                }
            }
            // CAST: Widening.
            bad = bad.saturating_add(blocks.saturating_sub(good) as u64);
        }
        bad
    }
}
