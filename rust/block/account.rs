// SPDX-License-Identifier: GPL-2.0

//! What is in flight to each block device, and what was read from it.
//!
//! An account belongs to a device number, and stays until the module goes: devices come and go, and
//! their numbers are what people know them by. Each CPU has a shard of each account, and a read is
//! noted in the shard of the CPU that charged it. Any context.
//!
//! # What a choice costs
//!
//! A choice compares what is in flight to several devices. With few CPUs it adds up all shards. With
//! more, that would move a cache line from each other CPU for each device and each read. There, a CPU
//! takes its own shard, which is exact, and a sum of the others that it made a while ago: see
//! [`Shard::others`]. That sum is refreshed after as many choices as there are CPUs, so that a choice
//! costs about one line of another CPU, or with the next jiffy.
//!
//! An old sum does not send all CPUs to one device: each CPU keeps to its choice until it looks again,
//! sees where the others have gone by then, and what it has charged itself counts at once. Reads are
//! spread as evenly as by exact sums; to ignore small differences, or to weigh them at random, is worse.

use crate::safe::{
    clock,
    per_cpu::{
        Area,
        PerCpu, //
    },
};
use kernel::{
    cpu::nr_cpu_ids,
    prelude::*,
    sync::atomic::{
        Atomic,
        Relaxed, //
    },
};

/// How many devices can have an account; a power of two.
const ACCOUNTS: usize = 128;
/// How many places are looked at for one of them.
const PROBES: usize = 32;
/// How many CPUs are so few that each choice adds up all shards.
const FEW_CPUS: u32 = 8;
/// After how many choices at least a CPU adds up the shards of the others again.
const LEAST_CHOICES: u32 = 16;

/// Why a device was chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Why {
    /// There was no other.
    Only,
    /// Less was in flight to it than to the others.
    Least,
    /// No more was in flight to it than to the others, and its turn was by address.
    Near,
    /// The filesystem would have chosen it.
    Policy,
    /// It was read before, and is read again.
    Again,
    /// Another copy was bad.
    Retry,
}

/// All reasons, with their names.
const REASONS: [(Why, &str); 6] = [
    (Why::Only, "only"),
    (Why::Least, "least"),
    (Why::Near, "near"),
    (Why::Policy, "policy"),
    (Why::Again, "again"),
    (Why::Retry, "retry"),
];

/// What one CPU has noted of a device.
///
/// The first cache line has what the choice of a copy reads.
#[repr(C, align(64))]
struct Shard {
    /// Bytes in flight that this CPU has charged. Whichever CPU ends the read gives them back.
    in_flight: Atomic<u64>,
    reads: Atomic<u64>,
    bytes: Atomic<u64>,
    /// Bytes in flight that the other CPUs had charged, when this one last added them up.
    others: Atomic<u64>,
    /// The jiffy in which it did.
    jiffy: Atomic<u64>,
    /// For how many choices `others` is still good.
    left: Atomic<u32>,
    /// How often this CPU has added up all shards for a choice.
    sums: Atomic<u64>,
    errors: Atomic<u64>,
    chosen: [Atomic<u64>; REASONS.len()],
}

/// The shards of all accounts.
static SHARDS: PerCpu<Shard, ACCOUNTS> = PerCpu::new();

/// The number of the device of each account, 0 if there is none: that is no block device's.
static DEVICES: [Atomic<u32>; ACCOUNTS] = [const { Atomic::new(0) }; ACCOUNTS];

/// The memory of all accounts: without it there are none.
pub(crate) struct Accounts {
    _area: Area<Shard, ACCOUNTS>,
}

impl Accounts {
    /// Allocates it. May sleep; fails with `ENOMEM`.
    ///
    /// The module drops this last, after all reads have ended and all files have gone.
    pub(crate) fn new() -> Result<Self> {
        // SAFETY: Only reads and the file `devices` use shards, so none is used when it is dropped.
        let area = unsafe { SHARDS.allocate(Shard::new) }?;
        Ok(Self { _area: area })
    }
}

impl Shard {
    fn new() -> Self {
        Self {
            in_flight: Atomic::new(0),
            reads: Atomic::new(0),
            bytes: Atomic::new(0),
            others: Atomic::new(0),
            jiffy: Atomic::new(0),
            left: Atomic::new(0),
            sums: Atomic::new(0),
            errors: Atomic::new(0),
            chosen: [const { Atomic::new(0) }; REASONS.len()],
        }
    }
}

/// Returns where in the table to begin to look for a device. Numbers of disks differ by 16 as often as
/// by 1, so the place depends on all bits: as `hash_32()` of include/linux/hash.h does it.
pub(in crate::safe) const fn place(device: u32) -> usize {
    const BITS: u32 = ACCOUNTS.ilog2();

    // CAST: Less than `ACCOUNTS`.
    (device.wrapping_mul(0x61C8_8647) >> (u32::BITS - BITS)) as usize
}

/// The account of a device, or none: there are so many devices that this one has not got one.
#[derive(Clone, Copy)]
pub(crate) struct Account(Option<usize>);

