// SPDX-License-Identifier: GPL-2.0

//! Readers and their neighbours: one reader may hardly read, and wants far more bounce memory than
//! there is. Its neighbours do not wait for it, and nobody holds a lock meanwhile. Work is charged to
//! the process and the cgroup that asked for it, also when a worker does it.

use super::Case;
use crate::aio::{self, Engine};
use crate::buffer::{BLOCK, POISON, Region};
use crate::cgroup::Cgroup;
use crate::deep::{Deep, Seen};
use crate::device;
use crate::devices::Devices;
use crate::env::Env;
use crate::fiemap::{self, Kind};
use crate::fs::{self, Csum, Fs, Spec};
use crate::mirrors::{Placed, as_reader_of};
use crate::model::{self, Model};
use crate::module::{self, Parameter, Policy};
use crate::packed;
use crate::pagecache;
use crate::read::Via;
use crate::stats::Stats;
use crate::sys;
use crate::tracing::Events;
use anyhow::{Context, Result, bail, ensure};
use io_uring::{IoUring, opcode, types};
use rand::rngs::SmallRng;
use std::fs::File;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::os::unix::thread::JoinHandleExt;
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

const B: u64 = BLOCK as u64;
const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
/// Length of each read of a [`Crowd`], in bytes.
const LEN: usize = EXTENT;
/// Bytes a second that a crowd may read, for its memory to be held for long.
const SLOW: u64 = 16 * KIB;
/// Bytes that a compressed extent holds.
const EXTENT: usize = 128 << 10;
/// Size of a file that a crowd reads, and of a read that needs several times the bounce memory that
/// one attempt may have. In bytes.
const SIZE: usize = 8 << 20;
/// The ways in which neighbours read.
const WAYS: [Via; 3] = [
    Via::Pread,
    Via::Async(Engine::Libaio),
    Via::Async(Engine::Uring),
];
/// How many turns neighbours take: nobody meets every hiccup of the machine.
const ROUNDS: usize = 4;
/// How crowds read, the first of them if one is enough.
const ENGINES: [Engine; 2] = [Engine::Libaio, Engine::Uring];

pub fn cases(_: &Env) -> Vec<Case> {
    vec![
        Case::new("neighbours", neighbours),
        Case::new("submission", submission),
        Case::new("write", write),
        Case::new("truncate", truncate),
        Case::new("interrupted", interrupted),
        Case::new("loop", on_loop),
        Case::new("memory", memory),
        Case::new("charged-rest", |env| charged(env, Scene::Rest)),
        Case::new("charged-reread", |env| charged(env, Scene::Reread)),
        Case::new("priority-rest", |env| priority(env, Scene::Rest)),
        Case::new("priority-reread", |env| priority(env, Scene::Reread)),
    ]
}

/// Bytes that can be compressed, but hardly: much has to be read of them, and little decoded.
fn dense(rng: &mut SmallRng, len: usize) -> Vec<u8> {
    let mut bytes = model::random(rng, len);
    for piece in bytes.chunks_mut(16 << 10) {
        let zeros = piece.len() / 16;
        piece[..zeros].fill(0);
    }
    bytes
}

/// A file of these bytes, in compressed extents only.
fn compressed(fs: &Fs, name: &str, bytes: &[u8]) -> Result<Model> {
    let mut file = Model::create(fs.path(name))?;
    file.write(0, bytes)?;
    file.sync()?;
    let extents = fiemap::extents(&file.file()?)?;
    let kinds = fiemap::kinds(&extents, 0, file.size().next_multiple_of(B));
    ensure!(kinds == [Kind::Compressed], "{name}: {kinds:?}");
    Ok(file)
}

/// Reads a file once, for all its metadata to be in memory. Nothing of the file is cached then.
fn warm(file: &Model) -> Result<()> {
    sys::drop_pages(&file.file()?)?;
    let direct = model::open_direct(&file.path)?;
    let memory = Region::new(MIB as usize)?;
    for (nr, wanted) in file.data.chunks(MIB as usize).enumerate() {
        let iov = memory.iovec(0..wanted.len().next_multiple_of(BLOCK));
        let count = sys::pread(direct.as_raw_fd(), &iov, (nr as u64 * MIB) as i64)?;
        let right = count == wanted.len() && memory.part(0..count) == wanted;
        ensure!(right, "{}: wrong bytes in MiB {nr}", file.name());
    }
    sys::drop_pages(&file.file()?)?;
    Ok(())
}

