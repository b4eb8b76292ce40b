// SPDX-License-Identifier: GPL-2.0

//! The tests' own judgement: what is wrong is found, what is right passes. A
//! test that cannot fail shows nothing.

use super::Case;
use crate::aio::Engine;
use crate::blocks::{Found, Version, identify};
use crate::buffer::{BLOCK, Buffers};
use crate::env::Env;
use crate::fiemap::{Extent, Kind, kinds};
use crate::read::{Request, Via};
use crate::shrink::shrink;
use crate::stats::Stats;
use crate::subject::{as_asked, declined, served};
use anyhow::{Result, ensure};
use std::time::{Duration, Instant};

pub fn cases(_: &Env) -> Vec<Case> {
    vec![
        Case::new("buffers", |_| buffers()),
        Case::new("counters", |_| counters()),
        Case::new("blocks", |_| blocks()),
        Case::new("kinds", |_| extent_kinds()),
        Case::new("shrink", |_| shrunk()),
    ]
}

/// Of a list that fails, what makes it fail is left, wherever that was.
fn shrunk() -> Result<()> {
    let far = Instant::now() + Duration::from_secs(600);
    let list: Vec<u32> = (0..130).collect();
    for culprits in [
        &[0][..],
        &[129],
        &[64, 65],
        &[0, 77, 129],
        &[3, 5, 8, 13, 21],
    ] {
        let fails = |list: &[u32]| culprits.iter().all(|c| list.contains(c));
        let least = shrink(&list, far, fails);
        ensure!(least == culprits, "{culprits:?}: left {least:?}");
    }
    ensure!(shrink(&list, far, |_| true).is_empty(), "something is left");
    let once = shrink(&list, Instant::now(), |_| true);
    ensure!(once == list, "something was tried after its time");
    Ok(())
}

/// A wrong byte, a byte too many or one outside is found wherever it is.
fn buffers() -> Result<()> {
    let lens = [BLOCK, 3 * BLOCK, BLOCK];
    let count = 4 * BLOCK + 100;
    let want: Vec<u8> = (0..count).map(|i| (i % 251) as u8).collect();
    let filled = || -> Result<Buffers> {
        let mut buffers = Buffers::new(&lens, 0)?;
        buffers.deliver(&want);
        Ok(buffers)
    };
    let slack = BLOCK - 100;
    ensure!(
        filled()?.verify(&want, slack).is_ok(),
        "right bytes were refused"
    );
    ensure!(filled()?.gathered(count) == want, "gathered something else");
    ensure!(
        filled()?.verify(&want[..count - 1], 0).is_err(),
        "a byte too many"
    );
    let outside = [BLOCK - 1, 2 * BLOCK, 3 * BLOCK - 1, 6 * BLOCK, 8 * BLOCK];
    let inside = [
        BLOCK,
        2 * BLOCK - 1,
        3 * BLOCK,
        6 * BLOCK - 1,
        7 * BLOCK + 99,
    ];
    for at in outside.into_iter().chain(inside) {
        let mut buffers = filled()?;
        buffers.spoil(at);
        ensure!(
            buffers.verify(&want, slack).is_err(),
            "missed a change at {at}"
        );
    }
    let mut buffers = filled()?;
    buffers.spoil(7 * BLOCK + 100);
    ensure!(
        buffers.verify(&want, slack).is_ok(),
        "the rest of the block is free"
    );
    ensure!(buffers.verify(&want, 0).is_err(), "without slack it is not");
    // Where a block ends in another buffer than the data in it.
    let mut buffers = Buffers::new(&[512, 512, BLOCK], 0)?;
    buffers.deliver(&want[..100]);
    buffers.spoil(3 * BLOCK);
    ensure!(
        buffers.verify(&want[..100], 924).is_ok(),
        "free in the next"
    );
    ensure!(
        buffers.verify(&want[..100], 412).is_err(),
        "not in the next"
    );
    buffers.spoil(5 * BLOCK);
    ensure!(buffers.verify(&want[..100], 924).is_err(), "nor after that");
    Ok(())
}

