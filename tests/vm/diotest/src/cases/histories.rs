// SPDX-License-Identifier: GPL-2.0

//! Long histories of one file: anything that may be done to it, one thing after
//! the other, and after each of them reads of whatever it holds then, without a
//! sync between. One that goes wrong is told as briefly as it can be.

use super::Case;
use crate::buffer::{BLOCK, Region};
use crate::env::Env;
use crate::fs::{self, Csum, Fs, Spec};
use crate::model::{self, Model, dedupe_range};
use crate::module;
use crate::packed;
use crate::read::Request;
use crate::shrink::shrink;
use crate::subject::{Expect, Subject};
use crate::sys;
use anyhow::{Context, Result, bail};
use rand::{RngExt, SeedableRng, rngs::SmallRng};
use std::time::{Duration, Instant};

const B: u64 = BLOCK as u64;
/// Most bytes of the file.
const SIZE: u64 = 1 << 20;
/// Steps of a history.
const STEPS: u32 = 100;
/// How long to look for a shorter one.
const SHRINKING: Duration = Duration::from_secs(120);

pub fn cases(_: &Env) -> Vec<Case> {
    let plain = |profile, csum| Spec::new(profile, csum);
    let all = [
        ("raid1", plain("raid1", Csum::Crc32c)),
        ("raid10-nodatasum", plain("raid10", Csum::NoDataSum)),
        ("single-nocow", plain("single", Csum::NoCow)),
        ("raid5-lzo", packed::spec("raid5", Csum::Crc32c, "lzo")),
        ("raid0-zstd", packed::spec("raid0", Csum::Xxhash, "zstd")),
        ("dup-zlib", packed::spec("dup", Csum::Sha256, "zlib")),
    ];
    all.into_iter()
        .map(|(name, spec)| Case::new(name, move |env| histories(env, &spec)))
        .collect()
}

/// What is done. Where it depends on the file as it is, it does what it can: any
/// part of a history is one, too.
#[derive(Clone, Copy, Debug)]
enum Op {
    Write { at: u64, len: u64 },
    WriteDirect { at: u64, len: u64 },
    Store { at: u64, len: u64 },
    Truncate { size: u64 },
    Punch { at: u64, len: u64 },
    Zero { at: u64, len: u64, keep: bool },
    Preallocate { at: u64, len: u64, keep: bool },
    CloneFrom { from: u64, to: u64, len: u64 },
    CloneTo { at: u64, len: u64 },
    Dedupe { at: u64, len: u64 },
    Defragment(Option<&'static str>),
    Snapshot,
    Balance,
    Sync,
    Fsync,
    DropCaches,
    Remount,
    Reload,
}

/// What is done, with bytes that follow from `seed`, and what is read then.
#[derive(Clone, Debug)]
struct Step {
    op: Op,
    seed: u64,
    reads: Vec<Request>,
}

/// A place in the file, of whole blocks or not, and a length.
fn place(rng: &mut SmallRng, unit: u64) -> (u64, u64) {
    let most = match rng.random_range(0..3) {
        0 => 4 * B,
        1 => 40 * B,
        _ => SIZE / 2,
    };
    let len = rng.random_range(1..=most / unit) * unit;
    (rng.random_range(0..=(SIZE - len) / unit) * unit, len)
}

impl Op {
    fn random(rng: &mut SmallRng) -> Self {
        let (at, len) = place(rng, B);
        let keep = rng.random();
        let unit = if rng.random() { 1 } else { B };
        let (any, some) = place(rng, unit);
        match rng.random_range(0..100) {
            0..15 => Self::Write { at: any, len: some },
            15..28 => Self::WriteDirect { at, len },
            28..36 => Self::Store { at: any, len: some },
            36..43 => Self::Truncate { size: any },
            43..53 => Self::Punch { at: any, len: some },
            53..60 => Self::Zero {
                at: any,
                len: some,
                keep,
            },
            60..67 => Self::Preallocate {
                at: any,
                len: some,
                keep,
            },
            67..75 => Self::CloneFrom {
                from: place(rng, B).0,
                to: at,
                len,
            },
            75..78 => Self::CloneTo { at, len },
            78..82 => Self::Dedupe { at, len },
            82 => Self::Defragment(None),
            83 | 84 => Self::Defragment(Some(packed::ALGORITHMS[rng.random_range(0..3)])),
            85 => Self::Snapshot,
            86 => Self::Balance,
            87..89 => Self::Sync,
            89..92 => Self::Fsync,
            92..96 => Self::DropCaches,
            96..98 => Self::Remount,
            _ => Self::Reload,
        }
    }
}

impl Step {
    fn random(rng: &mut SmallRng) -> Self {
        let reads = (0..2).map(|_| {
            let request = Request::random(rng, SIZE);
            let request = match rng.random() {
                true => request.jitter(rng, 512),
                false => request,
            };
            request.any_via(rng)
        });
        Self {
            reads: reads.collect(),
            op: Op::random(rng),
            seed: rng.random(),
        }
    }
}

/// The file, and another one to share extents with.
struct Pair {
    file: Model,
    other: Model,
}

impl Pair {
    fn make(fs: &Fs, nr: u32) -> Result<Self> {
        let mut rng = SmallRng::seed_from_u64(1);
        let mut other = Model::create(fs.path(format!("other{nr}")))?;
        other.write(0, &model::uneven(&mut rng, SIZE as usize))?;
        let file = Model::create(fs.path(format!("file{nr}")))?;
        Ok(Self { file, other })
    }

