// SPDX-License-Identifier: GPL-2.0

//! What we write to the caller's memory ourselves, before or after data has arrived.

use crate::{
    attempt::Attempt,
    cache::Decoded,
    checksum::Expected,
    compressed::{
        self,
        Keep, //
    },
    error::{
        Reason,
        Stop, //
    },
    fetch::{
        Fetches,
        Memory, //
    },
    few::Few,
    hole, inline,
    range::{
        Part,
        Range, //
    },
    resources::Resources,
    safe::{
        btrfs::{
            extent_map::Encoded,
            inline_item::InlineData, //
        },
        parallel,
        private::Filled,
        user_pages::UserPages,
        vecs::Cursor, //
    },
};
use kernel::{
    alloc::Flags,
    new_spinlock,
    prelude::*,
    sync::Arc, //
};

/// Something to write, and where to.
pub(crate) enum Delivery {
    /// Zeros.
    Zero(Part),
    /// The inline extent.
    Inline(Part),
    /// What has arrived in a private buffer.
    Copy {
        /// Number of the buffer.
        buffer: usize,
        /// What of it is wanted.
        part: Part,
    },
    /// What has arrived in a private buffer, decompressed.
    Decode {
        /// Number of the buffer.
        buffer: usize,
        /// What is in it.
        encoded: Encoded,
        /// What of it, decompressed and from its offset on, is wanted.
        part: Part,
        /// If all of it is to be kept, what that takes.
        keep: Option<Keep>,
    },
    /// What has been decompressed before.
    Kept {
        /// All of the extent.
        decoded: Arc<Decoded>,
        /// Offset in it from which on the part is counted.
        offset: u64,
        /// What of it is wanted.
        part: Part,
    },
}

impl Delivery {
    /// Returns whether it has to be decompressed when it has arrived.
    fn is_decode(&self) -> bool {
        matches!(self, Self::Decode { .. })
    }
}

/// All that is to be written.
pub(crate) struct Deliveries {
    list: Few<Delivery>,
    /// The inline extent, if there is one, and memory to decompress it to.
    inline: Option<(InlineData, KVec<u8>)>,
    /// Memory to gather a block in, if the caller's is in smaller pieces.
    scratch: Option<KVec<u8>>,
}

impl Deliveries {
    /// Makes an empty list.
    #[inline(always)]
    pub(crate) fn new() -> Self {
        Self {
            list: Few::new(),
            inline: None,
            scratch: None,
        }
    }

    /// Returns whether there is nothing to write.
    pub(crate) fn is_empty(&self) -> bool {
        self.list.as_slice().is_empty()
    }

    /// Returns whether something has to be decompressed.
    pub(crate) fn has_decode(&self) -> bool {
        self.list.as_slice().iter().any(Delivery::is_decode)
    }

    /// Adds something, if it is something.
    pub(crate) fn push(&mut self, delivery: Option<Delivery>, gfp: Flags) -> Result<(), Stop> {
        if let Some(delivery) = delivery {
            self.list.push(delivery, gfp)?;
        }
        Ok(())
    }

    /// Adds the inline extent, of which a file has one at most.
    pub(crate) fn push_inline(
        &mut self,
        data: InlineData,
        part: Option<Part>,
        gfp: Flags,
    ) -> Result<(), Stop> {
        let decoded = inline::room(&data, gfp)?;
        self.inline = Some((data, decoded));
        self.push(part.map(Delivery::Inline), gfp)
    }

    /// Adds a part of an extent that is kept.
    pub(crate) fn push_kept(
        &mut self,
        decoded: Arc<Decoded>,
        encoded: &Encoded,
        part: &Part,
        gfp: Flags,
    ) -> Result<(), Stop> {
        let delivery = Delivery::Kept {
            decoded,
            offset: encoded.offset,
            part: *part,
        };
        self.push(Some(delivery), gfp)
    }

    /// Adds a part of an extent that arrives in a private buffer.
    pub(crate) fn push_decode(
        &mut self,
        buffer: usize,
        encoded: &Encoded,
        part: &Part,
        keep: Option<Keep>,
        gfp: Flags,
    ) -> Result<(), Stop> {
        let delivery = Delivery::Decode {
            buffer,
            encoded: *encoded,
            part: *part,
            keep,
        };
        self.push(Some(delivery), gfp)
    }

