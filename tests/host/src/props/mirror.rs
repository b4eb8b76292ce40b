// SPDX-License-Identifier: GPL-2.0

//! The choice of a copy.

use crate::{
    mirror::{by_pid, share, spread, Candidate},
    props::config,
    safe::block::account::Why,
    stripe::STRIPE_LEN,
};
use proptest::{collection::vec, prelude::*};

fn candidates() -> impl Strategy<Value = Vec<Candidate>> {
    let one = prop_oneof![
        prop_oneof![0u64..3, any::<u64>()].prop_map(|in_flight| Candidate::Good { in_flight }),
        Just(Candidate::Avoided),
        Just(Candidate::Missing),
    ];
    vec(one, 0..6)
}

/// `find_live_mirror()` of fs/btrfs/volumes.c, as it stands there.
fn find_live_mirror(preferred: usize, all: &[Candidate]) -> usize {
    let has_bdev = |i: usize| all[i] != Candidate::Missing;
    let is_source = |i: usize| all[i] == Candidate::Avoided;
    for tolerance in [false, true] {
        if has_bdev(preferred) && (tolerance || !is_source(preferred)) {
            return preferred;
        }
        for i in 0..all.len() {
            if has_bdev(i) && (tolerance || !is_source(i)) {
                return i;
            }
        }
    }
    preferred
}

proptest! {
    #![proptest_config(config())]

    /// By pid as btrfs chooses.
    #[test]
    fn by_pid_is_what_btrfs_chooses(pid in any::<i32>(), all in candidates()) {
        let chosen = by_pid(pid, all.len() as u32, |n| all[n as usize]);
        let wanted = if all.is_empty() {
            0
        } else {
            find_live_mirror(pid.unsigned_abs() as usize % all.len(), &all)
        };
        prop_assert_eq!(chosen as usize, wanted);
    }

    /// None is better than the one that is chosen, and among equals each has its turn.
    #[test]
    fn spread_chooses_the_least(address in any::<u64>(), all in candidates()) {
        let count = all.len() as u64;
        let (chosen, why) = spread(address, count as u32, |n| all[n as usize]);
        if all.is_empty() {
            prop_assert_eq!((chosen, why), (0, Why::Only));
            return Ok(());
        }
        let rank = |candidate: &Candidate| match candidate {
            Candidate::Good { in_flight } => u128::from(*in_flight),
            Candidate::Avoided => u128::MAX - 1,
            Candidate::Missing => u128::MAX,
        };
        let best = all.iter().map(rank).min().unwrap();
        let bests: Vec<u64> = (0..count).filter(|n| rank(&all[*n as usize]) == best).collect();
        prop_assert_eq!(why, if bests.len() > 1 { Why::Near } else { Why::Least });
        let turn = (address >> 20) % count;
        let wanted = bests.iter().find(|n| **n >= turn).unwrap_or(&bests[0]);
        prop_assert_eq!(u64::from(chosen), *wanted);
    }

    /// The parts of a read that is divided are whole stripes, and all of it.
    #[test]
    fn shares_are_all_of_it(sectors in 0usize..1 << 20, devices in 0u32..100) {
        let len = sectors * 512;
        let stripe = STRIPE_LEN as usize;
        match share(len, devices) {
            None => prop_assert!(len < 256 << 10 || devices < 2),
            Some(share) => {
                prop_assert!(share > 0 && share % stripe == 0);
                prop_assert!(share * devices as usize >= len);
                prop_assert!((share - stripe) * (devices as usize) < len);
            }
        }
    }

    /// No numbers are too odd.
    #[test]
    fn shares_of_anything(len in any::<usize>(), devices in any::<u32>()) {
        share(len, devices);
    }
}
