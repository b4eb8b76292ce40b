// SPDX-License-Identifier: GPL-2.0

//! Compressed extents that were tampered with, and no checksum to tell: all
//! that can be wrong with a stream is met by the decoder itself. It says so, or
//! delivers what the unmodified path would, and the kernel has nothing to say.

use super::Case;
use crate::buffer::BLOCK;
use crate::chunks::{Chunks, Place};
use crate::device;
use crate::env::Env;
use crate::fs::{Csum, Fs};
use crate::model::{self, Model};
use crate::packed;
use crate::read::Request;
use crate::stats::Stats;
use crate::sys;
use crate::tree;
use anyhow::{Context, Result, anyhow, ensure};
use rand::{Rng, RngExt, rngs::SmallRng};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

/// Extents that are tampered with at a time.
const BATCH: usize = 512;

pub fn cases(_: &Env) -> Vec<Case> {
    let case = |algorithm: &'static str| Case::new(algorithm, move |env| mutated(env, algorithm));
    let cut = |algorithm: &'static str| {
        Case::new(format!("cut-{algorithm}"), move |env| cut(env, algorithm))
    };
    // A frame of zstd is one block: there is no part of it.
    let cuts = ["zlib", "lzo"].map(cut);
    packed::ALGORITHMS
        .into_iter()
        .map(case)
        .chain(cuts)
        .chain([Case::new("window", window)])
        .collect()
}

/// What btrfs stores of `bytes`, which become one compressed extent.
fn compressed(fs: &Fs, bytes: &[u8]) -> Result<Vec<u8>> {
    let mut file = Model::create(fs.path("whole"))?;
    file.write(0, bytes)?;
    file.sync()?;
    fs.sync()?;
    let extents = tree::packed(&File::open(&file.path)?)?;
    let extent = extents.first().context("not compressed")?;
    let chunks = Chunks::read(&fs.mnt)?;
    let place = *chunks.copies(extent.logical)?.first().context("no copy")?;
    device::read(fs, &place, extent.stored as usize)
}

/// A zlib stream that says that its window has 256 bytes, and refers to 3 KiB before, in a match
/// that the end of the first block cuts. btrfs decompresses block by block, and cannot go on; the
/// module can where the memory of both is one piece. The kernel once crashed.
fn window(env: &Env) -> Result<()> {
    const SMALLEST: [u8; 2] = [0x08, 0x1d];
    let fs = Fs::make(env, &packed::spec("single", Csum::Crc32c, "zlib"))?;
    let len = 32 * BLOCK;
    // Less than a block of input: where that ends, so does what btrfs has decompressed at once.
    let mut bytes = model::random(&mut env.rng(0), 3300);
    bytes.resize(BLOCK - 96, 0);
    bytes.extend_from_within(BLOCK - 3196..BLOCK - 2946);
    bytes.resize(len, 0);
    let mut stored = compressed(&fs, &bytes)?;
    let header = stored.first_chunk_mut().context("no header")?;
    ensure!(*header != SMALLEST, "nothing to change");
    *header = SMALLEST;
    let path = fs.path("window");
    packed::write_encoded(&File::create_new(&path)?, "zlib", &stored, len)?;
    fs.sync()?;
    let direct = model::open_direct(&path)?;
    let before = Stats::look(env)?;
    let mut refused = 0;
    for lens in [vec![len], vec![BLOCK; 32], vec![512; 256]] {
        // Not next to each other.
        let request = Request::preadv(0, lens).shift(512);
        let outcome = request.perform(&direct)?;
        match outcome.result {
            Err(ref e) if e.raw_os_error() == Some(libc::EIO) => refused += 1,
            _ => {
                let verdict = outcome.verify(&request, &bytes, true);
                verdict.map_err(|why| anyhow!("{request}: {why}"))?;
            }
        }
    }
    Stats::all_served(before.as_ref())?;
    sys::drop_caches()?;
    let got = buffered(&File::open(&path)?, BLOCK as u64, BLOCK);
    let errno = got.err().and_then(|e| e.raw_os_error());
    ensure!(errno == Some(libc::EIO), "btrfs: {errno:?}");
    eprintln!("# {}: {refused} of 3 direct reads refused", env.case);
    Ok(())
}

