// SPDX-License-Identifier: GPL-2.0

//! Reads that nobody means well with: whatever the unmodified path answers to
//! them, the reader gets that answer, and those bytes.

use super::Case;
use crate::aio::{self, Engine};
use crate::buffer::{BLOCK, POISON, Region, first_difference};
use crate::env::Env;
use crate::fs::{Csum, Fs, Spec};
use crate::model::{self, Model};
use crate::module;
use crate::packed;
use crate::read::Via;
use crate::sys;
use anyhow::{Result, ensure};
use rand::RngExt;
use std::fs::File;
use std::ops::Range;
use std::os::fd::AsRawFd;

/// Size of the file: the last block is not full.
const SIZE: usize = (560 << 10) + 1000;
const UNIT: usize = 512;

pub fn cases(_: &Env) -> Vec<Case> {
    vec![
        Case::new("plain", |env| {
            compare(env, &Spec::new("raid1", Csum::Crc32c))
        }),
        Case::new("nodatasum", |env| {
            compare(env, &Spec::new("single", Csum::NoDataSum))
        }),
        Case::new("compressed", |env| {
            compare(env, &packed::spec("single", Csum::Crc32c, "lzo"))
        }),
        Case::new("inline", inline),
    ]
}

/// A vector: of the memory, or of addresses that nobody should name.
#[derive(Clone, Copy)]
enum Part {
    Memory(usize, usize),
    Address(usize, usize),
}
use Part::{Address, Memory};

/// A read.
struct Hostile {
    what: String,
    offset: u64,
    parts: Vec<Part>,
    /// Memory that is not there, or may not be written.
    bad: Option<(Range<usize>, i32)>,
    vias: &'static [Via],
}

const ALL: &[Via] = &[
    Via::Preadv,
    Via::Async(Engine::Libaio),
    Via::Async(Engine::Uring),
];

impl Hostile {
    fn new(what: impl Into<String>, offset: u64, parts: Vec<Part>) -> Self {
        Self {
            what: what.into(),
            offset,
            parts,
            bad: None,
            vias: ALL,
        }
    }

    fn bad(mut self, range: Range<usize>, prot: i32) -> Self {
        self.bad = Some((range, prot));
        self
    }

    /// How much memory it is about.
    fn room(&self) -> usize {
        let end = |part: &Part| match *part {
            Memory(start, len) if len <= SIZE => start + len,
            _ => 0,
        };
        let end = self.parts.iter().map(end).max().unwrap_or(0);
        let bad = self.bad.as_ref().map_or(0, |(range, _)| range.end);
        end.max(bad).next_multiple_of(BLOCK) + BLOCK
    }

    fn only(mut self, vias: &'static [Via]) -> Self {
        self.vias = vias;
        self
    }
}

/// `count` vectors of `len` bytes, one after the other.
fn row(count: usize, len: usize, start: usize) -> Vec<Part> {
    (0..count).map(|i| Memory(start + i * len, len)).collect()
}

