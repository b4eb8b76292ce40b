// SPDX-License-Identifier: GPL-2.0

//! Files whose buffers change: for how long they are remembered.

use kernel::prelude::*;

#[kunit_tests(btrfs_dio_unstable)]
mod tests {
    use crate::{
        safe::btrfs::inode::InodeId,
        unstable::{
            Unstable,
            BOUNCED, //
        },
    };

    // CAST: Widening.
    const TIME: u64 = BOUNCED as u64;
    const INODE: InodeId = InodeId(0xffff_8880_0123_4500);

    #[test]
    fn the_time_is_asked_for_only_if_there_are_notes() {
        let table = Unstable::new();
        let mut asked = 0u32;
        let mut ask = |now| {
            table.holds(INODE, || {
                asked += 1;
                now
            })
        };
        assert!(!ask(1));
        table.note(INODE, 1000);
        assert!(ask(1000));
        assert!(ask(1000 + TIME - 1));
        assert!(!ask(1000 + TIME));
        // The notes are over, and not asked about any more.
        assert!(!ask(1000));
        assert_eq!(asked, 3);
    }

    #[test]
    fn a_note_lasts_for_its_time() {
        // (time of the note, time of the read, whether it goes through private memory)
        let cases = [
            (0u64, 0u64, true),
            (0, TIME - 1, true),
            (0, TIME, false),
            (77, 76 + TIME, true),
            (77, 77 + TIME, false),
            // As another CPU has it.
            (1001, 1000, true),
            // Where the lower half begins anew.
            (u64::from(u32::MAX), u64::from(u32::MAX) + 1, true),
            (u64::from(u32::MAX), u64::from(u32::MAX) + TIME, false),
            (5 << 32, (5 << 32) + 1, true),
            (5 << 32, (5 << 32) + (1 << 31), false),
        ];
        for (noted, now, expected) in cases {
            let table = Unstable::new();
            table.note(INODE, noted);
            assert_eq!(table.holds(INODE, || now), expected);
        }
    }

    #[test]
    fn a_later_note_counts() {
        let table = Unstable::new();
        table.note(INODE, 1000);
        table.note(INODE, 999 + TIME);
        assert!(table.holds(INODE, || 1998 + TIME));
        assert!(!table.holds(INODE, || 999 + 2 * TIME));
        table.note(INODE, 9000 + TIME);
        assert!(table.holds(INODE, || 9000 + TIME));
    }

    #[test]
    fn other_files_are_none_of_it() {
        let table = Unstable::new();
        table.note(INODE, 1000);
        for nr in 1..1000 {
            // What shares a slot has another tag.
            assert!(!table.holds(InodeId(INODE.0 + nr * 64), || 1000));
        }
        assert!(table.holds(INODE, || 1000));
    }
}
