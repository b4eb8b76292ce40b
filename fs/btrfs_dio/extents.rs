// SPDX-License-Identifier: GPL-2.0

//! Which extents a window has: learned at one moment, under the lock of its range.
//!
//! Nothing else happens under that lock: while it is held, whoever writes to the page cache of the
//! range, or throws it out, waits or fails. All that is learned of the extents afterwards, where
//! their checksums and their devices are, counts if they still are the file's when it has been
//! learned: then they have been all the time, since whoever takes disk space from a file takes the
//! map out first.

use crate::{
    error::{
        Reason,
        Stop, //
    },
    few::Few,
    inline,
    range::Range,
    safe::{
        btrfs::{
            extent_lock::ExtentLock,
            extent_map::{
                ExtentMap,
                Kind, //
            },
            inline_item::InlineData, //
        },
        patience::Patience,
    },
};

/// The extents of a window.
pub(crate) struct Extents {
    maps: Few<ExtentMap>,
    /// What is in the inline extent, if there is one.
    inline: Option<InlineData>,
}

impl Extents {
    /// Finds the extents of a locked window. Sleeps, unless `patience` forbids it.
    pub(crate) fn find(
        lock: &ExtentLock<'_>,
        range: &Range,
        patience: Patience,
    ) -> Result<Self, Stop> {
        let mut all = Self {
            maps: Few::new(),
            inline: None,
        };
        // CAST: Widening.
        let end = range
            .start
            .checked_add(range.len as u64)
            .ok_or(Reason::Mapping)?;
        let mut at = range.start;
        while at < end {
            let left = end.saturating_sub(at);
            let map = ExtentMap::get(lock, at, left, patience).map_err(Stop::from_mapping)?;
            let extent = map.extent();
            if extent.kind == Kind::Inline && all.inline.is_none() {
                all.inline = Some(inline::load(lock, range.block, patience)?);
            }
            at = extent
                .start
                .checked_add(extent.len)
                .filter(|next| *next > at)
                .ok_or(Reason::Mapping)?;
            all.maps.push(map, patience.gfp())?;
        }
        Ok(all)
    }

    /// Returns their maps, in order.
    pub(crate) fn maps(&self) -> &[ExtentMap] {
        self.maps.as_slice()
    }

    /// Returns what is in the inline extent, once.
    pub(crate) fn take_inline(&mut self) -> Option<InlineData> {
        self.inline.take()
    }

    /// Returns whether all of them on disk still are the file's. To be asked after all that depends
    /// on it has been read, with acquire semantics or under a lock. Any context.
    pub(crate) fn are_current(&self) -> bool {
        are_current(self.maps())
    }

    /// Returns the maps, to be asked again.
    pub(crate) fn into_maps(self) -> Few<ExtentMap> {
        self.maps
    }
}

/// Returns whether all these extents, as far as they are on disk, still are the file's. Any context.
pub(crate) fn are_current(maps: &[ExtentMap]) -> bool {
    maps.iter().all(|map| {
        let on_disk = matches!(
            map.extent().kind,
            Kind::Regular { .. } | Kind::Compressed(_)
        );
        !on_disk || map.is_current()
    })
}
