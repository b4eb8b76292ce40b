// SPDX-License-Identifier: GPL-2.0

//! Accounts of devices, of which there is one table for all: 128, with 8 shards each.

use super::super::account::{place, statements, Account, Charge, Statement, Why};
use kernel::{cpu::run_on, sync::model::check};
use loom::thread;

/// More than there are in the table: a number for each device, and for each shard what is in flight,
/// reads, bytes, errors and reasons.
const ATOMICS: usize = 128 + 128 * 8 * 10;

/// Devices that look for an account from the same place on.
const DEVICE: u32 = 0x0010_0001;
const OTHER: u32 = {
    let mut other = DEVICE + 1;
    while place(other) != place(DEVICE) {
        other += 1;
    }
    other
};

fn charge(device: u32, bytes: usize) -> Charge {
    Account::of(device).charge(bytes, Why::Least)
}

fn statement(device: u32) -> Statement {
    let mut all = statements().filter(|statement| statement.device == device);
    let one = all.next().expect("no account");
    assert!(all.next().is_none(), "two accounts of a device");
    one
}

/// Two who open the account of a device at the same time have the same one, and it is not that of a
/// third, which looks for one in the same place.
///
/// Finds: a number that is stored without looking whether somebody else was faster; who was not, and
/// goes on although the other wrote the same number; who takes the place of another device for his.
#[test]
fn a_device_has_one_account() {
    check(ATOMICS, Some(2), || {
        let threads = [DEVICE, OTHER, DEVICE].map(|device| {
            thread::spawn(move || charge(device, if device == OTHER { 512 } else { 4096 }))
        });
        let charges = threads.map(|t| t.join().unwrap());
        assert_eq!(statement(DEVICE).in_flight, 2 * 4096);
        assert_eq!(statement(OTHER).in_flight, 512);
        drop(charges);
        assert_eq!(statements().count(), 2);
        assert!(statements().all(|statement| statement.in_flight == 0));
    });
}

/// What is charged on one processor ends on another, in two parts, while others count in the same
/// shard: in the end nothing is in flight, and all has been counted. On the way no more is in flight
/// than was charged.
///
/// Finds: counting by load and store; a part that is taken out without being taken off; what has
/// ended, or was dropped, and is not taken off; what is taken off of one shard that another one has,
/// if that were a number without a sign.
#[test]
fn what_is_charged_ends() {
    check(ATOMICS, Some(2), || {
        run_on(1);
        let mut first = charge(DEVICE, 4096);
        first.grow(8192);
        let second = first.split(4096);
        let threads = [(first, 8u32), (second, 16)].map(|(charge, cpu)| {
            thread::spawn(move || {
                // These two, and number 0, share a shard.
                run_on(cpu);
                charge.ended(true);
            })
        });
        run_on(0);
        let mut third = charge(DEVICE, 512);
        let in_flight = Account::of(DEVICE).in_flight().unwrap();
        assert!((512..=512 + 3 * 4096).contains(&in_flight));
        drop(third.split(256));
        third.ended(false);
        for thread in threads {
            thread.join().unwrap();
        }
        let statement = statement(DEVICE);
        assert_eq!(
            (
                statement.in_flight,
                statement.reads,
                statement.bytes,
                statement.errors
            ),
            (0, 3, 12288, 1)
        );
        let times: u64 = statement.chosen().map(|(_, times)| times).sum();
        assert_eq!(times, 2);
    });
}