/// A file system that compresses, with a dense file whose metadata is in memory.
fn one(env: &Env) -> Result<(Fs, Model)> {
    let mut fs = Fs::make(env, &packed::spec("single", Csum::Crc32c, "zstd"))?;
    // With a block at its end that no crowd reads.
    let bytes = dense(&mut env.rng(0), SIZE + BLOCK);
    let mut file = compressed(&fs, "file", &bytes[..SIZE])?;
    file.write(SIZE as u64, &bytes[SIZE..])?;
    file.sync()?;
    fs.remount()?;
    warm(&file)?;
    Ok((fs, file))
}

/// How much bounce memory there is, while this exists.
struct Limit {
    /// In bytes. Without a module, what it would be.
    bytes: u64,
    _parameter: Option<Parameter>,
}

impl Limit {
    /// Sets the limit of each file system, if it can be set.
    fn set(env: &Env) -> Result<Self> {
        let parameter = Path::new("/sys/module").join(module::NAME);
        let parameter = parameter.join("parameters/bounce_kib");
        if !env.module || !parameter.exists() {
            return Ok(Self {
                bytes: 64 * MIB,
                _parameter: None,
            });
        }
        Ok(Self {
            bytes: 4 * MIB,
            _parameter: Some(Parameter::set(env, "bounce_kib", "4096")?),
        })
    }

    /// How many reads of a crowd want far more.
    fn crowd(&self) -> usize {
        (self.bytes + 16 * MIB) as usize / LEN
    }
}

/// Processes in a cgroup that may read so many bytes a second, each of which wants far more bounce
/// memory than there is.
struct Crowd {
    // In this order: nobody removes a cgroup before its processes have ended.
    deeps: Vec<Deep>,
    group: Cgroup,
}

impl Crowd {
    /// Makes one that has not begun: a process for each engine.
    fn new(
        devices: &[PathBuf],
        file: &Model,
        engines: &[Engine],
        limit: &Limit,
        rate: u64,
    ) -> Result<Self> {
        let mut crowd = Self {
            deeps: Vec::new(),
            group: Cgroup::new("fair")?,
        };
        crowd.group.limit_reads(devices, rate)?;
        for engine in engines {
            let deep = Deep::start(Via::Async(*engine), file, limit.crowd(), LEN)?;
            crowd.group.add(deep.pid())?;
            crowd.deeps.push(deep);
        }
        Ok(crowd)
    }

    /// Lets one process after the other begin, each until there is not enough memory for it.
    fn begin(&mut self, env: &Env, limit: &Limit) -> Result<()> {
        for deep in &mut self.deeps {
            let before = Stats::look(env)?;
            deep.go()?;
            let deadline = Instant::now() + Duration::from_secs(30);
            let Some(before) = before else {
                std::thread::sleep(Duration::from_millis(300));
                continue;
            };
            loop {
                let now = Stats::read()?;
                let short = match now.knows("bounce_waits") {
                    true => now.since(&before).get("bounce_waits") > 0,
                    // The next read may want a window's worth, of 2 MiB.
                    false => now.get("private_bytes") > limit.bytes - 2 * MIB,
                };
                if short {
                    break;
                }
                ensure!(!deep.is_over()?, "never short of memory: {now}");
                ensure!(Instant::now() < deadline, "not short of memory: {now}");
                std::thread::sleep(Duration::from_millis(5));
            }
        }
        Ok(())
    }

    /// Begins, with a limit that keeps the memory in use for long.
    fn start(env: &Env, fs: &Fs, file: &Model, engines: &[Engine], limit: &Limit) -> Result<Self> {
        let mut crowd = Self::new(&fs.devices, file, engines, limit, SLOW)?;
        crowd.begin(env, limit)?;
        Ok(crowd)
    }

    /// What each process has told so far.
    fn seen(&self) -> Vec<Seen> {
        self.deeps.iter().map(Deep::seen).collect()
    }