/// Every one there is.
fn all(env: &Env) -> Vec<Hostile> {
    let mut list = vec![
        Hostile::new("nothing", 0, vec![Memory(0, 0)]),
        Hostile::new("nothing twice", 4096, vec![Memory(0, 0), Memory(0, 0)]),
        Hostile::new("nothing at an odd offset", 77, vec![Memory(0, 0)]),
        Hostile::new("1024 times nothing", 0, row(1024, 0, 0)),
        Hostile::new("1024 sectors", 0, row(1024, UNIT, 0)),
        Hostile::new("1024 sectors, apart", 512, row(1024, UNIT, UNIT)),
        Hostile::new("1025 vectors", 0, row(1025, UNIT, 0)),
    ];
    let between = vec![
        Memory(0, 0),
        Memory(0, BLOCK),
        Memory(77, 0),
        Memory(BLOCK, UNIT),
        Memory(0, 0),
        Memory(BLOCK + UNIT, 3 * UNIT),
        Address(0, 0),
    ];
    list.push(Hostile::new("nothing between", 0, between));
    list.push(Hostile::new(
        "nothing, at no address",
        0,
        vec![Address(usize::MAX, 0)],
    ));
    // Memory that is missing, in whole and in parts of vectors.
    for prot in [libc::PROT_NONE, libc::PROT_READ] {
        for (name, parts) in [
            ("one vector", row(1, 64 * BLOCK, 0)),
            ("sectors", row(512, UNIT, 0)),
            ("vectors apart", row(40, 3 * UNIT, UNIT)),
        ] {
            for bad in [0..1, 7..8, 3..5, 14..15] {
                let range = bad.start * BLOCK..bad.end * BLOCK;
                let what = format!("{name}, prot {prot} at pages {bad:?}");
                list.push(Hostile::new(what, 0, parts.clone()).bad(range, prot));
            }
        }
    }
    // The same memory more than once.
    let same = vec![Memory(0, BLOCK); 16];
    list.push(Hostile::new("one page 16 times", 0, same));
    list.push(Hostile::new(
        "one sector 1024 times",
        0,
        vec![Memory(UNIT, UNIT); 1024],
    ));
    let overlapping = (0..16).map(|i| Memory(i * UNIT, BLOCK)).collect();
    list.push(Hostile::new("pages that overlap", 0, overlapping));
    // Places that no file has.
    const END: u64 = i64::MAX as u64;
    for offset in [
        SIZE as u64,
        SIZE as u64 - 1,
        1 << 40,
        1 << 62,
        END,
        END - 1,
        END - 511,
        END - 4095,
        END - 8191,
        END + 1,
        u64::MAX - 1,
        u64::MAX - 4095,
    ] {
        for len in [UNIT, BLOCK, 2 * BLOCK] {
            let parts = vec![Memory(0, len)];
            list.push(Hostile::new(format!("{len} bytes far off"), offset, parts));
        }
    }
    // Lengths that nobody has memory for: the file ends before it does.
    const LONG: usize = 2 << 30;
    let first = vec![Memory(0, BLOCK), Address(0, LONG)];
    for (what, parts) in [
        ("no address", vec![Address(0, BLOCK)]),
        ("the kernel's", vec![Address(0xffff_8880_0000_0000, BLOCK)]),
        ("on the edge", vec![Address(0x7fff_ffff_f000, 2 * BLOCK)]),
        ("behind the first", first),
        ("wraps", vec![Address(usize::MAX - 4095, 2 * BLOCK)]),
        ("negative", vec![Memory(0, usize::MAX)]),
        (
            "negative sum",
            vec![Memory(0, BLOCK), Memory(0, isize::MAX as usize)],
        ),
    ] {
        let what = format!("address: {what}");
        // io_uring has no more than 32 bits for the length of one.
        list.push(Hostile::new(what, 0, parts).only(&[Via::Preadv]));
    }
    // What is a multiple of nothing.
    let mut rng = env.rng(3);
    for unit in [1, 2, 4, 8, 64, 256] {
        for which in 1..8 {
            let mut odd = |bit: u32| match which & bit {
                0 => 0,
                _ => (rng.random_range(0..256 / unit) * 2 + 1) * unit,
            };
            let (offset, len, shift) = (odd(1) as u64, odd(2), odd(4));
            let what = format!("multiples of {unit}");
            let parts = vec![Memory(shift, 5 * BLOCK + len)];
            list.push(Hostile::new(what, 3 * 4096 + offset, parts));
        }
    }
    let mixed = vec![
        Memory(0, BLOCK),
        Memory(BLOCK, 100),
        Memory(2 * BLOCK, BLOCK - 100),
    ];
    list.push(Hostile::new("one odd vector", 0, mixed));
    list
}

/// What a read came to.
#[derive(Debug, PartialEq, Eq)]
struct Came {
    result: Result<usize, Option<i32>>,
    right: bool,
}

