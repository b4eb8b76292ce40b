// SPDX-License-Identifier: GPL-2.0

//! Accounts of devices, of which there is one table for all: 128, with a shard for each processor.

use super::super::account::{place, statements, sums, Account, Accounts, Charge, Statement, Why};
use crate::safe::clock;
use kernel::{
    cpu::{have, run_on, MOST},
    sync::model::check,
};
use loom::thread;

/// As many as there are in the table, at most: a number for each device, and what each shard has.
const ATOMICS: usize = 128 + 128 * MOST as usize * 14;

/// Devices that look for an account from the same place on.
const DEVICE: u32 = 0x0010_0001;
const OTHER: u32 = {
    let mut other = DEVICE + 1;
    while place(other) != place(DEVICE) {
        other += 1;
    }
    other
};

/// Checks a model of a machine with so many processors.
fn check_with(cpus: u32, f: impl Fn() + Sync + Send + 'static) {
    let _accounts = Accounts::new().expect("no memory");
    check(ATOMICS, Some(2), move || {
        have(cpus);
        clock::set(1);
        f();
    });
}

fn charge(device: u32, bytes: usize) -> Charge {
    Account::of(device).charge(bytes, Why::Least)
}

fn in_flight(device: u32) -> u64 {
    Account::of(device).in_flight().expect("no account")
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
    check_with(2, || {
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

/// What is charged on one processor ends on others, in two parts, while others count in the same
/// shard: in the end nothing is in flight, and all has been counted. On the way no more is in flight
/// than was charged.
///
/// Finds: counting by load and store; a part that is taken out without being taken off; what has
/// ended, or was dropped, and is not taken off; what is taken off of another shard than that which has
/// it, if some shards are added up before.
#[test]
fn what_is_charged_ends() {
    check_with(3, || {
        run_on(1);
        let mut first = charge(DEVICE, 4096);
        first.grow(8192);
        let second = first.split(4096);
        let threads = [(first, 2u32), (second, 0)].map(|(charge, cpu)| {
            thread::spawn(move || {
                run_on(cpu);
                charge.ended(true);
            })
        });
        let mut third = charge(DEVICE, 512);
        run_on(0);
        assert!((512..=512 + 3 * 4096).contains(&in_flight(DEVICE)));
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
        assert_eq!(sums(), 0, "few processors were taken for many");
    });
}

/// Of many processors, one knows exactly what it has charged itself, whoever ends it; of the others
/// what they had charged when it last looked: that it does after as many choices as there are
/// processors, or with the next jiffy.
///
/// Finds: what another processor ends taken off of its own shard; what is the own counted among the
/// others; a sum that is not refreshed, or always.
#[test]
fn many_look_now_and_then() {
    check_with(MOST, || {
        let others = thread::spawn(|| {
            run_on(9);
            charge(DEVICE, 512)
        });
        run_on(3);
        let own = charge(DEVICE, 4096);
        let first = in_flight(DEVICE);
        assert!([4096, 4096 + 512].contains(&first));
        let others = others.join().unwrap();
        let second = charge(DEVICE, 8192);
        let ended = thread::spawn(|| {
            run_on(4);
            own.ended(true);
        });
        ended.join().unwrap();
        // Its own at once, of the others nothing new.
        for _ in 0..MOST {
            assert_eq!(in_flight(DEVICE), first - 4096 + 8192);
        }
        assert_eq!(sums(), 1);
        assert_eq!(in_flight(DEVICE), 512 + 8192);
        assert_eq!(sums(), 2);
        drop(others);
        assert_eq!(in_flight(DEVICE), 512 + 8192);
        clock::set(2);
        assert_eq!(in_flight(DEVICE), 8192);
        assert_eq!(sums(), 3);
        drop(second);
        assert_eq!(in_flight(DEVICE), 0);
        assert_eq!(statement(DEVICE).in_flight, 0);
    });
}
