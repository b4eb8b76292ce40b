// SPDX-License-Identifier: GPL-2.0

//! What is in flight to each block device, and what was read from it.
//!
//! An account belongs to a device number, and stays until the module goes: devices come and go, and
//! their numbers are what people know them by. Each has a few shards, a cache line each, of which
//! CPUs that are not many have one each: nothing is shared by those who read, but by who asks for a
//! sum. Any context.

use kernel::{
    cpu::CpuId,
    sync::atomic::{
        Atomic,
        Relaxed, //
    },
};

/// How many devices can have an account; a power of two.
const ACCOUNTS: usize = 128;
/// How many places are looked at for one of them.
const PROBES: usize = 32;
/// How many shards an account has.
const SHARDS: usize = 8;

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

/// A part of an account.
#[repr(align(64))]
struct Shard {
    in_flight: Atomic<i64>,
    reads: Atomic<u64>,
    bytes: Atomic<u64>,
    errors: Atomic<u64>,
    chosen: [Atomic<u64>; REASONS.len()],
}

/// The account of a device.
struct Entry {
    /// Its number, 0 if there is none: that is no block device's.
    device: Atomic<u32>,
    shards: [Shard; SHARDS],
}

static TABLE: [Entry; ACCOUNTS] = [const {
    Entry {
        device: Atomic::new(0),
        shards: [const {
            Shard {
                in_flight: Atomic::new(0),
                reads: Atomic::new(0),
                bytes: Atomic::new(0),
                errors: Atomic::new(0),
                chosen: [const { Atomic::new(0) }; REASONS.len()],
            }
        }; SHARDS],
    }
}; ACCOUNTS];

impl Entry {
    /// Returns the shard of this CPU, or of the one that the task was on a moment ago.
    fn shard(&self) -> &Shard {
        // CAST: Widening.
        let cpu = u32::from(CpuId::current()) as usize;
        &self.shards[cpu % SHARDS]
    }

    /// Adds up what the shards have of something.
    fn sum(&self, of: impl Fn(&Shard) -> u64) -> u64 {
        self.shards
            .iter()
            .fold(0, |sum, shard| sum.wrapping_add(of(shard)))
    }

    fn in_flight(&self) -> u64 {
        let sum = self
            .shards
            .iter()
            .fold(0i64, |sum, s| sum.wrapping_add(s.in_flight.load(Relaxed)));
        // Not a snapshot, so it may be off for a moment.
        u64::try_from(sum).unwrap_or(0)
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
pub(crate) struct Account(Option<&'static Entry>);

impl Account {
    /// Finds the account of a device by its number, or opens one.
    pub(in crate::safe) fn of(device: u32) -> Self {
        let first = place(device);
        for probe in 0..PROBES {
            let entry = &TABLE[first.wrapping_add(probe) % ACCOUNTS];
            let number = entry.device.load(Relaxed);
            let is_it = number == device
                || number == 0
                    && match entry.device.cmpxchg(0, device, Relaxed) {
                        Ok(_) => true,
                        Err(other) => other == device,
                    };
            if is_it {
                return Self(Some(entry));
            }
        }
        Self(None)
    }

    /// Returns how many bytes are in flight, if that is known.
    pub(crate) fn in_flight(self) -> Option<u64> {
        self.0.map(Entry::in_flight)
    }

    /// Adds to what is in flight, in bytes: by callers a length, far from 2^63.
    fn note(self, bytes: i64) {
        if let Some(entry) = self.0 {
            entry.shard().in_flight.add(bytes, Relaxed);
        }
    }

    /// Counts `bytes` as in flight, as long as the charge exists, for a device that was chosen for
    /// a reason.
    pub(crate) fn charge(self, bytes: usize, why: Why) -> Charge {
        if let Some(entry) = self.0 {
            // CAST: Widening; far from 2^63.
            let shard = entry.shard();
            shard.in_flight.add(bytes as i64, Relaxed);
            shard.chosen[why as usize].add(1u64, Relaxed);
        }
        Charge {
            account: self,
            bytes,
        }
    }
}

/// Bytes in flight to a device.
pub(crate) struct Charge {
    account: Account,
    bytes: usize,
}

impl Charge {
    /// Makes one of nothing, for no device.
    pub(super) fn none() -> Self {
        Self {
            account: Account(None),
            bytes: 0,
        }
    }

    /// Adds what goes along.
    pub(crate) fn grow(&mut self, bytes: usize) {
        self.account.note(bytes as i64);
        self.bytes = self.bytes.saturating_add(bytes);
    }

    /// Takes a part of it out: at most all of it.
    pub(crate) fn split(&mut self, bytes: usize) -> Self {
        let bytes = bytes.min(self.bytes);
        self.bytes = self.bytes.saturating_sub(bytes);
        Self {
            account: self.account,
            bytes,
        }
    }

    /// Ends it, as the read of a bio that has ended.
    pub(super) fn ended(self, succeeded: bool) {
        let Some(entry) = self.account.0 else {
            return;
        };
        let shard = entry.shard();
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
        if self.bytes > 0 {
            self.account.note((self.bytes as i64).wrapping_neg());
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
    entry: &'static Entry,
}

impl Statement {
    /// Returns how often the device was chosen, by reason.
    pub(crate) fn chosen(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        REASONS.iter().map(|(why, name)| {
            let times = self
                .entry
                .sum(|shard| shard.chosen[*why as usize].load(Relaxed));
            (*name, times)
        })
    }
}

/// Returns what all accounts say.
pub(crate) fn statements() -> impl Iterator<Item = Statement> {
    let used = TABLE.iter().filter(|entry| entry.device.load(Relaxed) != 0);
    used.map(|entry| Statement {
        device: entry.device.load(Relaxed),
        reads: entry.sum(|shard| shard.reads.load(Relaxed)),
        bytes: entry.sum(|shard| shard.bytes.load(Relaxed)),
        errors: entry.sum(|shard| shard.errors.load(Relaxed)),
        in_flight: entry.in_flight(),
        entry,
    })
}