    /// Whether one of them has read all it wants.
    fn is_over(&mut self) -> Result<bool> {
        for deep in &mut self.deeps {
            if deep.is_over()? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Lets them read all they want, and waits for the end of that.
    fn end(mut self) -> Result<Vec<Seen>> {
        self.group.lift_reads()?;
        self.deeps.drain(..).map(Deep::end).collect()
    }
}

impl Drop for Crowd {
    fn drop(&mut self) {
        // Its reads would take that long, killed or not.
        if let Err(error) = self.group.lift_reads() {
            eprintln!("# {error:#}");
        }
    }
}

/// Checks that some reads were served, that some had to wait for bounce memory, as far as that is
/// known, and that none was declined.
fn served(before: Option<&Stats>) -> Result<Stats> {
    let moved = Stats::all_at_once(before)?;
    if before.is_some_and(|before| before.knows("bounce_waits")) {
        ensure!(moved.get("bounce_waits") > 0, "nobody waited: {moved}");
    }
    Ok(moved)
}

/// Checks that none was declined so far.
fn none_declined(before: Option<&Stats>, what: &str) -> Result<()> {
    if let Some(before) = before {
        let moved = Stats::read()?.since(before);
        let declined = moved.get("declined");
        ensure!(declined == 0, "{what}: {moved}");
    }
    Ok(())
}

// ---- neighbours ---------------------------------------------------------------

/// How long reads took.
#[derive(Default)]
struct Times(Vec<Duration>);

impl Times {
    /// The read that so many in a hundred of the others were quicker than.
    fn at(&mut self, percent: usize) -> Duration {
        self.0.sort_unstable();
        let nr = self.0.len() * percent / 100;
        self.0.get(nr).copied().unwrap_or_default()
    }
}

/// A file that is read beside a crowd, and how long that took alone and beside it.
struct Neighbour<'a> {
    name: &'a str,
    file: &'a Model,
    via: Via,
    alone: Times,
    beside: Times,
}

impl Neighbour<'_> {
    /// Reads one block of some extents, other ones in each round.
    fn read(&self, round: usize) -> Result<Vec<Duration>> {
        let mut region = Region::new(BLOCK)?;
        let direct = model::open_direct(&self.file.path)?;
        let mut times = Vec::new();
        let first = round * EXTENT + BLOCK;
        for at in (first..self.file.data.len()).step_by(ROUNDS * EXTENT) {
            region.bytes_mut().fill(POISON);
            let iov = [region.iovec(0..BLOCK)];
            let begin = Instant::now();
            let count = match self.via {
                Via::Async(engine) => aio::read(engine, &direct, &iov, at as u64),
                _ => sys::pread(direct.as_raw_fd(), &iov[0], at as i64),
            };
            let time = begin.elapsed();
            times.push(time);
            let count = count.with_context(|| format!("{}: offset={at}", self.name))?;
            let right = count == BLOCK && region.bytes() == &self.file.data[at..at + BLOCK];
            ensure!(right, "{}: offset={at}: wrong bytes", self.name);
            // Any number of such reads would take too long.
            ensure!(
                time < Duration::from_secs(3),
                "{}, {:?}: a read took {time:?}",
                self.name,
                self.via
            );
        }
        Ok(times)
    }

    /// Checks that the neighbour took no longer than twice what it takes alone, plus what the
    /// emulator may take.
    fn judge(&mut self) -> Result<()> {
        for (percent, floor) in [(25, 5), (50, 50), (90, 500)] {
            let (alone, beside) = (self.alone.at(percent), self.beside.at(percent));
            ensure!(
                beside <= 2 * alone + Duration::from_millis(floor),
                "{}, {:?}: percentile {percent} is {beside:?} beside a throttled reader, {alone:?} alone",
                self.name,
                self.via
            );
        }
        Ok(())
    }
}

/// Small reads of another file system, and of another file of the same one, beside crowds.
fn neighbours(env: &Env) -> Result<()> {
    if !env.module {
        return neighbours_of(env);
    }
    // Else the second read of an extent would need no memory.
    module::with(env, "decoded_cache_kib=0", || neighbours_of(env))
}

fn neighbours_of(env: &Env) -> Result<()> {
    let limit = Limit::set(env)?;
    let (fs, crowded) = one(env)?;
    let env_b = beside(env)?;
    let fs_b = Fs::make(&env_b, &packed::spec("single", Csum::Crc32c, "zstd"))?;
    let small = |fs: &Fs, salt| {
        let file = compressed(fs, "small", &dense(&mut env.rng(salt), 16 * EXTENT))?;
        fs.sync()?;
        warm(&file).map(|()| file)
    };
    let (here, there) = (small(&fs, 1)?, small(&fs_b, 2)?);
    let mut all = Vec::new();
    for via in WAYS {
        for (name, file) in [
            ("another file of the same file system", &here),
            ("another file system", &there),
        ] {
            all.push(Neighbour {
                name,
                file,
                via,
                alone: Times::default(),
                beside: Times::default(),
            });
        }
    }
    let before = Stats::look(env)?;
    alone(&mut all)?;
    let mut crowd = Crowd::start(env, &fs, &crowded, &ENGINES, &limit)?;
    for round in 0..ROUNDS {
        for neighbour in &mut all {
            neighbour.beside.0.extend(neighbour.read(round)?);
            none_declined(before.as_ref(), neighbour.name)?;
        }
    }
    ensure!(!crowd.is_over()? || !env.module, "the crowd has read all");
    crowd.end()?;
    alone(&mut all)?;
    for neighbour in &mut all {
        neighbour.judge()?;
        let (alone, beside) = (neighbour.alone.at(50), neighbour.beside.at(50));
        eprintln!(
            "# {}: {}, {:?}: {alone:?} alone, {beside:?} beside",
            env.case, neighbour.name, neighbour.via
        );
    }
    served(before.as_ref()).map(drop)
}

