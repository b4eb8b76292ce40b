// SPDX-License-Identifier: GPL-2.0

//! How the bounce memory of a filesystem is divided among those who want it.
//!
//! An owner may hold no more than is left: one alone gets half of all, a second one half of the rest,
//! and so on. So an owner whose reads take long never keeps another one from reading. Small requests
//! compete with other small requests of their owner only, and have an eighth of all to themselves. While
//! a long one of an owner that holds nothing waits, they get no more than that.
//!
//! Rule: dynamic queue thresholds, Choudhury and Hahne, IEEE/ACM Transactions on Networking 6(2), 1998.

/// Which requests a request competes with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lane {
    /// Those of at most [`SMALL`] bytes.
    Small,
    /// Longer ones.
    Large,
}

/// Most bytes of a small request: two compressed extents.
pub(crate) const SMALL: usize = 256 << 10;
/// How many owners are told apart at a time. More than that share places, by a hash of their number.
pub(crate) const OWNERS: usize = 32;
/// How many lanes there are.
pub(crate) const LANES: usize = 2;

impl Lane {
    /// Both lanes, in the order in which memory is handed out.
    pub(crate) const ALL: [Self; LANES] = [Self::Small, Self::Large];

    /// Returns the lane of a request of so many bytes.
    pub(crate) fn of(bytes: usize) -> Self {
        if bytes <= SMALL {
            Self::Small
        } else {
            Self::Large
        }
    }

    /// Returns the number of the lane, below [`LANES`].
    pub(crate) fn index(self) -> usize {
        match self {
            Self::Small => 0,
            Self::Large => 1,
        }
    }

    /// Returns how much of `limit` bytes requests of the lane may take together with all others.
    fn ceiling(self, limit: usize) -> usize {
        match self {
            Self::Small => limit,
            Self::Large => limit.saturating_sub(limit / 8),
        }
    }
}

/// Returns the place among [`OWNERS`] where an owner is looked for first, by a hash of its number.
pub(crate) fn place(owner: u64) -> usize {
    // As `hash_64()` of include/linux/hash.h.
    // CAST: Less than `OWNERS`.
    (owner.wrapping_mul(0x61C8_8646_80B5_83EB) >> (u64::BITS - OWNERS.ilog2())) as usize
}

/// Who holds how much. In bytes.
pub(crate) struct Ledger {
    /// What all hold, but for what is overdrawn.
    used: usize,
    /// What each owner holds in each lane.
    held: [[usize; OWNERS]; LANES],
    /// What is held beyond the limit, by readers that must not wait. It is nobody's share.
    overdrawn: usize,
}

impl Ledger {
    /// Makes a ledger in which nobody holds anything.
    pub(crate) const fn new() -> Self {
        Self {
            used: 0,
            held: [[0; OWNERS]; LANES],
            overdrawn: 0,
        }
    }

    /// Returns how many bytes all owners hold, but for what is overdrawn.
    pub(crate) fn used(&self) -> usize {
        self.used
    }

    /// Returns how many bytes are overdrawn.
    pub(crate) fn overdrawn(&self) -> usize {
        self.overdrawn
    }

    /// Returns how many bytes the owner at a place holds in a lane.
    pub(crate) fn held(&self, lane: Lane, place: usize) -> usize {
        let lane = self.held.get(lane.index());
        lane.and_then(|lane| lane.get(place)).copied().unwrap_or(0)
    }

    /// Returns whether the owner at a place holds anything.
    pub(crate) fn holds(&self, place: usize) -> bool {
        Lane::ALL.iter().any(|lane| self.held(*lane, place) > 0)
    }

    /// Returns whether the owner at a place may have so many bytes more, of `limit` in all.
    ///
    /// If nobody holds anything it may have any number. If `reserved`, it may have no more than all
    /// small requests together have to themselves, since a long one waits.
    pub(crate) fn admits(
        &self,
        limit: usize,
        lane: Lane,
        place: usize,
        bytes: usize,
        reserved: bool,
    ) -> bool {
        if self.used == 0 {
            return true;
        }
        let free = lane.ceiling(limit).saturating_sub(self.used);
        let held = self.held(lane, place);
        bytes <= free
            && (held == 0 || held.saturating_add(bytes) <= free)
            && (!reserved || self.all_in(lane).saturating_add(bytes) <= limit / 8)
    }

    /// Returns how many bytes all owners hold in a lane.
    fn all_in(&self, lane: Lane) -> usize {
        let lane = self
            .held
            .get(lane.index())
            .map_or(&[][..], |lane| &lane[..]);
        lane.iter().fold(0, |sum, held| sum.saturating_add(*held))
    }

    /// Notes that the owner at a place has so many bytes more.
    pub(crate) fn take(&mut self, lane: Lane, place: usize, bytes: usize) {
        self.used = self.used.saturating_add(bytes);
        if let Some(held) = self.held_mut(lane, place) {
            *held = held.saturating_add(bytes);
        }
    }

    /// Notes that the owner at a place has given so many bytes back.
    pub(crate) fn give(&mut self, lane: Lane, place: usize, bytes: usize) {
        self.used = self.used.saturating_sub(bytes);
        if let Some(held) = self.held_mut(lane, place) {
            *held = held.saturating_sub(bytes);
        }
    }

    /// Notes that so many bytes more are overdrawn.
    pub(crate) fn overdraw(&mut self, bytes: usize) {
        self.overdrawn = self.overdrawn.saturating_add(bytes);
    }

    /// Notes that so many bytes that were overdrawn have been given back.
    pub(crate) fn repay(&mut self, bytes: usize) {
        self.overdrawn = self.overdrawn.saturating_sub(bytes);
    }

    fn held_mut(&mut self, lane: Lane, place: usize) -> Option<&mut usize> {
        self.held.get_mut(lane.index())?.get_mut(place)
    }
}
