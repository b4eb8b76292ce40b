// SPDX-License-Identifier: GPL-2.0

//! What a window of a file consists of.

use crate::{
    attempt::{
        Attempt,
        Placement, //
    },
    budget::{
        Credit,
        Reservation, //
    },
    checksum::{
        Expected,
        Lookup, //
    },
    compressed::{
        self,
        Keep, //
    },
    delivery::{
        Deliveries,
        Delivery, //
    },
    error::{
        Reason,
        Stop, //
    },
    extents::{
        self,
        Extents, //
    },
    fetch::{
        Fetch,
        Fetches,
        Memory, //
    },
    few::Few,
    range::{
        Part,
        Range, //
    },
    resources::Resources,
    run::Spot,
    safe::{
        btrfs::{
            extent_map::{
                Extent,
                ExtentMap,
                Space, //
            },
            glance::Glance,
            inline_item::InlineData,
            inode::Inode, //
        },
        decode::MAX_EXTENT,
        hash::MAX_DIGEST,
        patience::Patience,
    },
    segment::{
        Segment,
        Source, //
    },
    stats::{
        self,
        Counter,
        Tally, //
    },
    stripe::STRIPE_LEN,
    verify,
};
use kernel::{
    page::PAGE_SIZE,
    prelude::*,
    sizes::SZ_4K, //
};

/// Longest window that is verified where its last bio ends. In bytes.
const VERIFIED_AT_ONCE: usize = 16 << 10;
/// Longest window that is completed there if there is nothing to verify. In bytes.
const DONE_AT_ONCE: usize = 256 << 10;
/// Most fetches of such a window.
const FEW: usize = 8;
/// Most runs that these can take, wherever their chunks begin: each has two ends more than there are ends
/// of stripes, and of chunks, which are no shorter, in between; and twice as many if they are divided
/// among copies.
const FEW_RUNS: usize = 2 * (2 * FEW + 2 * (DONE_AT_ONCE / STRIPE_LEN as usize));

// What is not longer than a page is not of `vmalloc()`; lists double when they grow. Of extents and of
// checksums there are no more than of fetches and of blocks that are verified.
const _: () = assert!(2 * FEW * size_of::<Fetch>() <= PAGE_SIZE);
const _: () = assert!(2 * FEW_RUNS * size_of::<Spot>() <= PAGE_SIZE);
const _: () = assert!(2 * FEW * size_of::<ExtentMap>() <= PAGE_SIZE);
const _: () = assert!(2 * VERIFIED_AT_ONCE / SZ_4K * MAX_DIGEST <= PAGE_SIZE);

/// What a window consists of, with all that was to be learned of it.
pub(crate) struct Plan {
    /// The window, as far as it is planned.
    pub(crate) range: Range,
    /// What is read from devices.
    pub(crate) fetches: Fetches,
    /// What is written to the caller's memory, but for what devices write there.
    pub(crate) deliveries: Deliveries,
    /// What is in it, to be counted.
    pub(crate) tally: Tally,
    /// The maps of its extents, if they are to be asked once more.
    maps: Few<ExtentMap>,
}

impl Plan {
    /// Makes an empty plan of a window. To be made where it stays: it is not small.
    #[inline(always)]
    pub(crate) fn new(range: &Range) -> Self {
        Self {
            range: *range,
            fetches: Fetches::new(),
            deliveries: Deliveries::new(),
            tally: Tally::default(),
            maps: Few::new(),
        }
    }

    /// Makes the plan, an empty one so far, that of a window with these extents, or of the beginning
    /// of it, if there is more to be held in private memory than a window may have. Sleeps, unless
    /// the attempt must not.
    ///
    /// It is of use if the extents are current afterwards.
    pub(crate) fn make(
        &mut self,
        resources: &Resources,
        inode: Inode<'_>,
        extents: &mut Extents,
        range: &Range,
        attempt: &mut Attempt,
    ) -> Result<(), Stop> {
        let patience = attempt.manner.patience;
        let plan = self;
        plan.fetches.prepare(
            attempt.reserved.take(),
            attempt.credit,
            attempt.manner.owner,
            patience,
        );
        if inode.has_checksums() {
            let algorithm = inode.fs().checksum_algorithm().ok_or(Reason::Features)?;
            plan.fetches.expected = Some(Expected::new(algorithm, range.block));
        }
        let lookup = Lookup {
            fs: inode.fs(),
            // What does not match at first may have come from there.
            cache: (attempt.placement == Placement::Direct).then_some(&resources.checksums),
            patience,
            may_put_off: attempt.may_put_off && patience == Patience::Wait,
        };
        let mut inline = extents.take_inline();
        let mut at = 0usize;
        for map in extents.maps() {
            let extent = map.extent();
            let segment = Segment::cut(&extent, range, at)?;
            let planned = plan.add(resources, &lookup, &segment, &extent, &mut inline, attempt)?;
            at = at.saturating_add(planned);
            if planned < segment.len {
                break;
            }
        }
        if at == 0 {
            return Err(Reason::Memory.into());
        }
        plan.range = range.cut(at);
        plan.deliveries.prepare(&plan.fetches, attempt, range)
    }