/// An extent whose stream ends too early, with the checksums of what is there:
/// what is in front of its end can be read, once and again, though not all of
/// the extent can be decompressed to be kept.
fn cut(env: &Env, algorithm: &str) -> Result<()> {
    let fs = Fs::make(env, &packed::spec("single", Csum::Crc32c, algorithm))?;
    let len = 32 * BLOCK;
    let bytes = model::uneven(&mut env.rng(0), len);
    let mut stored = compressed(&fs, &bytes)?;
    let half = stored.len() / 2;
    stored[half..].fill(0xff);
    let path = fs.path("cut");
    packed::write_encoded(&File::create_new(&path)?, algorithm, &stored, len)?;
    fs.sync()?;
    let direct = model::open_direct(&path)?;
    let before = Stats::look(env)?;
    for round in 0..4 {
        let request = Request::pread(0, BLOCK);
        let verdict = request
            .perform(&direct)?
            .verify(&request, &bytes[..BLOCK], true);
        verdict.map_err(|why| anyhow!("read {round} of what is there: {why}"))?;
    }
    Stats::all_served(before.as_ref()).map(drop)
}

/// An extent and its bytes on the device.
struct Stored {
    offset: u64,
    len: usize,
    place: Place,
    bytes: Vec<u8>,
}

fn mutated(env: &Env, algorithm: &str) -> Result<()> {
    let spec = packed::spec("single", Csum::Crc32c, algorithm);
    let mut fs = Fs::make(env, &spec)?;
    let mut rng = env.rng(0);
    let file = many_extents(&fs, &mut rng)?;
    let stored = find(&fs, &file)?;
    let lzo = algorithm == "lzo";
    let mut tally = Tally::default();
    for _ in 0..env.scaled(2) {
        fs.umount()?;
        for (i, extent) in stored.iter().enumerate() {
            let donor = &stored[(i + 1) % stored.len()].bytes;
            let mut bytes = extent.bytes.clone();
            // A few are left alone: they show that the others could be read.
            if i % 16 != 0 {
                mutate(&mut rng, &mut bytes, donor);
            }
            bytes.resize(extent.bytes.len(), 0);
            device::write(&fs, &extent.place, &bytes)?;
        }
        fs.spec.options = "ro,rescue=ignoredatacsums".into();
        fs.mount()?;
        for (i, extent) in stored.iter().enumerate() {
            judge(&file, extent, (i % 16 == 0, lzo), &mut rng, &mut tally)?;
        }
    }
    eprintln!("# {}: {tally:?}", env.case);
    ensure!(tally.refused > 0 && tally.delivered > 0, "{tally:?}");
    // By chance, not as a rule.
    ensure!(tally.lenient * 20 < tally.delivered, "{tally:?}");
    Ok(())
}

/// A file of many compressed extents of all sizes, with holes between.
fn many_extents(fs: &Fs, rng: &mut SmallRng) -> Result<Model> {
    let mut file = Model::create(fs.path("file"))?;
    let mut bytes = Vec::new();
    let handle = file.file()?;
    for _ in 0..BATCH {
        let blocks = match rng.random_range(0..4) {
            0 => 32,
            _ => rng.random_range(2..=12),
        };
        let piece = match rng.random_range(0..3) {
            0 => model::uneven(rng, blocks * BLOCK),
            1 => vec![rng.random(); blocks * BLOCK],
            _ => model::compressible(rng, blocks * BLOCK),
        };
        handle.write_all_at(&piece, bytes.len() as u64)?;
        bytes.extend(piece);
        bytes.resize(bytes.len() + BLOCK, 0);
    }
    handle.set_len(bytes.len() as u64)?;
    file.data = bytes;
    file.sync()?;
    fs.sync()?;
    Ok(file)
}