/// Has all of them read while nobody else does.
fn alone(all: &mut [Neighbour<'_>]) -> Result<()> {
    for round in 0..ROUNDS {
        for neighbour in &mut *all {
            neighbour.alone.0.extend(neighbour.read(round)?);
        }
    }
    Ok(())
}

/// What a second file system is made with, mounted elsewhere.
fn beside(env: &Env) -> Result<Env> {
    env.take(2)?;
    let mut other = env.clone();
    other.disks.remove(0);
    other.mnt.as_mut_os_string().push(".beside");
    std::fs::create_dir_all(&other.mnt)?;
    Ok(other)
}

// ---- waiting ------------------------------------------------------------------

/// How long reads are kept waiting where it matters how long: longer than anything should give up.
const LONG: Duration = Duration::from_secs(6);

/// A call that submits a read does not wait for memory, and no read is given up for want of it.
fn submission(env: &Env) -> Result<()> {
    let limit = Limit::set(env)?;
    let (fs, file) = one(env)?;
    let before = Stats::look(env)?;
    let mut crowd = Crowd::start(env, &fs, &file, &ENGINES, &limit)?;
    if env.module {
        std::thread::sleep(LONG);
    }
    let told = none_declined(before.as_ref(), "a read gave up its wait for memory");
    ensure!(!crowd.is_over()? || !env.module, "the crowd has read all");
    let seen = crowd.seen();
    let mut late = Vec::new();
    for ((engine, then), end) in ENGINES.iter().zip(&seen).zip(crowd.end()?) {
        let longest = end.submitted.context("never told")?;
        let name = engine.name();
        eprintln!("# {}: {name}: longest call {longest:?}", env.case);
        if then.submitted.is_none() || longest >= Duration::from_millis(500) {
            late.push(format!("{name}: a call took {longest:?}"));
        }
    }
    ensure!(late.is_empty() || !env.module, "{}", late.join(", "));
    told?;
    served(before.as_ref())?;
    let pages = pagecache::pages(&model::open_direct(&file.path)?)?;
    ensure!(pages == 0 || !env.module, "{pages} pages are cached");
    Ok(())
}

/// Has a file written to, beside a crowd and somebody else who read it; how long that took.
fn write_beside(
    env: &Env,
    fs: &Fs,
    file: &mut Model,
    limit: &Limit,
    plain: bool,
) -> Result<Duration> {
    let mut crowd = Crowd::new(&fs.devices, file, &ENGINES[..1], limit, SLOW)?;
    match plain {
        // It needs no bounce memory.
        true => {
            crowd.deeps[0].go()?;
            while crowd.seen()[0].submitted.is_none() {
                ensure!(!crowd.is_over()?, "read all at once");
                std::thread::sleep(Duration::from_millis(5));
            }
        }
        false => crowd.begin(env, limit)?,
    }
    let other = bystander(file)?;
    let opened = file.file()?;
    let last = file.size() - B;
    let bytes = vec![7; BLOCK];
    let begin = Instant::now();
    opened.write_all_at(&bytes, last)?;
    // It grows: nobody has to wait for reads.
    opened.set_len(file.size() + B)?;
    let time = begin.elapsed();
    file.data[last as usize..].copy_from_slice(&bytes);
    file.data.resize(last as usize + 2 * BLOCK, 0);
    crowd.end()?;
    other.end()?;
    Ok(time)
}

/// A process without limits that has begun to read a file, and waits for that.
fn bystander(file: &Model) -> Result<Deep> {
    let mut deep = Deep::start(Via::Pread, file, 1, LEN)?;
    deep.go()?;
    std::thread::sleep(Duration::from_millis(300));
    Ok(deep)
}

/// Writers of a file do not wait for readers of it that wait for memory.
fn write(env: &Env) -> Result<()> {
    let limit = Limit::set(env)?;
    let (fs, mut file) = one(env)?;
    let mut plain = Model::create(fs.path("plain"))?;
    for at in 0..SIZE as u64 / MIB {
        plain.write_direct(&mut env.rng(1 + at), at * MIB, MIB as usize)?;
    }
    plain.write_direct(&mut env.rng(1), SIZE as u64, BLOCK)?;
    plain.sync()?;
    warm(&plain)?;
    let alone = write_beside(env, &fs, &mut plain, &limit, true)?;
    let before = Stats::look(env)?;
    let time = write_beside(env, &fs, &mut file, &limit, false)?;
    eprintln!("# {}: {time:?}, {alone:?} of plain data", env.case);
    if env.module {
        ensure!(
            time <= 2 * alone + Duration::from_secs(1),
            "a write took {time:?} beside throttled reads of the same file; {alone:?} if that is plain"
        );
    }
    served(before.as_ref())?;
    file.sync()?;
    file.cross_check()
}

/// A task that cuts a file waits for reads in flight, but not for those that wait for memory.
fn truncate(env: &Env) -> Result<()> {
    let limit = Limit::set(env)?;
    let (fs, mut file) = one(env)?;
    let before = Stats::look(env)?;
    let mut crowd = Crowd::new(&fs.devices, &file, &ENGINES[..1], &limit, 8 * MIB)?;
    crowd.begin(env, &limit)?;
    let other = bystander(&file)?;
    let opened = file.file()?;
    let size = file.size() - B;
    let read = crowd.group.bytes_read(&fs.devices)?;
    let begin = Instant::now();
    let cut = std::thread::spawn(move || opened.set_len(size));
    while !cut.is_finished() && !crowd.is_over()? {
        std::thread::sleep(Duration::from_millis(5));
    }
    let time = begin.elapsed();
    let read = crowd.group.bytes_read(&fs.devices)? - read;
    crowd.end()?;
    other.end()?;
    match cut.join() {
        Ok(result) => result?,
        Err(_) => bail!("panicked"),
    }
    file.data.truncate(size as usize);
    let all = (limit.crowd() * LEN) as u64;
    eprintln!(
        "# {}: {time:?}, {} of {} KiB read",
        env.case,
        read / KIB,
        all / KIB
    );
    if env.module {
        ensure!(
            read < all / 2,
            "a truncation waited for {read} of {all} bytes to be read ({time:?})"
        );
    }
    served(before.as_ref())?;
    file.cross_check()
}

/// What is done to a task that waits for memory.
#[derive(Clone, Copy)]
enum Poke {
    /// A signal that it handles.
    Signal,
    /// Work that a ring of its own has for it.
    TaskWork,
}

extern "C" fn ignore(_: i32) {}

/// Handles SIGUSR1, by doing nothing.
fn handle_signals() -> Result<()> {
    // SAFETY: Plain data, for which zeros are valid.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = ignore as *const () as usize;
    // SAFETY: A handler that does nothing.
    let set = unsafe { libc::sigaction(libc::SIGUSR1, &action, std::ptr::null_mut()) };
    sys::check(set as isize)?;
    Ok(())
}

/// A thread that reads the first MiB of a file, and may be poked meanwhile.
fn waiter(file: &Model, poke: Poke) -> Result<JoinHandle<Result<()>>> {
    let direct = model::open_direct(&file.path)?;
    let wanted = file.data[..LEN].to_vec();
    Ok(std::thread::spawn(move || {
        let memory = Region::new(wanted.len())?;
        let mut ring = IoUring::new(16)?;
        if let Poke::TaskWork = poke {
            for nr in 1..=8 {
                let time = types::Timespec::new().nsec(nr * 50_000_000);
                let entry = opcode::Timeout::new(&time).build();
                // SAFETY: The kernel has read the time when the submission returns.
                unsafe { ring.submission().push(&entry) }?;
                ring.submit()?;
            }
        }
        let count = sys::pread(direct.as_raw_fd(), &memory.iovec(0..wanted.len()), 0)?;
        let right = count == wanted.len() && memory.bytes() == wanted;
        ensure!(right, "{count} bytes, or wrong ones");
        Ok(())
    }))
}

/// What a task is told that waits for memory does not end its wait, but for its death.
fn interrupted(env: &Env) -> Result<()> {
    let limit = Limit::set(env)?;
    let (fs, file) = one(env)?;
    handle_signals()?;
    let before = Stats::look(env)?;
    let crowd = Crowd::start(env, &fs, &file, &ENGINES[..1], &limit)?;
    // Requests of other groups do not wait for those of the crowd. Children are in the group as well.
    let inside = crowd.group.enter()?;
    let (mut faults, mut waiters) = (Vec::new(), Vec::new());
    let mut judge = |what: &str, waited: bool| -> Result<()> {
        let declined = Stats::look(env)?.map_or(0, |s| s.get("declined"));
        let known: u64 = faults.iter().map(|(_, _, declined)| *declined).sum();
        let declined = declined - before.as_ref().map_or(0, |s| s.get("declined")) - known;
        if declined > 0 || (env.module && !waited) {
            faults.push((what.to_owned(), waited, declined));
        }
        Ok(())
    };
    for (what, poke) in [("signal", Poke::Signal), ("task work", Poke::TaskWork)] {
        let waiter = waiter(&file, poke)?;
        for _ in 0..20 {
            std::thread::sleep(Duration::from_millis(25));
            if let Poke::Signal = poke {
                // SAFETY: The thread has not been joined.
                let sent = unsafe { libc::pthread_kill(waiter.as_pthread_t(), libc::SIGUSR1) };
                ensure!(sent == 0 || waiter.is_finished(), "pthread_kill: {sent}");
            }
        }
        judge(what, !waiter.is_finished())?;
        waiters.push(waiter);
    }
    let mut victim = bystander(&file)?;
    let waited = !victim.is_over()?;
    let ended = victim.kill(Duration::from_secs(20))?;
    judge("SIGKILL", waited)?;
    // Its end is that of all in the group.
    drop(inside);
    crowd.end()?;
    for waiter in waiters {
        match waiter.join() {
            Ok(result) => result?,
            Err(_) => bail!("panicked"),
        }
    }
    ensure!(ended, "a killed process waits for memory");
    let faults: Vec<_> = faults
        .iter()
        .map(|(what, waited, declined)| format!("{what}: waited {waited}, declined {declined}"))
        .collect();
    ensure!(
        faults.is_empty(),
        "waits for memory ended: {}",
        faults.join("; ")
    );
    served(before.as_ref())?;
    let pages = pagecache::pages(&model::open_direct(&file.path)?)?;
    ensure!(pages == 0 || !env.module, "{pages} pages are cached");
    Ok(())
}

// ---- loop ---------------------------------------------------------------------

/// A loop device. Detached on drop.
struct Loop(PathBuf);

impl Loop {
    fn new(file: &Path) -> Result<Self> {
        let name = fs::run("losetup", ["--find", "--show", fs::path(file)])?;
        Ok(Self(name.trim_end().into()))
    }

    /// From now on it reads and writes its file past the page cache.
    fn direct(&self) -> Result<()> {
        fs::run("losetup", ["--direct-io=on", fs::path(&self.0)])?;
        let name = self.0.file_name().context("a device with a name")?;
        let dio = Path::new("/sys/block").join(name).join("loop/dio");
        let on = std::fs::read_to_string(dio)?;
        ensure!(on == "1\n", "no direct I/O: {on}");
        Ok(())
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        if let Err(error) = fs::run("losetup", ["--detach", fs::path(&self.0)]) {
            eprintln!("# {error:#}");
        }
    }
}

/// Compressed data of a file system whose device is a file with compressed data: reads of the one
/// cannot keep those of the other from their memory.
fn on_loop(env: &Env) -> Result<()> {
    let limit = Limit::set(env)?;
    let below = Fs::make(env, &packed::spec("single", Csum::Crc32c, "zstd"))?;
    let image = below.path("image");
    File::create_new(&image)?.set_len(256 * MIB)?;
    let device = Loop::new(&image)?;
    let mut env_above = beside(env)?;
    env_above.disks = vec![device.0.clone()];
    let mut above = Fs::make(&env_above, &packed::spec("single", Csum::Crc32c, "lzo"))?;
    // Digits, and some zeros. lzo stores digits as they are, zstd packs them.
    let mut bytes = model::random(&mut env.rng(1), SIZE);
    for (nr, piece) in bytes.chunks_mut(BLOCK).enumerate() {
        for byte in piece {
            *byte = match nr % 16 {
                0 => 0,
                _ => b"0123456789abcdef"[usize::from(*byte & 15)],
            };
        }
    }
    let file = compressed(&above, "file", &bytes)?;
    above.remount()?;
    above.sync()?;
    below.sync()?;
    let extents = fiemap::extents(&File::open(&image)?)?;
    let kinds = fiemap::kinds(&extents, 0, 256 * MIB);
    ensure!(kinds.contains(&Kind::Compressed), "the image has {kinds:?}");
    device.direct()?;
    sys::drop_caches()?;
    warm(&file)?;
    let before = Stats::look(env)?;
    let mut crowd = Crowd::new(&below.devices, &file, &ENGINES[..1], &limit, SLOW)?;
    crowd.begin(env, &limit)?;
    let begin = Instant::now();
    while env.module && begin.elapsed() < LONG {
        none_declined(
            before.as_ref(),
            "one file system kept the memory of the other",
        )?;
        std::thread::sleep(Duration::from_millis(50));
    }
    crowd.end()?;
    served(before.as_ref()).map(drop)
}

// ---- accounts -----------------------------------------------------------------

/// Bounce memory is charged to the cgroup whose reads it is for.
fn memory(env: &Env) -> Result<()> {
    let limit = Limit::set(env)?;
    let (fs, file) = one(env)?;
    let before = Stats::look(env)?;
    let mut crowd = Crowd::new(&fs.devices, &file, &ENGINES[..1], &limit, 4 * MIB)?;
    let base = crowd.group.memory()?;
    crowd.begin(env, &limit)?;
    // What is in flight now and then has waited before.
    while crowd.seen()[0].ended < 48 && !crowd.is_over()? {
        std::thread::sleep(Duration::from_millis(5));
    }
    let mut gauge = 0;
    if env.module {
        gauge = Stats::read()?.get("private_bytes");
    }
    let rise = crowd.group.memory()?.saturating_sub(base);
    ensure!(!crowd.is_over()? || !env.module, "the crowd has read all");
    crowd.end()?;
    served(before.as_ref())?;
    eprintln!(
        "# {}: charged with {} KiB, {} KiB in flight",
        env.case,
        rise / KIB,
        gauge / KIB
    );
    ensure!(
        (gauge / 2..=2 * gauge + 16 * MIB).contains(&rise) || !env.module,
        "charged with {rise} bytes, with {gauge} bytes of bounce memory in flight"
    );
    Ok(())
}

/// A read of which a worker does a part.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Scene {
    /// A compressed read that needs more bounce memory than one attempt may have.
    Rest,
    /// A read of a bad copy: it is read again, and then the other copy is.
    Reread,
}