    /// Allocates what is needed beside.
    pub(crate) fn prepare(
        &mut self,
        fetches: &Fetches,
        attempt: &Attempt,
        range: &Range,
    ) -> Result<(), Stop> {
        let split =
            attempt.manner.alignment & range.block.saturating_sub(1) != 0 || range.head != 0;
        let direct = |memory: &Memory| matches!(memory, Memory::Caller { .. });
        if split
            && fetches.expected.is_some()
            && fetches.list().iter().any(|fetch| direct(&fetch.memory))
        {
            let gfp = attempt.manner.patience.gfp();
            self.scratch = Some(KVec::from_elem(0u8, range.block, gfp)?);
        }
        Ok(())
    }

    /// Returns the memory to gather a block in; empty if no block is in pieces.
    pub(crate) fn scratch(&mut self) -> &mut [u8] {
        self.scratch.as_deref_mut().unwrap_or(&mut [])
    }

    /// Writes what does not come from devices. Task context.
    pub(crate) fn before(
        &mut self,
        resources: &Resources,
        block: usize,
        pages: &UserPages<'_>,
    ) -> Result<(), Stop> {
        let mut cursor = Cursor::default();
        for delivery in self.list.as_slice() {
            match delivery {
                Delivery::Zero(part) => {
                    pages.vecs().seek(&mut cursor, part.to);
                    hole::fill(pages.vecs(), &mut cursor, part.len);
                }
                Delivery::Inline(part) => {
                    let (data, decoded) = self.inline.as_mut().ok_or(Reason::Mapping)?;
                    let bytes = inline::bytes(resources, data, decoded, block)?;
                    pages.vecs().seek(&mut cursor, part.to);
                    inline::fill(pages.vecs(), &mut cursor, part, bytes);
                }
                Delivery::Kept {
                    decoded,
                    offset,
                    part,
                } => {
                    let offset = usize::try_from(*offset).map_err(|_| Reason::Mapping)?;
                    compressed::fill_from(offset, decoded.data(), part, pages.vecs())?;
                }
                Delivery::Copy { .. } | Delivery::Decode { .. } => {}
            }
        }
        Ok(())
    }

    /// Writes what has arrived in private memory, and has been verified there. Task context.
    ///
    /// Extents are decompressed by several CPUs, if there are several.
    pub(crate) fn after(
        &self,
        resources: &Resources,
        fetches: &mut Fetches,
        block: usize,
        pages: &UserPages<'_>,
    ) -> Result<(), Stop> {
        let (filled, expected) = fetches.arrived();
        let list = self.list.as_slice();
        let one = |delivery| deliver(resources, delivery, &filled, expected, block, pages);
        let decode = |delivery: &&Delivery| delivery.is_decode();
        if list.iter().filter(decode).nth(1).is_none() {
            return list.iter().try_for_each(one);
        }
        pin_init::stack_pin_init!(let failed = new_spinlock!(None));
        parallel::for_each(&resources.helpers, list.len(), &|n| {
            if let Some(Err(stop)) = list.get(n).map(one) {
                *failed.lock() = Some(stop);
            }
        });
        let failed = *failed.lock();
        failed.map_or(Ok(()), Err)
    }
}

/// Writes one thing that has arrived.
fn deliver(
    resources: &Resources,
    delivery: &Delivery,
    filled: &Filled<'_>,
    expected: Option<&Expected>,
    block: usize,
    pages: &UserPages<'_>,
) -> Result<(), Stop> {
    match delivery {
        Delivery::Zero(_) | Delivery::Inline(_) | Delivery::Kept { .. } => Ok(()),
        Delivery::Copy { buffer, part } => {
            let data = filled.bytes(*buffer).ok_or(Reason::Mapping)?;
            compressed::fill_from(0, data, part, pages.vecs())
        }
        Delivery::Decode {
            buffer,
            encoded,
            part,
            keep,
        } => {
            let data = filled.bytes(*buffer).ok_or(Reason::Mapping)?;
            let whole = match keep {
                Some(_) => compressed::whole(resources, encoded, data, block)?,
                None => None,
            };
            let Some(whole) = whole else {
                return compressed::fill(resources, encoded, data, part, block, pages.vecs());
            };
            let offset = usize::try_from(encoded.offset).map_err(|_| Reason::Mapping)?;
            compressed::fill_from(offset, &whole, part, pages.vecs())?;
            if let (Some(keep), Some(expected)) = (keep, expected) {
                let digests = expected.digests(keep.digests.clone());
                resources.cache().insert(keep.key, digests, whole);
            }
            Ok(())
        }
    }
}