/// Where every extent is, and what is there.
fn find(fs: &Fs, file: &Model) -> Result<Vec<Stored>> {
    let chunks = Chunks::read(&fs.mnt)?;
    let mut all = Vec::new();
    for extent in tree::packed(&File::open(&file.path)?)? {
        let place = *chunks.copies(extent.logical)?.first().context("no copy")?;
        all.push(Stored {
            offset: extent.offset,
            len: extent.len as usize,
            place,
            bytes: device::read(fs, &place, extent.stored as usize)?,
        });
    }
    ensure!(
        all.len() >= BATCH / 2,
        "only {} compressed extents",
        all.len()
    );
    Ok(all)
}

/// A length as whoever wants to break something would write it.
fn hostile(rng: &mut SmallRng, now: u32, room: usize) -> u32 {
    match rng.random_range(0..10) {
        0 => 0,
        1 => u32::MAX,
        2 => now.wrapping_add(1),
        3 => now.wrapping_sub(1),
        4 => room as u32,
        5 => room as u32 + 1,
        6 => rng.random_range(0..16),
        7 => now ^ (1 << rng.random_range(0..32)),
        8 => i32::MAX as u32,
        _ => rng.next_u32(),
    }
}

fn word(bytes: &[u8], at: usize) -> u32 {
    let word = bytes.get(at..at + 4).and_then(|w| w.try_into().ok());
    word.map_or(0, u32::from_le_bytes)
}

fn put(bytes: &mut [u8], at: usize, value: u32) {
    if let Some(place) = bytes.get_mut(at..at + 4) {
        place.copy_from_slice(&value.to_le_bytes());
    }
}

/// Where the lengths of LZO's segments are, if that is what this is: each in
/// its block.
fn segments(bytes: &[u8]) -> Vec<usize> {
    let mut all = Vec::new();
    let (mut at, end) = (4, (word(bytes, 0) as usize).min(bytes.len()));
    while at + 4 <= end {
        all.push(at);
        at += 4 + word(bytes, at) as usize;
        let left = BLOCK - at % BLOCK;
        at += if left < 4 { left } else { 0 };
    }
    all
}

/// Tampers with an extent.
fn mutate(rng: &mut SmallRng, bytes: &mut Vec<u8>, donor: &[u8]) {
    let len = bytes.len();
    // Most of what decoders go by is in front.
    let at = match rng.random_range(0..3) {
        0 => rng.random_range(0..32),
        _ => rng.random_range(0..len),
    };
    match rng.random_range(0..14) {
        0 => {
            for _ in 0..rng.random_range(1..=8) {
                let at = rng.random_range(0..len);
                bytes[at] ^= 1 << rng.random_range(0..8);
            }
        }
        1 => bytes[at] = rng.random(),
        2 => {
            let end = len.min(at + rng.random_range(1..64));
            rng.fill_bytes(&mut bytes[at..end]);
        }
        3 => bytes[at..].fill(0),
        4 => bytes[at..].fill(0xff),
        5 => rng.fill_bytes(&mut bytes[at..]),
        6 => {
            let value = hostile(rng, word(bytes, 0), len);
            put(bytes, 0, value);
        }
        7 => {
            let all = segments(bytes);
            let at = all.get(rng.random_range(0..all.len().max(1))).copied();
            let at = at.unwrap_or(4);
            let value = hostile(rng, word(bytes, at), len - at.min(len));
            put(bytes, at, value);
        }
        8 => {
            // The beginning of one and the end of another.
            let end = len.min(donor.len());
            if at < end {
                bytes[at..end].copy_from_slice(&donor[at..end]);
            }
        }
        9 => {
            let end = at.min(donor.len());
            bytes[..end].copy_from_slice(&donor[..end]);
        }
        10 => drop(bytes.remove(at)),
        11 => {
            bytes.insert(at, rng.random());
            bytes.truncate(len);
        }
        12 => {
            // A part of it again, elsewhere.
            let count = rng.random_range(1..=(len - at).min(256));
            let to = rng.random_range(0..=len - count);
            bytes.copy_within(at..at + count, to);
        }
        _ => {
            // All headers there are: magic, flags, sizes.
            let at = rng.random_range(0..12);
            bytes[at] = [0, 0xff, 0x20, 0x80, rng.random()][rng.random_range(0..5)];
        }
    }
}

