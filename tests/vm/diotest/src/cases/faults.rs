// SPDX-License-Identifier: GPL-2.0

//! Copies that are wrong and devices that fail: the reader gets the right data
//! from another copy, or EIO if there is none. What mainline repairs and counts,
//! the module does as well.

use super::Case;
use crate::aio::Engine;
use crate::buffer::BLOCK;
use crate::device::{self, Mapped};
use crate::env::Env;
use crate::fs::{Csum, Fs, Spec};
use crate::inject::Failing as Failures;
use crate::mirrors::{Placed, as_reader_of, device_stats};
use crate::model::Model;
use crate::module::{self, Policy};
use crate::read::{Request, Via};
use crate::stats::Stats;
use crate::subject::Subject;
use crate::sys;
use anyhow::{Context, Result, anyhow, ensure};
use std::collections::BTreeSet;
use std::ops::Range;
use std::time::Duration;

/// Blocks of the file, and those of them that go bad.
const BLOCKS: usize = 64;
const BAD: Range<usize> = 20..23;

pub fn cases(_: &Env) -> Vec<Case> {
    let mut cases = Vec::new();
    let corrupt = [
        ("raid1", Csum::Crc32c),
        ("raid1", Csum::Sha256),
        ("raid10", Csum::Blake2),
        ("raid1c3", Csum::Xxhash),
        ("dup", Csum::Crc32c),
    ];
    for (profile, csum) in corrupt {
        let name = format!("corrupt-{profile}-{}", csum.name());
        let spec = Spec::new(profile, csum);
        cases.push(Case::new(name, move |env| corrupt_copy(env, &spec)));
    }
    for (csum, extent) in [
        (Csum::Crc32c, 1280),
        (Csum::Crc32c, 13),
        (Csum::Sha256, 12),
        (Csum::Blake2, 1280),
    ] {
        let name = format!("shared-{}-{extent}", csum.name());
        cases.push(Case::new(name, move |env| shared(env, csum, extent)));
    }
    for profile in ["single", "raid1", "dup", "raid1c4", "raid10", "raid0"] {
        let name = format!("hopeless-{profile}");
        cases.push(Case::new(name, move |env| hopeless(env, profile)));
    }
    cases.push(Case::new("reported", reported));
    cases.push(Case::new("dm_error", |env| {
        device_error(env, Failing::Error)
    }));
    cases.push(Case::new("dm_dust", |env| device_error(env, Failing::Dust)));
    cases.push(Case::new("counted-passing", |env| {
        counted(env, Fault::Passing)
    }));
    cases.push(Case::new("counted-lasting", |env| {
        counted(env, Fault::Lasting)
    }));
    cases.push(Case::new("dm_error_single", dm_error_single));
    cases.push(Case::new("dm_error_dup", dm_error_dup));
    for profile in ["raid1", "raid1c3", "raid10", "raid5", "raid6"] {
        let name = format!("degraded-{profile}");
        cases.push(Case::new(name, move |env| degraded(env, profile)));
    }
    cases
}

/// A device that is not there: what has a copy elsewhere is read there; what has
/// none is rebuilt.
fn degraded(env: &Env, profile: &str) -> Result<()> {
    let mut fs = Fs::make(env, &Spec::new(profile, Csum::Crc32c))?;
    let mut file = Model::create(fs.path("file"))?;
    file.write_random(&mut env.rng(0), 0, 4 << 20)?;
    file.sync()?;
    fs.umount()?;
    let _ = crate::fs::run("btrfs", ["device", "scan", "--forget"]);
    fs.devices.pop();
    fs.spec.options = "degraded".into();
    fs.mount()?;
    let direct = crate::model::open_direct(&file.path)?;
    let before = Stats::look(env)?;
    let mut rng = env.rng(1);
    for i in 0..env.scaled(60) as usize {
        let len = [1, 4, 16, 64][i % 4] * BLOCK;
        let offset = i * 13 % (file.data.len() / BLOCK - 64) * BLOCK;
        let request = Request::pread(offset as u64, len).any_via(&mut rng);
        let want = &file.data[offset..offset + len];
        let verdict = request.perform(&direct)?.verify(&request, want, true);
        verdict.map_err(|why| anyhow!("{request}: {why}"))?;
    }
    if let Some(before) = before {
        let moved = Stats::read()?.since(&before);
        let parity = ["raid5", "raid6"].contains(&profile);
        let good = moved.get("reads") > 0
            && moved.get("declined") == 0
            && (moved.get("rebuilt") > 0) == parity
            && moved.get("lost") + moved.get("repaired") == 0;
        ensure!(good, "{moved}");
    }
    let stats = device_stats(&fs)?;
    ensure!(stats.is_empty(), "a missing device is blamed: {stats:?}");
    Ok(())
}

