// SPDX-License-Identifier: GPL-2.0

//! Sets of bios, as `rust/block/batch.rs` uses the countdown.

use super::super::countdown::Countdown;
use kernel::sync::model::check;
use loom::{
    cell::UnsafeCell,
    sync::{Arc, Condvar, Mutex},
    thread,
};

const BIOS: usize = 2;

/// A set of bios. loom fails a model in which two threads touch a cell, one of them to write, and
/// neither has to come first.
struct Set {
    countdown: Countdown,
    /// Written by each bio when it ends: its mark, what it charges, what the device has read.
    bios: [UnsafeCell<u32>; BIOS],
    /// Stands for the memory of the set: read by who touches it, written by who frees it.
    memory: UnsafeCell<()>,
}

// SAFETY: loom checks what is done to the cells.
unsafe impl Sync for Set {}

impl Set {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            countdown: Countdown::new(),
            bios: [UnsafeCell::new(0), UnsafeCell::new(0)],
            memory: UnsafeCell::new(()),
        })
    }

    /// Ends a bio, as `end_io()` does, and returns what it finds if it was the last.
    fn end_io(&self, bio: usize, error: i32) -> Option<i32> {
        let last = self.countdown.end(error, || {
            self.memory.with(|_| ());
            // SAFETY: Only this bio's end writes it.
            self.bios[bio].with_mut(|done| unsafe { *done = 1 });
        });
        last.then(|| self.land())
    }

    /// Lands: all bios have ended, and the set is the caller's, to be freed.
    fn land(&self) -> i32 {
        for bio in &self.bios {
            // SAFETY: All have ended.
            assert_eq!(bio.with(|done| unsafe { *done }), 1);
        }
        let error = self.countdown.error();
        self.memory.with_mut(|_| ());
        error
    }
}

/// Submits bios that end with these errors, one after the other, as each may have ended before the
/// next is submitted; then counts the submitter out. Returns what each who was the last has found.
fn launch(set: &Arc<Set>, errors: [i32; BIOS]) -> Vec<i32> {
    let threads: Vec<_> = (0..BIOS)
        .map(|bio| {
            set.memory.with(|_| ());
            set.countdown.add();
            let set = set.clone();
            thread::spawn(move || set.end_io(bio, errors[bio]))
        })
        .collect();
    let mut landed = Vec::from_iter(set.countdown.is_last().then(|| set.land()));
    landed.extend(threads.into_iter().filter_map(|t| t.join().unwrap()));
    landed
}

/// Whoever counts down last finds all bios ended, and frees the set when nobody touches it any more.
///
/// Finds: `fetch_sub` with less than acquire and release; a bio that counts down before it gives back
/// what it has; a submitter without a count of its own; `add` after the bio may have ended; another
/// number than 1 for the last.
#[test]
fn the_last_finds_all_ended() {
    check(2, None, || {
        assert_eq!(launch(&Set::new(), [0; BIOS]), [0]);
    });
}

/// Who lands sees an error, and that is the one of a bio that failed.
///
/// Finds: a bio that counts down before it notes its error; an error that is not noted; as above,
/// `fetch_sub` with less than acquire and release.
#[test]
fn an_error_is_seen() {
    check(2, None, || {
        assert_eq!(launch(&Set::new(), [0, -5]), [-5]);
    });
    check(2, None, || {
        let landed = launch(&Set::new(), [-5, -61]);
        assert!(landed == [-5] || landed == [-61]);
    });
}

/// The first error stays.
///
/// Finds: `store` instead of `cmpxchg`, also one that looks before.
#[test]
fn the_first_error_stays() {
    check(2, None, || {
        let set = Set::new();
        // As a bio that cannot be made.
        set.countdown.fail(-12);
        assert_eq!(launch(&set, [-5, -5]), [-12]);
    });
    check(2, None, || {
        let set = Set::new();
        let threads = [-5, -61].map(|error| {
            let set = set.clone();
            thread::spawn(move || {
                set.countdown.fail(error);
                set.countdown.error()
            })
        });
        // What one has seen the other sees, too.
        let [one, other] = threads.map(|t| t.join().unwrap());
        assert_eq!(one, other);
    });
}

/// A bell that can be rung before it is waited for, as a completion of the kernel.
struct Bell {
    rung: Mutex<bool>,
    changed: Condvar,
}

impl Bell {
    fn ring(&self) {
        *self.rung.lock().unwrap() = true;
        self.changed.notify_one();
    }

    fn wait(&self) {
        let mut rung = self.rung.lock().unwrap();
        while !*rung {
            rung = self.changed.wait(rung).unwrap();
        }
    }
}

/// A task that waits for a set, as `wait_for()` does, goes on once all have ended, and then has the
/// set to itself, which lies on its stack.
///
/// Finds: nobody that rings, as nobody takes himself for the last (loom: a deadlock); a submitter who
/// does not wait though bios are in flight; as above, what weakens the order.
#[test]
fn who_waits_is_woken() {
    check(2, Some(3), || {
        let set = Set::new();
        let bell = Arc::new(Bell {
            rung: Mutex::new(false),
            changed: Condvar::new(),
        });
        for bio in 0..BIOS {
            set.countdown.add();
            let (set, bell) = (set.clone(), bell.clone());
            thread::spawn(move || {
                let last = set.countdown.end(0, || {
                    set.memory.with(|_| ());
                    // SAFETY: Only this bio's end writes it.
                    set.bios[bio].with_mut(|done| unsafe { *done = 1 });
                });
                if last {
                    bell.ring();
                }
            });
        }
        if !set.countdown.is_last() {
            bell.wait();
        }
        assert_eq!(set.land(), 0);
    });
}