    /// Keeps the maps of what has no checksums so far, or is to be repaired, to be asked once its data
    /// has arrived.
    pub(crate) fn keep(&mut self, extents: Extents, attempt: &Attempt) {
        if self.fetches.expected.is_none() || self.is_late() || attempt.failed.is_some() {
            self.maps = extents.into_maps();
        }
    }

    /// Makes the plan, an empty one so far, that of a window in one extent of plain data, all of which
    /// goes to the caller's memory, if all its checksums are known, or it has none, as `summed` says.
    /// Returns whether that is so. Does not sleep.
    ///
    /// It is of use if the extent is current afterwards; see [`Self::keep_one`] as well.
    pub(crate) fn make_at_a_glance(
        &mut self,
        resources: &Resources,
        glance: &Glance<'_>,
        range: &Range,
        summed: bool,
    ) -> Result<bool, Stop> {
        let segment = Segment::cut(&glance.extent(), range, 0)?;
        let Source::Disk { logical } = segment.source else {
            return Ok(false);
        };
        if segment.len != range.len {
            return Ok(false);
        }
        self.fetches
            .prepare(None, Credit::None, None, Patience::Nowait);
        if summed {
            let fs = glance.fs();
            let algorithm = fs.checksum_algorithm().ok_or(Reason::Features)?;
            let expected = &mut self.fetches.expected;
            let expected = expected.insert(Expected::new(algorithm, range.block));
            if !expected.recall(&resources.checksums, glance, logical, range.len)? {
                return Ok(false);
            }
        }
        self.tally.count(segment.source);
        self.fetches.add_known(Fetch {
            logical,
            len: range.len,
            memory: Memory::Caller { at: range.base },
            file: range.start,
            within: range.len,
        })?;
        Ok(true)
    }

    /// As [`Self::keep`], for a plan made at a glance.
    pub(crate) fn keep_one(&mut self, map: ExtentMap) {
        if self.fetches.expected.is_none() {
            self.maps = Few::of(map);
        }
    }

    /// Returns whether nothing has been planned.
    pub(crate) fn is_empty(&self) -> bool {
        !self.reads_devices() && self.deliveries.is_empty()
    }

    /// Adds a segment, and returns how much of it there was private memory for. In bytes.
    fn add(
        &mut self,
        resources: &Resources,
        lookup: &Lookup<'_, '_>,
        segment: &Segment,
        extent: &Extent,
        inline: &mut Option<InlineData>,
        attempt: &Attempt,
    ) -> Result<usize, Stop> {
        let gfp = attempt.manner.patience.gfp();
        let wanted = self.range.wanted(segment.at, segment.len);
        match segment.source {
            Source::Hole | Source::Prealloc => {
                self.tally.count(segment.source);
                self.deliveries.push(wanted.map(Delivery::Zero), gfp)?;
                Ok(segment.len)
            }
            Source::Inline => {
                self.tally.count(segment.source);
                let data = inline.take().ok_or(Reason::Mapping)?;
                self.deliveries.push_inline(data, wanted, gfp)?;
                Ok(segment.len)
            }
            Source::Disk { logical } => {
                self.tally.count(segment.source);
                let space = extent.space().ok_or(Reason::Mapping)?;
                self.add_plain(resources, lookup, segment, logical, &space, attempt)
            }
            Source::Compressed(_) => {
                let added = match wanted {
                    Some(part) => {
                        self.add_compressed(resources, lookup, segment, extent, &part, attempt)?
                    }
                    None => true,
                };
                if !added {
                    return Ok(0);
                }
                self.tally.count(segment.source);
                Ok(segment.len)
            }
        }
    }

    /// Adds a part of a compressed extent, and returns whether there was private memory for it.
    ///
    /// What is little of it may have been kept, or may be worth to be kept.
    fn add_compressed(
        &mut self,
        resources: &Resources,
        lookup: &Lookup<'_, '_>,
        segment: &Segment,
        extent: &Extent,
        part: &Part,
        attempt: &Attempt,
    ) -> Result<bool, Stop> {
        let Source::Compressed(encoded) = &segment.source else {
            return Err(Reason::Mapping.into());
        };
        let space = &extent.space().ok_or(Reason::Mapping)?;
        let patience = attempt.manner.patience;
        let len = usize::try_from(encoded.disk_len).map_err(|_| Reason::Mapping)?;
        let fs = lookup.fs.id();
        let mut keep = None;
        let mut looked_up = None;
        if let Some(expected) = &mut self.fetches.expected {
            let from = expected.len();
            // What was decoded of it before is looked for by its checksums.
            expected.look_up(&lookup.at_once(), space, encoded.logical, len)?;
            looked_up = Some(from);
            if let Some(key) = compressed::key(fs, encoded, space.generation, part) {
                let (cache, digests) = (resources.cache(), from..expected.len());
                if let Some(decoded) = cache.lookup(&key, expected.digests(digests.clone())) {
                    expected.forget(from);
                    stats::count(Counter::CacheHits);
                    self.deliveries
                        .push_kept(decoded, encoded, part, patience.gfp())?;
                    return Ok(true);
                }
                stats::count(Counter::CacheMisses);
                keep = cache.wants(&key).then_some(Keep { key, digests });
            }
        }
        let (budgets, id) = (&resources.budgets, lookup.fs.id());
        let Some(buffer) = self.fetches.buffer(budgets, id, len)? else {
            if let (Some(expected), Some(from)) = (&mut self.fetches.expected, looked_up) {
                expected.forget(from);
            }
            return Ok(false);
        };
        self.fetches.add_known(Fetch {
            logical: encoded.logical,
            len,
            memory: Memory::Private { buffer, at: 0 },
            file: self.range.at_offset(segment.at),
            within: segment.len,
        })?;
        self.deliveries
            .push_decode(buffer, encoded, part, keep, patience.gfp())?;
        Ok(true)
    }