fn file_on(env: &Env, fs: &Fs) -> Result<(Model, Placed)> {
    let mut file = Model::create(fs.path("file"))?;
    file.write_random(&mut env.rng(0), 0, BLOCKS * BLOCK)?;
    file.sync()?;
    let placed = Placed::find(fs, &file)?;
    Ok((file, placed))
}

/// A read that includes the bad blocks, and ends before the file does.
fn across() -> Request {
    Request::pread(8 * BLOCK as u64, 40 * BLOCK)
}

/// What a reader of a damaged file left behind.
#[derive(Debug, PartialEq, Eq)]
struct Aftermath {
    repaired: bool,
    device_stats: Vec<String>,
}

/// Damages one copy and reads as a task that gets this copy and as one that
/// does not. Twice: with the module and without; both must end alike.
fn corrupt_copy(env: &Env, spec: &Spec) -> Result<()> {
    let mut fs = Fs::make(env, spec)?;
    let (file, placed) = file_on(env, &fs)?;
    let copies = placed.blocks[0].len() as u32;
    for bad in 0..copies {
        for reader in 0..copies {
            let with = damaged(env, &mut fs, &file, &placed, bad, reader)?;
            let unloaded = Env {
                module: false,
                ..env.clone()
            };
            let without = module::without(env, || {
                damaged(&unloaded, &mut fs, &file, &placed, bad, reader)
            })?;
            let at = format!("copy {bad} bad, reader of {reader}");
            ensure!(with == without, "{at}: {with:?}, mainline {without:?}");
        }
    }
    Ok(())
}

fn damaged(
    env: &Env,
    fs: &mut Fs,
    file: &Model,
    placed: &Placed,
    bad: u32,
    reader: u32,
) -> Result<Aftermath> {
    let _policy = Policy::fs(env)?;
    let copies = placed.blocks[0].len() as u32;
    fs.btrfs(["device", "stats", "-z"])?;
    placed.spoil(fs, file, BAD, bad as usize)?;
    // Of DUP, all read the first.
    let hit = if fs.spec.profile.name == "dup" {
        bad == 0
    } else {
        bad == reader
    };
    let at = format!("copy {bad} bad, reader of {reader}");
    let subject = Subject::open(env, file)?;
    as_reader_of(copies, reader, || noticed(&subject, hit, "csum_mismatches"))
        .context(at.clone())?;
    drop(subject);
    let repaired = placed.sound(fs, file, BAD, bad as usize)?;
    ensure!(repaired == hit, "{at}: repaired: {repaired}");
    Ok(Aftermath {
        repaired,
        device_stats: device_stats(fs)?,
    })
}

/// Reads across the damage. The data is right; if the damage was met, `counter`
/// says so, and another copy was read.
fn noticed(subject: &Subject<'_>, hit: bool, counter: &str) -> Result<()> {
    let request = across();
    let (outcome, moved) = subject.observe(&request)?;
    let verdict = outcome.verify(&request, subject.wanted(&request), false);
    subject.judge(&request, verdict)?;
    let Some(moved) = moved else { return Ok(()) };
    let at = subject.at(&request);
    let served = moved.get("reads") == 1 && moved.get("declined") == 0;
    ensure!(served, "{at}: not served: {moved}");
    let met = [counter, "recovered"].map(|name| moved.get(name) > 0);
    ensure!(met == [hit; 2], "{at}: meets damage: {hit}; {moved}");
    ensure!(moved.get("lost") == 0, "{at}: {moved}");
    Ok(())
}

/// Windows that several CPUs verify, a part each: one bad block is noticed wherever it is.
/// The file is in extents of so many blocks, no two of which lie together.
fn shared(env: &Env, csum: Csum, extent: usize) -> Result<()> {
    let _policy = Policy::fs(env)?;
    let mut fs = Fs::make(env, &Spec::new("raid1", csum))?;
    let mut file = Model::create(fs.path("file"))?;
    let blocks = (5 << 20) / BLOCK;
    let mut rng = env.rng(0);
    for first in (0..blocks).step_by(extent).rev() {
        let count = extent.min(blocks - first);
        file.write_random(&mut rng, (first * BLOCK) as u64, count * BLOCK)?;
        file.sync()?;
    }
    let placed = Placed::find(&fs, &file)?;
    fs.remount()?;
    let subject = Subject::open(env, &file)?;
    // Waited for it is two windows; otherwise one, of which a worker makes the best.
    for (via, bad) in [
        (Via::Pread, &[0, 64, 511, 512, 700, 1023, 1279][..]),
        (Via::Async(Engine::Libaio), &[255, 256, 1279][..]),
    ] {
        let request = Request::pread(0, file.data.len()).via(via);
        // What is right is found right at once.
        let (_, moved) = subject.observe(&request)?;
        if let Some(moved) = moved {
            let good = moved.get("csum_shared") > 0 && moved.trouble() == 0;
            ensure!(good, "{}: {moved}", subject.at(&request));
        }
        for &block in bad {
            let place = &placed.blocks[block][0];
            device::write(&fs, place, &[0xbb; BLOCK])?;
            as_reader_of(2, 0, || {
                let (outcome, moved) = subject.observe(&request)?;
                let verdict = outcome.verify(&request, subject.wanted(&request), false);
                subject.judge(&request, verdict)?;
                let Some(moved) = moved else { return Ok(()) };
                let good = moved.get("reads") == 1
                    && moved.get("declined") == 0
                    && moved.get("csum_shared") > 0
                    && moved.get("recovered") == 1;
                ensure!(good, "block {block}, {}: {moved}", subject.at(&request));
                Ok(())
            })?;
            let sound = placed.sound(&fs, &file, block..block + 1, 0)?;
            ensure!(sound || !env.module, "block {block} was not repaired");
        }
    }
    Ok(())
}