    fn apply(&mut self, env: &Env, fs: &mut Fs, op: Op, seed: u64) -> Result<()> {
        let mut rng = SmallRng::seed_from_u64(seed);
        let rng = &mut rng;
        let Self { file, other } = self;
        match op {
            Op::Write { at, len } => file.write(at, &model::uneven(rng, len as usize)),
            Op::WriteDirect { at, len } => file.write_direct(rng, at, len as usize),
            Op::Store { at, len } => store(file, at, &model::uneven(rng, len as usize)),
            Op::Truncate { size } => file.truncate(size),
            Op::Punch { at, len } => file.punch(at, len),
            Op::Zero { at, len, keep } => file.zero(at, len, keep),
            Op::Preallocate { at, len, keep } => match keep {
                true => file.preallocate_beyond(at, len),
                false => file.preallocate(at, len),
            },
            Op::CloneFrom { from, to, len } => {
                file.clone_from(other, from, len.min(SIZE - from), to)
            }
            Op::CloneTo { at, len } => {
                // Whole blocks, of what there is.
                let len = len.min((file.size() / B * B).saturating_sub(at));
                if len > 0 {
                    other.clone_from(file, at, len, at)?;
                }
                Ok(())
            }
            Op::Dedupe { at, len } => {
                let len = len.min((file.size() / B * B).saturating_sub(at));
                if len > 0 {
                    let bytes = file.data[at as usize..][..len as usize].to_vec();
                    other.write(at, &bytes)?;
                    other.sync()?;
                    dedupe_range(&other.file()?, &file.file()?, at, len)?;
                }
                Ok(())
            }
            Op::Defragment(how) => {
                let how = how.map(|name| format!("-c{name}"));
                let args = ["filesystem", "defragment", "-f"].into_iter();
                let args = args.chain(how.as_deref()).chain([fs::path(&file.path)]);
                // Files without copy on write are not compressed.
                match fs::run("btrfs", args) {
                    Err(_) if how.is_some() && fs.spec.csum == Csum::NoCow => Ok(()),
                    other => other.map(drop),
                }
            }
            Op::Snapshot => {
                let (root, snap) = (fs.path(""), fs.path("snap"));
                let args = ["subvolume", "snapshot", fs::path(&root), fs::path(&snap)];
                fs::run("btrfs", args)?;
                let twin = file.twin(snap.join(file.name()));
                let bytes = std::fs::read(&twin.path)?;
                anyhow::ensure!(bytes == twin.data, "the snapshot has other bytes");
                fs::run("btrfs", ["subvolume", "delete", fs::path(&snap)]).map(drop)
            }
            Op::Balance => fs.btrfs(["balance", "start", "-d"]).map(drop),
            Op::Sync => fs.sync(),
            Op::Fsync => file.sync(),
            Op::DropCaches => Ok(sys::drop_caches()?),
            Op::Remount => fs.remount(),
            Op::Reload => match env.module {
                true => {
                    module::unload_in_time()?;
                    module::load(env)
                }
                false => Ok(()),
            },
        }
    }
}

/// Stores to mapped memory, as far as the file goes.
fn store(file: &mut Model, at: u64, bytes: &[u8]) -> Result<()> {
    let size = file.data.len();
    let at = (at as usize).min(size);
    let end = size.min(at + bytes.len());
    if at < end {
        let mut mapped = Region::of_file(&file.file()?, size.next_multiple_of(BLOCK))?;
        // Pages that come in by themselves would be taken for those of the reads.
        mapped.no_readahead()?;
        mapped.part_mut(at..end).copy_from_slice(&bytes[..end - at]);
        file.data[at..end].copy_from_slice(&bytes[..end - at]);
    }
    Ok(())
}

/// Lets it happen to a new file.
fn replay(env: &Env, fs: &mut Fs, nr: u32, steps: &[Step]) -> Result<()> {
    let mut pair = Pair::make(fs, nr)?;
    for (i, step) in steps.iter().enumerate() {
        let at = || format!("step {i}, {:?}", step.op);
        pair.apply(env, fs, step.op, step.seed).with_context(at)?;
        let subject = Subject::unwritten(env, &pair.file)?;
        for request in &step.reads {
            subject.expect(request, Expect::Served).with_context(at)?;
        }
    }
    fs.remount()?;
    pair.file.cross_check()?;
    pair.other.cross_check()?;
    for file in [&pair.file, &pair.other] {
        let subject = Subject::open(env, file)?;
        subject.read(&Request::pread(0, SIZE as usize))?;
        std::fs::remove_file(&file.path)?;
    }
    Ok(())
}

fn histories(env: &Env, spec: &Spec) -> Result<()> {
    let mut fs = Fs::make(env, spec)?;
    let mut rng = env.rng(0);
    let steps: Vec<Step> = (0..env.scaled(STEPS))
        .map(|_| Step::random(&mut rng))
        .collect();
    let Err(first) = replay(env, &mut fs, 0, &steps) else {
        return Ok(());
    };
    eprintln!("# {}: {first:#}; looking for less that fails", env.case);
    let (mut nr, mut last) = (0, None);
    let deadline = Instant::now() + SHRINKING;
    let least = shrink(&steps, deadline, |steps| {
        nr += 1;
        match replay(env, &mut fs, nr, steps) {
            Ok(()) => false,
            Err(error) => {
                last = Some(error);
                true
            }
        }
    });
    for (i, step) in least.iter().enumerate() {
        let reads: Vec<_> = step.reads.iter().map(|r| format!("[{r}]")).collect();
        eprintln!(
            "# {}: step {i}: {:?}, reads {}",
            env.case,
            step.op,
            reads.join(" ")
        );
    }
    let count = steps.len();
    match last {
        Some(error) => bail!(
            "{} of {count} steps fail: {error:#}; at first: {first:#}",
            least.len()
        ),
        None => bail!("{count} steps failed once, no part of them did: {first:#}"),
    }
}