impl Scene {
    /// Makes the file.
    fn make(self, env: &Env) -> Result<(Fs, Model, Option<Placed>)> {
        if self == Self::Rest {
            let (fs, mut file) = one(env)?;
            file.truncate(SIZE as u64)?;
            file.sync()?;
            return Ok((fs, file, None));
        }
        let fs = Fs::make(env, &Spec::new("raid1", Csum::Crc32c))?;
        let mut file = Model::create(fs.path("file"))?;
        file.write_direct(&mut env.rng(0), 0, MIB as usize)?;
        let placed = Placed::find(&fs, &file)?;
        Ok((fs, file, Some(placed)))
    }

    /// Makes it ready to be read: its metadata is in memory, and its first copy is bad, if it has two.
    fn prepare(self, fs: &Fs, file: &Model, placed: Option<&Placed>) -> Result<()> {
        // By the second copy.
        let direct = model::open_direct(&file.path)?;
        let wanted = file.data.as_slice();
        as_reader_of(2, 1, || {
            let memory = Region::new(wanted.len())?;
            let count = sys::pread(direct.as_raw_fd(), &memory.iovec(0..wanted.len()), 0)?;
            ensure!(count == wanted.len() && memory.bytes() == wanted);
            Ok(())
        })?;
        sys::drop_pages(&file.file()?)?;
        for copies in placed.map_or(&[][..], |placed| &placed.blocks) {
            device::write_block(fs, &copies[0], &[0xbb; BLOCK])?;
        }
        Ok(())
    }

