// SPDX-License-Identifier: GPL-2.0

//! How bounce memory is divided among owners.

use kernel::prelude::*;

#[kunit_tests(btrfs_dio_fair_share)]
mod tests {
    use crate::{
        budget::limit,
        fair_share::{
            place,
            Lane::{
                self,
                Large,
                Small, //
            },
            Ledger,
            OWNERS,
            SMALL, //
        },
    };

    const MIB: usize = 1 << 20;
    const LIMIT: usize = 32 * MIB;

    /// Takes requests of `bytes` bytes for the owner at a place until one is refused. Returns how
    /// many bytes it has then.
    fn fill(ledger: &mut Ledger, lane: Lane, place: usize, bytes: usize) -> usize {
        while ledger.admits(LIMIT, lane, place, bytes, false) {
            ledger.take(lane, place, bytes);
        }
        ledger.held(lane, place)
    }

    #[test]
    fn an_owner_gets_no_more_than_is_left() {
        let mut ledger = Ledger::new();
        // An eighth is for small requests. Of 28 MiB one owner gets half, the next one half of the rest.
        assert_eq!(fill(&mut ledger, Large, 0, MIB), 14 * MIB);
        assert_eq!(fill(&mut ledger, Large, 1, MIB), 7 * MIB);
        assert_eq!(fill(&mut ledger, Large, 2, MIB), 4 * MIB);
        assert_eq!(ledger.used(), 25 * MIB);
        // Each of them is at its limit, and a fourth one is not.
        for (place, admitted) in [(0, false), (1, false), (2, false), (3, true)] {
            assert_eq!(ledger.admits(LIMIT, Large, place, MIB, false), admitted);
        }
        // What one gives back the others may have.
        ledger.give(Large, 0, 14 * MIB);
        assert_eq!(fill(&mut ledger, Large, 1, MIB), 12 * MIB);
    }

    #[test]
    fn small_requests_find_room_beside_large_ones() {
        let mut ledger = Ledger::new();
        // More owners than it takes to use up what large requests may have.
        for place in 0..OWNERS {
            fill(&mut ledger, Large, place, 512 << 10);
        }
        assert!(!ledger.admits(LIMIT, Large, 0, 512 << 10, false));
        // Also for an owner that has the most.
        assert!(ledger.admits(LIMIT, Small, 0, SMALL, false));
        // And a flood of small requests leaves room for those of others.
        assert!(fill(&mut ledger, Small, 0, SMALL) >= SMALL);
        assert!(ledger.admits(LIMIT, Small, 1, SMALL, false));
        assert!(ledger.used() <= LIMIT);
    }

    #[test]
    fn a_long_one_is_not_kept_waiting_by_small_ones() {
        let mut ledger = Ledger::new();
        // As many small requests as there is room for, of many owners.
        for place in 0..OWNERS {
            fill(&mut ledger, Small, place, SMALL);
        }
        assert!(!ledger.admits(LIMIT, Large, 0, 2 * MIB, false));
        // While a long one waits they get no more than an eighth: as they end it gets its turn.
        assert!(!ledger.admits(LIMIT, Small, 0, SMALL, true));
        for place in 0..OWNERS {
            let held = ledger.held(Small, place);
            ledger.give(Small, place, held);
        }
        ledger.take(Large, 0, MIB);
        let mut small = 0;
        while ledger.admits(LIMIT, Small, small % OWNERS, SMALL, true) {
            ledger.take(Small, small % OWNERS, SMALL);
            small += 1;
        }
        assert_eq!(small * SMALL, LIMIT / 8);
    }

    #[test]
    fn what_is_overdrawn_is_nobodys_share() {
        let mut ledger = Ledger::new();
        ledger.take(Small, 0, MIB);
        ledger.overdraw(LIMIT);
        assert!(ledger.admits(LIMIT, Small, 1, SMALL, false));
        assert_eq!((ledger.used(), ledger.overdrawn()), (MIB, LIMIT));
        ledger.repay(LIMIT);
        assert_eq!(ledger.overdrawn(), 0);
    }

    #[test]
    fn whatever_is_wanted_fits_if_nobody_has_anything() {
        let mut ledger = Ledger::new();
        assert!(ledger.admits(0, Large, 0, usize::MAX, false));
        ledger.take(Small, 0, 1);
        assert!(!ledger.admits(0, Large, 0, 1, false));
        assert!(!ledger.admits(usize::MAX, Large, 0, usize::MAX, false));
        ledger.give(Small, 0, 1);
        assert!(ledger.admits(0, Large, 0, 1, false));
        // To give back more than there is leaves nothing.
        ledger.give(Small, 0, 1);
        assert_eq!(ledger.used(), 0);
        // A place that is none has nothing.
        ledger.take(Large, OWNERS, MIB);
        assert_eq!(ledger.held(Large, OWNERS), 0);
    }

    #[test]
    fn requests_are_told_apart_by_size() {
        for (bytes, lane) in [(0, Small), (1, Small), (SMALL, Small), (SMALL + 1, Large)] {
            assert_eq!(Lane::of(bytes), lane);
        }
        assert_eq!(Lane::ALL.map(Lane::index), [0, 1]);
    }

    #[test]
    fn owners_have_places() {
        for owner in [0, 1, 2, 1000, 1 << 32, u64::MAX] {
            assert!(place(owner) < OWNERS);
        }
        // Neighbours do not share one.
        assert!((0..8).all(|owner| place(owner) != place(owner + 1)));
    }

    #[test]
    fn the_limit_follows_the_machine() {
        // (parameter in KiB, bytes of memory, limit in bytes)
        let cases = [
            (0, 0, 16 * MIB),
            (0, 1024 * MIB, 16 * MIB),
            (0, 2048 * MIB, 32 * MIB),
            (0, 16 << 30, 256 * MIB),
            (0, 1 << 40, 1024 * MIB),
            (1, 16 << 30, 8 * MIB),
            (8192, 16 << 30, 8 * MIB),
            (8193, 16 << 30, 8193 << 10),
            (u32::MAX, 16 << 30, (u32::MAX as usize) << 10),
        ];
        for (kib, memory, expected) in cases {
            assert_eq!(limit(kib, memory), expected);
        }
    }
}