/// Nothing but one read of the right kinds passes for one that was served.
fn counters() -> Result<()> {
    let stats = |pairs: &[(&str, u64)]| Stats::of(pairs);
    let good = [("reads", 1), ("bytes", 4096), ("regular", 2), ("bios", 1)];
    let regular: Option<&[Kind]> = Some(&[Kind::Regular]);
    ensure!(
        served(&stats(&good), 4096, 1, regular).is_ok(),
        "good counters refused"
    );
    let with = |more: (&'static str, u64)| {
        let mut pairs = good.to_vec();
        pairs.retain(|(name, _)| *name != more.0);
        pairs.push(more);
        Stats::of(&pairs)
    };
    for wrong in [
        ("reads", 0),
        ("reads", 2),
        ("bytes", 8192),
        ("regular", 0),
        ("inline", 1),
        ("hole", 1),
        ("prealloc", 1),
        ("declined", 1),
        ("declined_busy", 1),
        ("csum_mismatches", 1),
        ("io_errors", 1),
        ("buffer_changed", 1),
        ("reread", 1),
        ("recovered", 1),
        ("lost", 1),
    ] {
        ensure!(
            served(&with(wrong), 4096, 1, regular).is_err(),
            "{wrong:?} passed"
        );
    }
    ensure!(
        served(&with(("reads", 2)), 4096, 2, regular).is_ok(),
        "two reads where there may be two refused"
    );
    let waits = Request::pread(0, BLOCK);
    let queues = waits.clone().via(Via::Async(Engine::Libaio));
    let tries = waits.clone().via(Via::Async(Engine::Uring));
    let apart = waits.clone().jitter(&mut Env::default().rng(0), 512);
    let asked = |more, request| as_asked(&with(more), request, regular).is_ok();
    ensure!(asked(("io_errors", 0), &waits), "who waits refused");
    ensure!(asked(("queued", 1), &queues), "who does not wait refused");
    ensure!(!asked(("queued", 1), &waits), "who waits was queued");
    ensure!(!asked(("queued", 0), &queues), "who does not wait waited");
    ensure!(!asked(("queued", 2), &queues), "queued twice");
    ensure!(!asked(("would_wait", 1), &waits), "EAGAIN who waits");
    ensure!(
        as_asked(
            &Stats::of(&[("queued", 1), ("would_wait", 1)]),
            &tries,
            regular
        )
        .is_ok(),
        "who tries first refused"
    );
    ensure!(!asked(("bounced", 1), &waits), "bounced whole blocks");
    ensure!(asked(("bounced", 1), &apart), "bounced parts refused");
    let left = [("declined", 1), ("declined_verity", 1)];
    ensure!(
        declined(&stats(&left), "verity").is_ok(),
        "a good reason refused"
    );
    ensure!(
        declined(&stats(&left), "async").is_err(),
        "the wrong reason passed"
    );
    ensure!(declined(&stats(&[]), "verity").is_err(), "no reason passed");
    ensure!(
        declined(&stats(&good), "verity").is_err(),
        "a served read passed"
    );
    Ok(())
}

/// Blocks of another place, file or version, and torn ones, are told apart.
fn blocks() -> Result<()> {
    let version = |file, block, version| Version {
        file,
        block,
        version,
    };
    let mut bytes = vec![0; BLOCK];
    ensure!(identify(&bytes, 1, 2) == Found::Zeros, "zeros");
    version(1, 2, 5).fill(&mut bytes);
    ensure!(identify(&bytes, 1, 2) == Found::Whole(5), "whole");
    ensure!(identify(&bytes, 1, 3) == Found::Wrong(1), "another block's");
    ensure!(identify(&bytes, 2, 2) == Found::Wrong(0), "another file's");
    let mut other = vec![0; BLOCK];
    version(1, 2, 7).fill(&mut other);
    let mut torn = bytes.clone();
    torn[2048..].copy_from_slice(&other[2048..]);
    ensure!(identify(&torn, 1, 2) == Found::Wrong(256), "torn");
    torn[2048..].fill(0);
    ensure!(identify(&torn, 1, 2) == Found::Cut(5), "cut");
    ensure!(identify(&bytes[..16], 1, 2) == Found::Short, "short");
    torn[16..].fill(0);
    ensure!(identify(&torn, 1, 2) == Found::Stub, "cut behind two words");
    torn[8..].fill(0);
    ensure!(identify(&torn, 1, 2) == Found::Stub, "cut behind one word");
    Ok(())
}

/// Gaps are holes, and an inline extent is its whole block.
fn extent_kinds() -> Result<()> {
    let extent = |offset, len, kind| Extent {
        offset,
        len,
        logical: 0,
        kind,
        encoded: false,
    };
    let extents = [
        extent(0, 8192, Kind::Regular),
        extent(16_384, 4096, Kind::Prealloc),
    ];
    let cases: [(u64, u64, &[Kind]); 5] = [
        (0, 8192, &[Kind::Regular]),
        (4096, 12_288, &[Kind::Regular, Kind::Hole]),
        (8192, 16_384, &[Kind::Hole]),
        (0, 20_480, &[Kind::Regular, Kind::Hole, Kind::Prealloc]),
        (16_384, 40_960, &[Kind::Hole, Kind::Prealloc]),
    ];
    for (start, end, want) in cases {
        let found = kinds(&extents, start, end);
        ensure!(found == want, "{start}..{end}: {found:?}, not {want:?}");
    }
    let inline = [extent(0, 100, Kind::Inline)];
    ensure!(kinds(&inline, 0, 4096) == [Kind::Inline], "inline");
    Ok(())
}