fn attempt(file: &Model, direct: &File, read: &Hostile, via: Via) -> Result<Came> {
    let mut memory = Region::new(read.room())?;
    let base = memory.iovec(0..0).iov_base as usize;
    let vector = |part: &Part| {
        let (start, len) = match *part {
            Memory(start, len) => (base + start, len),
            Address(start, len) => (start, len),
        };
        libc::iovec {
            iov_base: start as *mut _,
            iov_len: len,
        }
    };
    let iov: Vec<_> = read.parts.iter().map(vector).collect();
    if let Some((range, prot)) = &read.bad {
        memory.protect(range.clone(), *prot)?;
    }
    let result = match via {
        Via::Async(engine) => aio::read(engine, direct, &iov, read.offset),
        _ => sys::preadv(direct.as_raw_fd(), &iov, read.offset as i64, 0),
    };
    if let Some((range, _)) = &read.bad {
        memory.protect(range.clone(), libc::PROT_READ | libc::PROT_WRITE)?;
    }
    let count = *result.as_ref().unwrap_or(&0);
    Ok(Came {
        right: right(file, &memory, read, count),
        result: result.map_err(|e| e.raw_os_error()),
    })
}

/// Whether the bytes that were returned are right, where that can be said, and
/// memory that may not be written was not.
fn right(file: &Model, memory: &Region, read: &Hostile, count: usize) -> bool {
    if let Some((range, _)) = &read.bad {
        if memory.part(range.clone()).iter().any(|&b| b != POISON) {
            return false;
        }
    }
    let (mut left, mut at) = (count, read.offset as usize);
    let mut seen = Vec::new();
    for part in &read.parts {
        let &Memory(start, len) = part else { break };
        let len = len.min(left);
        let again = |s: &(usize, usize)| start < s.1 && s.0 < start + len;
        // Which bytes stay where there are several, is nobody's promise.
        if len == 0 || seen.iter().any(again) {
            break;
        }
        seen.push((start, start + len));
        let Some(want) = file.data.get(at..at + len) else {
            return false;
        };
        // A later vector may have stored here.
        let alone = read.parts.iter().filter(
            |p| matches!(p, Memory(s, l) if *s < start + len && start < s.saturating_add(*l)),
        );
        if alone.count() == 1 && first_difference(memory.part(start..start + len), want).is_some() {
            return false;
        }
        (left, at) = (left - len, at + len);
    }
    true
}

fn attempts(env: &Env, file: &Model) -> Result<Vec<(String, Came)>> {
    let direct = model::open_direct(&file.path)?;
    let mut came = Vec::new();
    for read in all(env) {
        for &via in read.vias {
            let what = format!("{} offset={} via={via:?}", read.what, read.offset);
            let result = attempt(file, &direct, &read, via)?;
            came.push((what, result));
        }
    }
    Ok(came)
}

/// Tries it all with the module and without.
fn both(env: &Env, file: &Model) -> Result<()> {
    sys::drop_pages(&file.file()?)?;
    let with = attempts(env, file)?;
    let without = module::without(env, || attempts(env, file))?;
    let failed = with.iter().filter(|(_, came)| came.result.is_err()).count();
    eprintln!("# {}: {} reads, {failed} failed", env.case, with.len());
    let mut differences = Vec::new();
    for ((what, with), (_, without)) in with.iter().zip(&without) {
        ensure!(
            without.right,
            "{what}: mainline delivered wrong bytes: {without:?}"
        );
        if with != without {
            differences.push(format!("{what}: {with:?}, mainline {without:?}"));
        }
    }
    ensure!(differences.is_empty(), "{}", differences.join("\n"));
    file.cross_check()
}

fn compare(env: &Env, spec: &Spec) -> Result<()> {
    let mut fs = Fs::make(env, spec)?;
    let mut rng = env.rng(0);
    let mut file = Model::create(fs.path("file"))?;
    let bytes = match spec.options.is_empty() {
        true => model::random(&mut rng, SIZE),
        false => model::compressible(&mut rng, SIZE),
    };
    file.write(0, &bytes)?;
    file.punch(6 * BLOCK as u64, 3 * BLOCK as u64)?;
    file.sync()?;
    fs.remount()?;
    both(env, &file)
}

fn inline(env: &Env) -> Result<()> {
    let mut fs = Fs::make(env, &packed::spec("single", Csum::Crc32c, "zstd"))?;
    let mut rng = env.rng(0);
    let mut file = Model::create(fs.path("file"))?;
    file.write(0, &model::compressible(&mut rng, 3000))?;
    file.sync()?;
    fs.remount()?;
    both(env, &file)
}
