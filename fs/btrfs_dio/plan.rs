// SPDX-License-Identifier: GPL-2.0

//! What a window of a file consists of.

use crate::{
    checksum::Expected,
    error::{
        Reason,
        Stop, //
    },
    inline,
    safe::btrfs::{
        extent_lock::ExtentLock,
        extent_map::{
            Extent,
            ExtentMap,
            Kind, //
        },
        inline_item::InlineData,
    },
    window::Range,
};
use kernel::prelude::*;

/// Where the bytes of a segment come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    /// Nowhere.
    Hole,
    /// Nowhere: the space has not been written.
    Prealloc,
    /// The metadata.
    Inline,
    /// The devices.
    Disk {
        /// Logical address of the first byte.
        logical: u64,
    },
}

/// A stretch of a window, of one extent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Segment {
    /// Offset in the window, in bytes, a multiple of the block size.
    pub(crate) at: usize,
    /// Length in bytes, a multiple of the block size, not 0.
    pub(crate) len: usize,
    /// Where it comes from.
    pub(crate) source: Source,
}

impl Segment {
    /// Cuts out of `extent` what lies in the window from offset `at` of it on.
    ///
    /// `Mapping` if the extent is not at that place, or not made of blocks.
    pub(crate) fn cut(extent: &Extent, range: &Range, at: usize) -> Result<Self, Reason> {
        // CAST: Widening.
        let start = range.start.checked_add(at as u64).ok_or(Reason::Mapping)?;
        let skipped = start.checked_sub(extent.start).ok_or(Reason::Mapping)?;
        let there = extent
            .len
            .checked_sub(skipped)
            .filter(|there| *there > 0)
            .ok_or(Reason::Mapping)?;
        let left = range.len.checked_sub(at).ok_or(Reason::Mapping)?;
        let len = usize::try_from(there).unwrap_or(usize::MAX).min(left);
        if len == 0 || len % range.block != 0 {
            return Err(Reason::Mapping);
        }
        let source = match extent.kind {
            Kind::Hole => Source::Hole,
            Kind::Prealloc => Source::Prealloc,
            Kind::Inline if extent.start == 0 && start == 0 && len == range.block => Source::Inline,
            Kind::Inline => return Err(Reason::Mapping),
            Kind::Compressed => return Err(Reason::Compressed),
            Kind::Regular { logical } => Source::Disk {
                // CAST: Widening.
                logical: logical
                    .checked_add(skipped)
                    .filter(|logical| logical % range.block as u64 == 0)
                    .ok_or(Reason::Mapping)?,
            },
        };
        Ok(Self { at, len, source })
    }
}

/// What a window consists of, with all that was to be learned of it under the extent lock.
pub(crate) struct Plan {
    /// The window, piece by piece, without gaps.
    segments: KVVec<Segment>,
    /// The inline extent, if a segment is one.
    inline: Option<InlineData>,
    /// The checksums of what is on devices, if it has any.
    expected: Option<Expected>,
    /// The maps of what is on devices, if it has no checksums.
    maps: KVVec<ExtentMap>,
}

impl Plan {
    /// Makes the plan of a locked window. Sleeps.
    pub(crate) fn make(lock: &ExtentLock<'_>, range: &Range) -> Result<Self, Stop> {
        let mut expected = if lock.inode().has_checksums() {
            Some(Expected::new(lock.inode().fs(), range)?)
        } else {
            None
        };
        let mut plan = Self {
            segments: KVVec::new(),
            inline: None,
            expected: None,
            maps: KVVec::new(),
        };
        let mut at = 0usize;
        while at < range.len {
            // CAST: Widening.
            let start = range.start.saturating_add(at as u64);
            let left = range.len.saturating_sub(at) as u64;
            let map = ExtentMap::get(lock, start, left).map_err(Stop::from_mapping)?;
            let extent = map.extent();
            let segment = Segment::cut(&extent, range, at)?;
            match segment.source {
                Source::Hole | Source::Prealloc => {}
                Source::Inline => plan.inline = Some(inline::load(lock, range.block)?),
                Source::Disk { logical } => match &mut expected {
                    Some(expected) => expected.look_up(lock, &segment, logical, &extent)?,
                    None => plan.maps.push(map, GFP_KERNEL)?,
                },
            }
            plan.segments.push(segment, GFP_KERNEL)?;
            at = at.saturating_add(segment.len);
        }
        plan.expected = expected;
        Ok(plan)
    }

    /// Returns the segments, in the order of the file.
    pub(crate) fn segments(&self) -> &[Segment] {
        &self.segments
    }

    /// Returns the inline extent.
    pub(crate) fn inline(&self) -> Option<&InlineData> {
        self.inline.as_ref()
    }

    /// Returns the checksums that data from devices must have, `None` if it has none.
    pub(crate) fn expected(&self) -> Option<&Expected> {
        self.expected.as_ref()
    }

    /// Returns whether anything has to be read from devices.
    pub(crate) fn reads_devices(&self) -> bool {
        self.segments
            .iter()
            .any(|segment| matches!(segment.source, Source::Disk { .. }))
    }

    /// Returns whether the data without checksums has been the file's all the time.
    pub(crate) fn is_current(&self) -> bool {
        self.maps.iter().all(ExtentMap::is_current)
    }
}
