// SPDX-License-Identifier: GPL-2.0

//! Vectors of few elements.

use crate::{few::Few, props::config};
use kernel::prelude::*;
use proptest::{collection::vec, prelude::*};

proptest! {
    #![proptest_config(config())]

    /// What is in it is what was put in, in that order, and can be changed there.
    #[test]
    fn few_is_a_vector(
        room in prop::option::of(0usize..6),
        values in vec(any::<u8>(), 0..6),
    ) {
        let mut few = match room {
            None => Few::new(),
            Some(room) => Few::with_room(room, GFP_KERNEL).unwrap(),
        };
        let mut all = Vec::new();
        for value in values {
            few.push(value, GFP_KERNEL).unwrap();
            all.push(value);
            prop_assert_eq!(few.as_slice(), &all[..]);
            few.as_mut_slice().reverse();
            all.reverse();
        }
        prop_assert_eq!(few.as_mut_slice(), &mut all[..]);
    }

    /// What has no room is not put in, and whatever room there is stays as it is: that which was made,
    /// or else a little.
    #[test]
    fn few_does_not_grow(
        room in prop::option::of(0usize..9),
        little in 0usize..6,
        count in 0usize..20,
    ) {
        let mut few = match room {
            None => Few::new(),
            Some(room) => Few::with_room(room, GFP_KERNEL).unwrap(),
        };
        let most = match room {
            Some(room) if room > 1 => room,
            _ => little.max(2),
        };
        let mut all = Vec::new();
        for value in 0..count {
            prop_assert_eq!(few.push_within(value, little).is_ok(), value < most);
            if value < most {
                all.push(value);
            }
            prop_assert_eq!(few.as_slice(), &all[..]);
        }
    }
}