impl Account {
    /// Finds the account of a device by its number, or opens one.
    pub(in crate::safe) fn of(device: u32) -> Self {
        let first = place(device);
        for probe in 0..PROBES {
            let nr = first.wrapping_add(probe) % ACCOUNTS;
            let entry = &DEVICES[nr];
            let number = entry.load(Relaxed);
            let is_it = number == device
                || number == 0
                    && match entry.cmpxchg(0, device, Relaxed) {
                        Ok(_) => true,
                        Err(other) => other == device,
                    };
            if is_it {
                return Self(Some(nr));
            }
        }
        Self(None)
    }

    /// Returns how many bytes are in flight, if that is known: with many CPUs, about how many.
    pub(crate) fn in_flight(self) -> Option<u64> {
        let nr = self.0?;
        let shard = SHARDS.this(nr)?;
        let cpus = nr_cpu_ids();
        if cpus <= FEW_CPUS {
            return Some(SHARDS.sum(nr, |shard| &shard.in_flight));
        }
        // The task may be moved to another CPU, or be interrupted by one who does the same: then
        // `others` is refreshed too soon, or a few choices later.
        let own = shard.in_flight.load(Relaxed);
        let (now, left) = (clock::jiffies(), shard.left.load(Relaxed));
        if left > 0 && shard.jiffy.load(Relaxed) == now {
            shard.left.store(left.saturating_sub(1), Relaxed);
            return Some(own.saturating_add(shard.others.load(Relaxed)));
        }
        let sum = SHARDS.sum(nr, |shard| &shard.in_flight);
        shard.others.store(sum.saturating_sub(own), Relaxed);
        shard.jiffy.store(now, Relaxed);
        shard.left.store(cpus.max(LEAST_CHOICES), Relaxed);
        shard.sums.add(1u64, Relaxed);
        Some(sum)
    }

    /// Counts `bytes` as in flight, as long as the charge exists, for a device that was chosen for
    /// a reason.
    pub(crate) fn charge(self, bytes: usize, why: Why) -> Charge {
        let shard = self.0.and_then(|nr| SHARDS.this(nr));
        if let Some(shard) = shard {
            // CAST: Widening.
            shard.in_flight.add(bytes as u64, Relaxed);
            shard.chosen[why as usize].add(1u64, Relaxed);
        }
        Charge { shard, bytes }
    }
}

/// Bytes in flight to a device.
pub(crate) struct Charge {
    /// Of the CPU that noted it: in flight there is at least what its charges have.
    shard: Option<&'static Shard>,
    bytes: usize,
}

impl Charge {
    /// Makes one of nothing, for no device.
    pub(super) fn none() -> Self {
        Self {
            shard: None,
            bytes: 0,
        }
    }

    /// Adds what goes along.
    pub(crate) fn grow(&mut self, bytes: usize) {
        if let Some(shard) = self.shard {
            // CAST: Widening.
            shard.in_flight.add(bytes as u64, Relaxed);
        }
        self.bytes = self.bytes.saturating_add(bytes);
    }

    /// Takes a part of it out: at most all of it.
    pub(crate) fn split(&mut self, bytes: usize) -> Self {
        let bytes = bytes.min(self.bytes);
        self.bytes = self.bytes.saturating_sub(bytes);
        Self {
            shard: self.shard,
            bytes,
        }
    }

    /// Ends it, as the read of a bio that has ended.
    pub(super) fn ended(self, succeeded: bool) {
        let Some(shard) = self.shard else {
            return;
        };
        // In the line that is written to anyway, as the bytes are given back.
        shard.reads.add(1u64, Relaxed);
        if succeeded {
            // CAST: Widening.
            shard.bytes.add(self.bytes as u64, Relaxed);
        } else {
            shard.errors.add(1u64, Relaxed);
        }
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        if let (Some(shard), 1..) = (self.shard, self.bytes) {
            // CAST: Widening.
            shard
                .in_flight
                .add((self.bytes as u64).wrapping_neg(), Relaxed);
        }
    }
}

/// What an account says.
pub(crate) struct Statement {
    pub(crate) device: u32,
    pub(crate) reads: u64,
    pub(crate) bytes: u64,
    pub(crate) errors: u64,
    pub(crate) in_flight: u64,
    nr: usize,
}

impl Statement {
    /// Returns how often the device was chosen, by reason.
    pub(crate) fn chosen(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        REASONS.iter().map(|(why, name)| {
            let times = SHARDS.sum(self.nr, |shard| &shard.chosen[*why as usize]);
            (*name, times)
        })
    }
}

/// Returns the numbers of all accounts, with those of their devices.
fn used() -> impl Iterator<Item = (usize, u32)> {
    let all = DEVICES.iter().map(|device| device.load(Relaxed));
    all.enumerate().filter(|(_, device)| *device != 0)
}

/// Returns what all accounts say.
pub(crate) fn statements() -> impl Iterator<Item = Statement> {
    used().map(|(nr, device)| Statement {
        device,
        reads: SHARDS.sum(nr, |shard| &shard.reads),
        bytes: SHARDS.sum(nr, |shard| &shard.bytes),
        errors: SHARDS.sum(nr, |shard| &shard.errors),
        in_flight: SHARDS.sum(nr, |shard| &shard.in_flight),
        nr,
    })
}

/// Returns how often a CPU of many has added up all shards of an account for a choice.
pub(crate) fn sums() -> u64 {
    used().fold(0, |sum, (nr, _)| {
        sum.wrapping_add(SHARDS.sum(nr, |shard| &shard.sums))
    })
}