/// No copy is right: EIO, and everything around the damage still reads.
fn hopeless(env: &Env, profile: &str) -> Result<()> {
    let _policy = Policy::fs(env)?;
    let mut fs = Fs::make(env, &Spec::new(profile, Csum::Crc32c))?;
    let (file, placed) = file_on(env, &fs)?;
    let copies = placed.blocks[0].len();
    placed.lay(&mut fs, &file, BAD, &vec![Some(0xbb); copies])?;
    let subject = Subject::open(env, &file)?;
    for reader in 0..copies as u32 {
        as_reader_of(copies as u32, reader, || {
            let request = across();
            hopeless_read(&subject, &request)?;
            subject.read(&Request::pread(0, BAD.start * BLOCK))?;
            subject.read(&Request::pread((BAD.end * BLOCK) as u64, 30 * BLOCK))
        })?;
    }
    Ok(())
}

/// A read of what no copy has ends with EIO, from whom it was asked for.
fn hopeless_read(subject: &Subject<'_>, request: &Request) -> Result<()> {
    let (outcome, moved) = subject.observe(request)?;
    let at = subject.at(request);
    let errno = outcome.result.err().and_then(|e| e.raw_os_error());
    ensure!(errno == Some(libc::EIO), "{at}: {errno:?}, wanted EIO");
    let Some(moved) = moved else { return Ok(()) };
    let counted = moved.get("declined") == 0 && moved.get("lost") > 0;
    ensure!(counted, "{at}: {moved}");
    Ok(())
}

/// Who listens to the file system is told of what is lost, and of nothing else.
fn reported(env: &Env) -> Result<()> {
    let mut fs = Fs::make(env, &Spec::new("raid1", Csum::Crc32c))?;
    let (file, placed) = file_on(env, &fs)?;
    let (soon, never) = (Duration::from_secs(60), Duration::from_millis(500));
    for (bad, told) in [([Some(0xbb), None], false), ([Some(0xbb); 2], true)] {
        placed.lay(&mut fs, &file, BAD, &bad)?;
        let mut errors = sys::Errors::of(&fs.mnt)?;
        let subject = Subject::open(env, &file)?;
        for via in [Via::Pread, Via::Async(Engine::Libaio)] {
            let request = across().via(via);
            match told {
                true => hopeless_read(&subject, &request)?,
                false => subject.read(&request)?,
            }
            let heard = errors.next(if told { soon } else { never })?;
            // As a number, or as what a system call would return.
            let right = heard.iter().all(|error| error.abs() == libc::EIO);
            ensure!(right && heard.is_empty() != told, "{request}: {heard:?}");
        }
    }
    Ok(())
}

#[derive(Clone, Copy)]
enum Failing {
    /// Reads and writes fail.
    Error,
    /// Reads fail until the block is written.
    Dust,
}

