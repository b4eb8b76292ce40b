// SPDX-License-Identifier: GPL-2.0

//! What a chunk looks like. Without bindings: `tests/host/` reads it as well.

/// How the stripes of a chunk hold its data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Profile {
    /// Once.
    Single,
    /// Twice on one device, or on several if some were taken out; the first is read.
    Dup,
    /// Spread over all stripes.
    Raid0,
    /// A copy on each stripe: RAID1, RAID1C3, RAID1C4.
    Raid1,
    /// Spread over groups of stripes, a copy on each stripe of the group.
    Raid10,
    /// Spread, with one parity.
    Raid5,
    /// Spread, with two parities.
    Raid6,
    /// Something that is not known here.
    Unknown,
}

/// The shape of a chunk. Addresses and lengths in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Shape {
    /// Logical address of the first byte.
    pub(crate) start: u64,
    /// Length in logical addresses.
    pub(crate) len: u64,
    /// How data is laid out.
    pub(crate) profile: Profile,
    /// Number of stripes: places on devices.
    pub(crate) stripes: u32,
    /// Number of stripes of a group, for [`Profile::Raid10`].
    pub(crate) sub_stripes: u32,
}

impl Shape {
    /// Returns whether the chunk has a logical address.
    pub(crate) fn contains(&self, logical: u64) -> bool {
        logical
            .checked_sub(self.start)
            .is_some_and(|offset| offset < self.len)
    }
}