    /// Adds a segment that is on devices as it is in the file: straight into the caller's memory
    /// where that has room for whole blocks, and is wanted there.
    fn add_plain(
        &mut self,
        resources: &Resources,
        lookup: &Lookup<'_, '_>,
        segment: &Segment,
        logical: u64,
        space: &Space,
        attempt: &Attempt,
    ) -> Result<usize, Stop> {
        let mut done = 0usize;
        while done < segment.len {
            let at = segment.at.saturating_add(done);
            let left = segment.len.saturating_sub(done);
            // CAST: Widening.
            let logical = logical.checked_add(done as u64).ok_or(Reason::Mapping)?;
            let file = self.range.at_offset(at);
            let direct = match attempt.placement {
                Placement::Direct => self.range.direct(at, left),
                Placement::Private => None,
            };
            let len = if let Some((to, len)) = direct {
                let fetch = Fetch {
                    logical,
                    len,
                    memory: Memory::Caller { at: to },
                    file,
                    within: len,
                };
                self.fetches.add(lookup, space, fetch)?;
                len
            } else {
                let most = match attempt.placement {
                    Placement::Direct => self.range.block,
                    Placement::Private => MAX_EXTENT,
                };
                let len = left.min(most);
                let (budgets, id) = (&resources.budgets, lookup.fs.id());
                let Some(buffer) = self.fetches.buffer(budgets, id, len)? else {
                    break;
                };
                let fetch = Fetch {
                    logical,
                    len,
                    memory: Memory::Private { buffer, at: 0 },
                    file,
                    within: len,
                };
                self.fetches.add(lookup, space, fetch)?;
                let copy = self
                    .range
                    .wanted(at, len)
                    .map(|part| Delivery::Copy { buffer, part });
                self.deliveries.push(copy, attempt.manner.patience.gfp())?;
                if attempt.placement == Placement::Direct {
                    self.tally.bounced = self.tally.bounced.saturating_add(1);
                }
                len
            };
            done = done.saturating_add(len);
        }
        Ok(done)
    }

    /// Returns whether some checksums are to be looked up while data is on its way.
    pub(crate) fn is_late(&self) -> bool {
        let expected = self.fetches.expected.as_ref();
        expected.is_some_and(Expected::is_late)
    }

    /// Takes out the checksums, if some of them are to be looked up while data is on its way.
    pub(crate) fn take_late(&mut self) -> Option<Expected> {
        match self.is_late() {
            true => self.fetches.expected.take(),
            false => None,
        }
    }

    /// Returns whether anything has to be read from devices.
    pub(crate) fn reads_devices(&self) -> bool {
        !self.fetches.list().is_empty()
    }

    /// Returns whether all there is to do once data has arrived may be done in an interrupt: no more
    /// than to verify little data in place, or to let go of somewhat more that is not verified.
    ///
    /// Nor has it lists so long that they could not be freed there.
    pub(crate) fn is_light(&self) -> bool {
        let (most, fast) = match &self.fetches.expected {
            Some(expected) => (VERIFIED_AT_ONCE, expected.is_fast()),
            None => (DONE_AT_ONCE, true),
        };
        fast && self.range.len <= most
            && self.fetches.list().len() <= FEW
            && self.fetches.are_direct()
            && self.deliveries.is_empty()
    }

    /// Frees the bounce memory of the window, which has been read or is not going to be, and returns
    /// what was reserved for it.
    pub(crate) fn take_reserved(&mut self) -> Option<Reservation> {
        self.fetches.take_reserved()
    }

    /// Returns whether making of what arrives what the caller gets may keep a CPU for long: as long as
    /// makes it worth while to have another CPU help.
    pub(crate) fn is_long(&self) -> bool {
        let lens = self.fetches.list().iter().map(|fetch| fetch.len);
        let verified = self.fetches.expected.as_ref().is_some_and(|expected| {
            lens.fold(0, usize::saturating_add) > verify::worth_help(expected.algorithm())
        });
        verified || self.deliveries.has_decode()
    }

    /// Gives back what is the filesystem's.
    pub(crate) fn release(&mut self) {
        self.maps = Few::new();
    }

    /// Returns whether the data whose maps were kept has been the file's all the time.
    pub(crate) fn is_current(&self) -> bool {
        extents::are_current(self.maps.as_slice())
    }
}