    /// Reads the file in a process of `group`. `ready` is called before it begins.
    fn read(
        self,
        group: &Cgroup,
        file: &Model,
        via: Via,
        ready: impl FnOnce(u32) -> Result<()>,
    ) -> Result<Seen> {
        let mut deep = Deep::start(via, file, 1, file.data.len())?;
        group.add(deep.pid())?;
        ready(deep.pid())?;
        deep.go()?;
        deep.end()
    }

    /// Checks that it was read as it was meant to be.
    fn check(self, before: Option<&Stats>) -> Result<()> {
        let Some(before) = before else { return Ok(()) };
        let moved = Stats::read()?.since(before);
        let good = match self {
            Self::Rest => moved.trouble() == 0,
            Self::Reread => moved.get("recovered") == MIB / B,
        };
        ensure!(good && moved.get("declined") == 0, "{moved}");
        Ok(())
    }
}

/// Whether two amounts are the same, but for some in a hundred.
fn alike(a: u64, b: u64) -> bool {
    a.abs_diff(b) <= a.max(b) / 16
}

/// Bytes that devices read are in the account of the process and of its cgroup, whoever issued them.
fn charged(env: &Env, scene: Scene) -> Result<()> {
    let _policy = Policy::fs(env)?;
    let (fs, file, placed) = scene.make(env)?;
    let group = Cgroup::new("fair")?;
    for via in WAYS {
        scene.prepare(&fs, &file, placed.as_ref())?;
        let before = (Stats::look(env)?, Devices::look(env)?);
        let charged = group.bytes_read(&fs.devices)?;
        let seen = scene.read(&group, &file, via, |_| Ok(()))?;
        scene.check(before.0.as_ref())?;
        let charged = group.bytes_read(&fs.devices)? - charged;
        let counted = seen.read_bytes.context("never told")?;
        let mut all = charged;
        if env.module {
            let devices = Devices::read()?.since(&before.1, &fs)?;
            all = crate::devices::sum(&devices, "bytes");
        }
        eprintln!(
            "# {}: {via:?}: {all} read, {charged} charged, {counted} counted",
            env.case
        );
        ensure!(
            all > 0 && alike(charged, all),
            "{via:?}: {all} bytes were read, the cgroup is charged with {charged}"
        );
        ensure!(
            alike(counted, all),
            "{via:?}: {all} bytes were read, the process has {counted} in its account"
        );
    }
    Ok(())
}

