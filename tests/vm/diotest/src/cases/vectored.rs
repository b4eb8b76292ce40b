// SPDX-License-Identifier: GPL-2.0

//! Reads into every sort of memory: many vectors, one buffer named twice, huge
//! pages, pages of files (also of the file being read), memory that cannot be
//! written, and none of the reader's at all (sendfile, splice).

use super::Case;
use crate::buffer::{BLOCK, POISON, Region, first_difference};
use crate::env::{Env, skip};
use crate::fs::{Csum, Fs, Spec};
use crate::model::Model;
use crate::module;
use crate::read::{Request, Via};
use crate::stats::Stats;
use crate::subject::Subject;
use crate::sys;
use anyhow::{Result, bail, ensure};
use rand::RngExt;
use std::fs::File;
use std::io::{Read, Seek};
use std::os::fd::AsRawFd;

/// Size of the file that is read.
const SIZE: usize = 2 << 20;

pub fn cases(_: &Env) -> Vec<Case> {
    vec![
        Case::new("many", |env| with_file(env, many)),
        Case::new("empty_vectors", |env| with_file(env, empty_vectors)),
        Case::new("same_buffer", |env| with_file(env, same_buffer)),
        Case::new("transparent_huge", |env| with_file(env, transparent_huge)),
        Case::new("hugetlb", |env| with_file(env, hugetlb)),
        Case::new("other_file", |env| with_file(env, other_file)),
        Case::new("same_file", |env| with_file(env, same_file)),
        Case::new("same_range", |env| with_file(env, same_range)),
        Case::new("unwritable", |env| with_file(env, unwritable)),
        Case::new("sendfile", |env| with_file(env, sendfile)),
        Case::new("splice", |env| with_file(env, splice)),
    ]
}

