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
}