/// Bytes of `device` that requests for data read, of this class of priority and in all.
fn by_class(trace: &str, device: &Path, class: &str) -> Result<(u64, u64)> {
    use std::os::linux::fs::MetadataExt;
    let number = std::fs::metadata(device)?.st_rdev();
    let number = format!("{},{}", libc::major(number), libc::minor(number));
    let (mut those, mut all) = (0, 0);
    for line in trace.lines() {
        let Some((_, event)) = line.split_once(" block_rq_issue: ") else {
            continue;
        };
        let mut words = event.split_whitespace();
        let (Some(dev), Some(kind), Some(bytes)) = (words.next(), words.next(), words.next())
        else {
            continue;
        };
        if dev != number || !kind.starts_with('R') || kind.contains('M') {
            continue;
        }
        let bytes: u64 = bytes.parse().with_context(|| line.to_owned())?;
        all += bytes;
        let priority = words.find(|word| word.matches(',').count() == 2);
        let priority = priority.with_context(|| format!("no priority: {line}"))?;
        if priority.starts_with(class) {
            those += bytes;
        }
    }
    Ok((those, all))
}

/// Requests have the I/O priority of the process that reads, whoever issued them.
fn priority(env: &Env, scene: Scene) -> Result<()> {
    const WHO_PROCESS: i32 = 1;
    let _policy = Policy::fs(env)?;
    let (fs, file, placed) = scene.make(env)?;
    let group = Cgroup::new("fair")?;
    for (class, value) in [("idle,", 3 << 13), ("rt,", 1 << 13 | 4)] {
        for via in ENGINES.map(Via::Async) {
            scene.prepare(&fs, &file, placed.as_ref())?;
            let before = Stats::look(env)?;
            let events = Events::of("block/block_rq_issue")?;
            scene.read(&group, &file, via, |pid| {
                // SAFETY: No pointers.
                let set = unsafe { libc::syscall(libc::SYS_ioprio_set, WHO_PROCESS, pid, value) };
                sys::check(set as isize).context("ioprio_set")?;
                Ok(())
            })?;
            let trace = events.end()?;
            scene.check(before.as_ref())?;
            for device in &fs.devices {
                let (those, all) = by_class(&trace, device, class)?;
                // btrfs does not take it along to what it reads again.
                let known = env.module || scene == Scene::Rest;
                ensure!(
                    (those == all && all > 0) || !known,
                    "{via:?}: of {all} bytes {those} were read with priority {class}"
                );
            }
        }
    }
    Ok(())
}
