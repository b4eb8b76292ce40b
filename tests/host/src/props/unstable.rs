// SPDX-License-Identifier: GPL-2.0

//! The files that are read through private memory for a while.

use crate::{
    safe::btrfs::inode::InodeId,
    unstable::{Unstable, BOUNCED},
};
use proptest::prelude::*;

const TIME: u64 = BOUNCED as u64;

/// A file is noted, or read, after so many milliseconds.
#[derive(Clone, Copy, Debug)]
enum Step {
    Note(usize, u64),
    Read(usize, u64),
}

/// The address of the inode of a file, as slabs have them.
fn id(file: usize) -> InodeId {
    InodeId(0xffff_8880_0000_0000 + file * 1120)
}

fn step() -> impl Strategy<Value = Step> {
    let file = 0..200usize;
    let pause = prop_oneof![0..50u64, 0..2 * TIME];
    (any::<bool>(), file, pause).prop_map(|(note, file, pause)| match note {
        true => Step::Note(file, pause),
        false => Step::Read(file, pause),
    })
}

proptest! {
    #![proptest_config(super::config())]

    /// No file is bounced that was not noted in time. A file that was noted last of all is.
    #[test]
    fn notes_are_those_that_were_made(start in any::<u32>(), steps in prop::collection::vec(step(), 1..100)) {
        let table = Unstable::new();
        let mut now = u64::from(start);
        let mut noted = std::collections::HashMap::new();
        let mut last = None;
        for step in steps {
            match step {
                Step::Note(file, pause) => {
                    now += pause;
                    table.note(id(file), now);
                    noted.insert(file, now);
                    last = Some(file);
                }
                Step::Read(file, pause) => {
                    now += pause;
                    let recent = noted.get(&file).is_some_and(|then| now - then < TIME);
                    let held = table.holds(id(file), || now);
                    prop_assert!(recent || !held);
                    prop_assert!(held || !recent || last != Some(file));
                }
            }
        }
    }
}