/// One leg of a mirror fails under the file.
fn device_error(env: &Env, failing: Failing) -> Result<()> {
    let _policy = Policy::fs(env)?;
    let disks = env.take(2)?.to_vec();
    let mut ends = Vec::new();
    for bad in [0usize, 1] {
        let mapped = Mapped::new("diotest", &disks[bad])?;
        let mut devices = disks.clone();
        devices[bad] = mapped.path();
        let spec = Spec::new("raid1", Csum::Crc32c);
        let mut fs = Fs::make_on(env, &spec, devices)?;
        let (file, placed) = file_on(env, &fs)?;
        fs.remount()?;
        let subject = Subject::open(env, &file)?;
        // The copy on that device, which need not have its number.
        let on = |p: &crate::chunks::Place| p.device == bad as u64 + 1;
        let places = &placed.blocks[BAD.start];
        let copy = places.iter().position(on).context("a copy on it")? as u32;
        let (offset, len) = (places[copy as usize].offset, (BAD.len() * BLOCK) as u64);
        match failing {
            Failing::Error => mapped.fail(&[(offset, len)])?,
            Failing::Dust => mapped.dust(offset, len)?,
        }
        as_reader_of(2, 1 - copy, || noticed(&subject, false, "io_errors"))?;
        as_reader_of(2, copy, || noticed(&subject, true, "io_errors"))?;
        if matches!(failing, Failing::Dust) {
            // What was repaired is written, and so can be read again.
            let whole = placed.sound(&fs, &file, BAD, copy as usize)?;
            ensure!(whole, "copy {copy} was not repaired");
            as_reader_of(2, copy, || noticed(&subject, false, "io_errors"))?;
        }
        drop(subject);
        // Which device it was is not part of what is compared.
        let kinds = |l: &String| l.split('.').next_back().map(str::to_owned);
        ends.push(
            device_stats(&fs)?
                .iter()
                .filter_map(kinds)
                .collect::<BTreeSet<_>>(),
        );
        fs.umount()?;
    }
    ensure!(
        ends[0] == ends[1] && !ends[0].is_empty(),
        "device stats: {ends:?}"
    );
    Ok(())
}

#[derive(Clone, Copy)]
enum Fault {
    /// One request fails.
    Passing,
    /// All of them do, until the block is written.
    Lasting,
}

/// A bio that fails is counted once, whatever it takes to make up for it: with the
/// module as without.
fn counted(env: &Env, fault: Fault) -> Result<()> {
    let disks = env.take(2)?.to_vec();
    let mapped = Mapped::new("diotest", &disks[1])?;
    let devices = vec![disks[0].clone(), mapped.path()];
    let mut fs = Fs::make_on(env, &Spec::new("raid1", Csum::Crc32c), devices)?;
    let (file, placed) = file_on(env, &fs)?;
    let on = |p: &crate::chunks::Place| p.device == 2;
    let places = &placed.blocks[across().offset as usize / BLOCK];
    let copy = places.iter().position(on).context("a copy on it")?;
    let offsets: Vec<u64> = (0..across().total() / BLOCK)
        .map(|i| places[copy].offset + (i * BLOCK) as u64)
        .collect();
    let mut met = |env: &Env| -> Result<Vec<String>> {
        let _policy = Policy::fs(env)?;
        fs.remount()?;
        fs.btrfs(["device", "stats", "-z"])?;
        let subject = Subject::open(env, &file)?;
        // What is known afterwards need not be looked up.
        subject.read(&across())?;
        fs.sync()?;
        let failing = match fault {
            Fault::Passing => Some(Failures::next(&disks[1])?),
            Fault::Lasting => {
                mapped.dusty(&offsets)?;
                None
            }
        };
        as_reader_of(2, copy as u32, || {
            let request = across();
            let (outcome, moved) = subject.observe(&request)?;
            let verdict = outcome.verify(&request, subject.wanted(&request), false);
            subject.judge(&request, verdict)?;
            let Some(moved) = moved else { return Ok(()) };
            let all = moved.get("reads") == 1 && moved.get("io_errors") == 1;
            let again = moved.get("recovered") > 0;
            let lasting = matches!(fault, Fault::Lasting);
            ensure!(all && again == lasting, "{moved}");
            Ok(())
        })?;
        drop(failing);
        mapped.heal()?;
        device_stats(&fs)
    };
    let with = met(env)?;
    let unloaded = Env {
        module: false,
        ..env.clone()
    };
    let without = module::without(env, || met(&unloaded))?;
    let once = with.len() == 1 && with[0].ends_with("read_io_errs 1");
    ensure!(once && with == without, "{with:?}, mainline {without:?}");
    fs.umount()
}

/// The only copy fails: EIO for what includes it, nothing else.
fn dm_error_single(env: &Env) -> Result<()> {
    one_device(env, "single")
}

/// Both copies on one device fail.
fn dm_error_dup(env: &Env) -> Result<()> {
    one_device(env, "dup")
}

fn one_device(env: &Env, profile: &str) -> Result<()> {
    let mapped = Mapped::new("diotest", &env.take(1)?[0])?;
    let spec = Spec::new(profile, Csum::Crc32c);
    let mut fs = Fs::make_on(env, &spec, vec![mapped.path()])?;
    let (file, placed) = file_on(env, &fs)?;
    fs.remount()?;
    let subject = Subject::open(env, &file)?;
    let places = &placed.blocks[BAD.start];
    let ranges: Vec<_> = places
        .iter()
        .map(|p| (p.offset, (BAD.len() * BLOCK) as u64))
        .collect();
    mapped.fail(&ranges)?;
    let request = across();
    hopeless_read(&subject, &request)?;
    subject.read(&Request::pread(0, BAD.start * BLOCK))?;
    drop(subject);
    fs.umount()
}