/// Makes a plain file with a hole and gives it to `f`, uncached.
fn with_file(env: &Env, f: fn(&Env, &Subject<'_>) -> Result<()>) -> Result<()> {
    let mut fs = Fs::make(env, &Spec::new("raid1", Csum::Crc32c))?;
    let mut rng = env.rng(0);
    let mut file = Model::create(fs.path("file"))?;
    file.write_random(&mut rng, 0, SIZE)?;
    file.punch(1 << 20, 5 * BLOCK as u64)?;
    file.sync()?;
    fs.remount()?;
    let subject = Subject::open(env, &file)?;
    f(env, &subject)
}

fn many(env: &Env, subject: &Subject<'_>) -> Result<()> {
    let mut rng = env.rng(1);
    for count in [2, 8, 9, 64, 255, 256, 257, 512] {
        let offset = rng.random_range(0..20) * BLOCK as u64;
        subject.read(&Request::preadv(offset, vec![BLOCK; count]))?;
        let lens = (0..count)
            .map(|_| rng.random_range(1..=3) * BLOCK)
            .collect();
        subject.read(&Request::preadv(offset, lens).via(Via::Readv))?;
    }
    subject.read(&Request::preadv(0, vec![BLOCK; 1024]))?;
    let request = Request::preadv(0, vec![BLOCK; 1025]);
    let (outcome, _) = subject.observe(&request)?;
    let errno = outcome.result.err().and_then(|e| e.raw_os_error());
    ensure!(errno == Some(libc::EINVAL), "1025 vectors: {errno:?}");
    Ok(())
}

fn empty_vectors(_: &Env, subject: &Subject<'_>) -> Result<()> {
    for lens in [[0, 1, 0, 0, 2, 0], [1, 0, 0, 0, 0, 1], [0, 0, 0, 0, 0, 3]] {
        let lens = lens.map(|blocks| blocks * BLOCK).to_vec();
        subject.read(&Request::preadv(8192, lens))?;
    }
    subject.expect(
        &Request::preadv(0, vec![0, 0]),
        crate::subject::Expect::Anyone,
    )
}

/// Reads `iov` at `offset`, and demands a full count and that it was served.
fn full(subject: &Subject<'_>, iov: &[libc::iovec], offset: u64) -> Result<()> {
    let total: usize = iov.iter().map(|v| v.iov_len).sum();
    let before = counters(subject.env)?;
    let count = sys::preadv(subject.direct.as_raw_fd(), iov, offset as i64, 0)?;
    ensure!(count == total, "offset={offset}: {count} of {total}");
    served(subject.env, before.as_ref())
}

fn counters(env: &Env) -> Result<Option<Stats>> {
    env.module.then(Stats::read).transpose()
}

/// Demands that something was served since `before`, and nothing declined.
fn served(env: &Env, before: Option<&Stats>) -> Result<()> {
    let (Some(before), Some(now)) = (before, counters(env)?) else {
        return Ok(());
    };
    let moved = now.since(before);
    let good = moved.get("reads") > 0 && moved.get("declined") == 0;
    ensure!(good, "not served directly: {moved}");
    Ok(())
}

/// Demands that `region` holds the file's bytes at `offset`.
fn holds(subject: &Subject<'_>, bytes: &[u8], offset: usize) -> Result<()> {
    let want = &subject.model.data[offset..offset + bytes.len()];
    match first_difference(bytes, want) {
        Some(at) => bail!("offset={offset} length={}: differs at +{at}", bytes.len()),
        None => Ok(()),
    }
}

/// One buffer named by several vectors gets the bytes of one of them, and the
/// vector between them gets its own. Mainline declines to do this directly.
fn same_buffer(_: &Env, subject: &Subject<'_>) -> Result<()> {
    let region = Region::new(4 * BLOCK)?;
    let twice = region.iovec(0..BLOCK);
    let iov = [twice, region.iovec(2 * BLOCK..3 * BLOCK), twice];
    let fd = subject.direct.as_raw_fd();
    let result = sys::preadv(fd, &iov, 0, 0);
    // Two blocks land in one place: a checksum of one of them may be taken of
    // the other, and only then is there a reason not to deliver.
    ensure!(
        matches!(result, Ok(count) if count == 3 * BLOCK),
        "{result:?}"
    );
    let bytes = region.bytes();
    if holds(subject, &bytes[..BLOCK], 0).is_err() {
        holds(subject, &bytes[..BLOCK], 2 * BLOCK)?;
    }
    holds(subject, &bytes[2 * BLOCK..3 * BLOCK], BLOCK)?;
    ensure!(
        bytes[BLOCK..2 * BLOCK].iter().all(|&b| b == POISON),
        "touched between"
    );
    Ok(())
}

fn into_large(subject: &Subject<'_>, region: &Region) -> Result<()> {
    full(subject, &[region.iovec(0..SIZE)], 0)?;
    holds(subject, &region.bytes()[..SIZE], 0)?;
    // Across the boundary of two huge pages, backwards.
    let middle = 2 << 20;
    let iov = [
        region.iovec(middle..middle + 64 * BLOCK),
        region.iovec(middle - 64 * BLOCK..middle),
    ];
    full(subject, &iov, 40_960)?;
    holds(
        subject,
        &region.bytes()[middle..middle + 64 * BLOCK],
        40_960,
    )?;
    let second = 40_960 + 64 * BLOCK;
    holds(
        subject,
        &region.bytes()[middle - 64 * BLOCK..middle],
        second,
    )
}

fn transparent_huge(_: &Env, subject: &Subject<'_>) -> Result<()> {
    into_large(subject, &Region::transparent(8 << 20)?)
}

fn hugetlb(_: &Env, subject: &Subject<'_>) -> Result<()> {
    let knob = "/proc/sys/vm/nr_hugepages";
    std::fs::write(knob, "4").map_err(|e| skip(format!("{knob}: {e}")))?;
    let result = match Region::hugetlb(4 << 20) {
        Ok(region) => into_large(subject, &region),
        Err(e) => Err(skip(format!("no huge pages: {e}"))),
    };
    std::fs::write(knob, "0")?;
    result
}

/// Into a mapping of another file, which then holds the bytes.
fn other_file(_: &Env, subject: &Subject<'_>) -> Result<()> {
    let path = subject.model.path.with_file_name("target");
    let target = File::create_new(&path)?;
    drop(target);
    let target = File::options().read(true).write(true).open(&path)?;
    target.set_len(1 << 20)?;
    let region = Region::of_file(&target, 1 << 20)?;
    full(subject, &[region.iovec(0..1 << 20)], 65_536)?;
    holds(subject, region.bytes(), 65_536)?;
    drop(region);
    target.sync_all()?;
    holds(subject, &std::fs::read(&path)?, 65_536)
}

/// Into a mapping of another part of the file being read.
fn same_file(_: &Env, subject: &Subject<'_>) -> Result<()> {
    let file = subject.model.file()?;
    let region = Region::of_file(&file, SIZE)?;
    let len = 16 * BLOCK;
    let iov = [region.iovec(len..2 * len)];
    let count = sys::preadv(subject.direct.as_raw_fd(), &iov, 0, 0)?;
    ensure!(count == len, "{count} of {len}");
    holds(subject, &region.bytes()[len..2 * len], 0)?;
    file.sync_all()?;
    let bytes = std::fs::read(&subject.model.path)?;
    holds(subject, &bytes[len..2 * len], 0)?;
    holds(subject, &bytes[2 * len..], 2 * len)
}

/// Into a mapping of the very range being read: nothing may change or hang.
fn same_range(_: &Env, subject: &Subject<'_>) -> Result<()> {
    let file = subject.model.file()?;
    let region = Region::of_file(&file, SIZE)?;
    for (start, end) in [(0, 16), (3, 4), (100, 300)] {
        let range = start * BLOCK..end * BLOCK;
        let iov = [region.iovec(range.clone())];
        let count = sys::preadv(subject.direct.as_raw_fd(), &iov, range.start as i64, 0)?;
        ensure!(count == range.len(), "{count} of {}", range.len());
        // Shifted by a block: each page is a source and a target.
        holds(subject, region.bytes(), 0)?;
    }
    file.sync_all()?;
    holds(subject, &std::fs::read(&subject.model.path)?, 0)
}

/// What a read into partly unwritable memory came to.
#[derive(Debug, PartialEq, Eq)]
struct Came {
    result: Result<usize, Option<i32>>,
    right: bool,
}

/// Memory that cannot be written at all, at its start, in its middle or at its
/// end: the module's reader gets what mainline's gets.
fn unwritable(env: &Env, subject: &Subject<'_>) -> Result<()> {
    let with = unwritable_reads(subject)?;
    let without = module::without(env, || unwritable_reads(subject))?;
    for ((what, with), (_, without)) in with.iter().zip(&without) {
        ensure!(with.right && without.right, "{what}: delivered wrong bytes");
        ensure!(with == without, "{what}: {with:?}, mainline {without:?}");
    }
    Ok(())
}

fn unwritable_reads(subject: &Subject<'_>) -> Result<Vec<(String, Came)>> {
    let mut all = Vec::new();
    let blocks = 16;
    for prot in [libc::PROT_READ, libc::PROT_NONE] {
        for bad in [0..16, 0..1, 7..9, 15..16] {
            for vectors in [1, 2] {
                let mut region = Region::new(blocks * BLOCK)?;
                let range = bad.start * BLOCK..bad.end * BLOCK;
                region.protect(range.clone(), prot)?;
                let step = blocks / vectors * BLOCK;
                let iov: Vec<_> = (0..vectors)
                    .map(|i| region.iovec(i * step..(i + 1) * step))
                    .collect();
                let result = sys::preadv(subject.direct.as_raw_fd(), &iov, 0, 0);
                region.protect(range.clone(), libc::PROT_READ | libc::PROT_WRITE)?;
                let count = *result.as_ref().unwrap_or(&0);
                let right = holds(subject, &region.bytes()[..count], 0).is_ok()
                    && region.bytes()[range].iter().all(|&b| b == POISON);
                let what = format!("blocks={blocks} vectors={vectors} prot={prot} bad={bad:?}");
                let result = result.map_err(|e| e.raw_os_error());
                all.push((what, Came { result, right }));
            }
        }
    }
    Ok(all)
}

/// To a file, by sendfile(2): the kernel reads into pages of its own.
fn sendfile(env: &Env, subject: &Subject<'_>) -> Result<()> {
    let path = std::env::temp_dir().join("diotest.sendfile");
    let mut out = File::options()
        .create(true)
        .truncate(true)
        .read(true)
        .write(true)
        .open(&path)?;
    let before = counters(env)?;
    let mut done = 0;
    while done < SIZE {
        let input = subject.direct.as_raw_fd();
        let count = sys::sendfile(out.as_raw_fd(), input, done as u64, SIZE - done)?;
        ensure!(count > 0, "sendfile: nothing at {done}");
        done += count;
    }
    all_served(env, before.as_ref())?;
    out.rewind()?;
    let mut bytes = Vec::new();
    out.read_to_end(&mut bytes)?;
    std::fs::remove_file(&path)?;
    ensure!(bytes.len() == SIZE, "{} of {SIZE}", bytes.len());
    holds(subject, &bytes, 0)
}

/// Into a pipe, by splice(2).
fn splice(env: &Env, subject: &Subject<'_>) -> Result<()> {
    let (mut reader, writer) = sys::pipe()?;
    let before = counters(env)?;
    let mut at = 0;
    while at < SIZE {
        let len = 16 * BLOCK;
        let input = subject.direct.as_raw_fd();
        let count = sys::splice(input, at as u64, writer.as_raw_fd(), len)?;
        ensure!(count > 0, "splice: nothing at {at}");
        let mut bytes = vec![0; count];
        reader.read_exact(&mut bytes)?;
        holds(subject, &bytes, at)?;
        at += count;
    }
    all_served(env, before.as_ref())
}

/// All that was read since `before` was read by the module.
fn all_served(env: &Env, before: Option<&Stats>) -> Result<()> {
    let (Some(before), Some(now)) = (before, counters(env)?) else {
        return Ok(());
    };
    let moved = now.since(before);
    let good = moved.get("declined") + moved.trouble() == 0 && moved.get("bytes") == SIZE as u64;
    ensure!(good, "not served, or not all of it: {moved}");
    Ok(())
}