/// What became of the reads.
#[derive(Debug, Default)]
struct Tally {
    delivered: u32,
    refused: u32,
    /// Delivered from where it is if all before it is whole.
    taken: u32,
    /// Delivered whole, although the unmodified path gives up: before or behind
    /// the end of what is wanted, by how its steps happen to fall.
    lenient: u32,
    /// Refused, although the unmodified path delivers something.
    strict: u32,
}

/// Reads through the page cache, and nothing besides.
fn buffered(handle: &File, offset: u64, len: usize) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; len];
    let mut done = 0;
    while done < len {
        match handle.read_at(&mut bytes[done..], offset + done as u64) {
            Ok(0) => break,
            Ok(count) => done += count,
            Err(_) if done > 0 => break,
            Err(e) => return Err(e),
        }
    }
    bytes.truncate(done);
    Ok(bytes)
}

fn judge(
    file: &Model,
    extent: &Stored,
    (sound, lzo): (bool, bool),
    rng: &mut SmallRng,
    tally: &mut Tally,
) -> Result<()> {
    let direct = model::open_direct(&file.path)?;
    let handle = File::open(&file.path)?;
    sys::no_readahead(&handle)?;
    let mut requests = Vec::new();
    if extent.len > BLOCK {
        // A part first: of a broken extent not all need be broken.
        let at = rng.random_range(1..extent.len / 512);
        let len = rng.random_range(1..=extent.len / 512 - at) * 512;
        requests.push((at * 512, len));
    }
    requests.push((0, extent.len));
    for (at, len) in requests {
        let request = Request::pread(extent.offset + at as u64, len).any_via(rng);
        let outcome = request.perform(&direct)?;
        if outcome.result.is_ok() && len <= extent.len / 2 {
            // By then all of the extent may have been decompressed, to be kept.
            for _ in 0..2 {
                let again = request.perform(&direct)?;
                let same = again.result.is_ok() && again.bytes() == outcome.bytes();
                ensure!(same, "{request}: reads otherwise another time");
            }
        }
        let expected = buffered(&handle, request.offset, len);
        let name = format!("extent of {} at {} {request}", extent.len, extent.offset);
        match (&outcome.result, &expected) {
            (Ok(_), Ok(want)) => {
                let (got, part) = (outcome.bytes(), len < extent.len);
                let known = want.len().min(got.len());
                let same = want[..known] == got[..known];
                // Blocks in front of a part are taken to be blocks, without a look
                // at each: what is behind one that is not, differs.
                let taken = lzo && part && at >= BLOCK;
                let lens = format!("{} bytes, buffered {}", got.len(), want.len());
                ensure!(same || taken, "{name}: {lens}, and they differ");
                let short = got.len() < want.len();
                ensure!(!short, "{name}: {lens}: gave up early");
                let whole = !sound || file.data[request.offset as usize..][..len] == got;
                ensure!(whole, "{name}: was not touched, and reads otherwise");
                tally.delivered += 1;
                tally.taken += u32::from(!same);
                tally.lenient += u32::from(!part && want.len() < got.len());
            }
            // Of a part, the unmodified path may have met the broken rest.
            (Ok(_), Err(_)) => {
                tally.delivered += 1;
                tally.lenient += u32::from(len == extent.len);
            }
            (Err(e), expected) => {
                let refusal = [Some(libc::EIO), Some(libc::EUCLEAN)];
                ensure!(refusal.contains(&e.raw_os_error()), "{name}: {e}");
                ensure!(!sound, "{name}: was not touched, and: {e}");
                tally.refused += 1;
                tally.strict += u32::from(expected.is_ok());
            }
        }
    }
    Ok(())
}
