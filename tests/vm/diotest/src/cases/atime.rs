// SPDX-License-Identifier: GPL-2.0

//! Access times: a direct read moves them as the mount and the file say, whatever
//! the data is stored as and however it is asked for. A read that may not wait
//! never does so itself.

use super::Case;
use super::nowait::attempt;
use crate::aio::Engine;
use crate::buffer::BLOCK;
use crate::env::Env;
use crate::fiemap::{self, Kind};
use crate::fs::{self, Csum, Fs, Spec};
use crate::model::{self, Model};
use crate::module;
use crate::read::{Request, Via};
use crate::subject::{self, Subject};
use crate::sys;
use anyhow::{Result, ensure};
use std::fs::{File, FileTimes, OpenOptions};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::time::{Duration, SystemTime};

const HOUR: Duration = Duration::from_secs(3600);

pub fn cases(_: &Env) -> Vec<Case> {
    let mut cases = Vec::new();
    for (name, via) in [
        ("pread", Via::Pread),
        ("libaio", Via::Async(Engine::Libaio)),
        ("io_uring", Via::Async(Engine::Uring)),
    ] {
        let name = format!("relatime-{name}");
        cases.push(Case::new(name, move |env| relatime(env, via)));
    }
    cases.push(Case::new("as-mainline", as_mainline));
    cases.push(Case::new("strictatime", strictatime));
    cases.push(Case::new("noatime", |env| remounted(env, "noatime", false)));
    cases.push(Case::new("nodiratime", |env| {
        remounted(env, "nodiratime", true)
    }));
    cases.push(Case::new("ro", |env| remounted(env, "ro", false)));
    cases.push(Case::new("o_noatime", o_noatime));
    cases.push(Case::new("chattr", chattr));
    cases.push(Case::new("snapshot-ro", snapshot));
    cases.push(Case::new("frozen", frozen));
    cases.push(Case::new("nowait", nowait));
    cases
}

/// The access time of a file: seconds and nanoseconds.
fn atime(path: &Path) -> Result<(i64, i64)> {
    let meta = std::fs::metadata(path)?;
    Ok((meta.atime(), meta.atime_nsec()))
}

/// Makes it a time so far back, and returns that. A change of the file is newer then.
fn age(path: &Path, by: Duration) -> Result<(i64, i64)> {
    let times = FileTimes::new().set_accessed(SystemTime::now() - by);
    File::open(path)?.set_times(times)?;
    atime(path)
}

fn make(env: &Env) -> Result<Fs> {
    Fs::make(env, &Spec::new("single", Csum::Crc32c).access_times())
}

fn plain(env: &Env, fs: &Fs) -> Result<Model> {
    let mut file = Model::create(fs.path("plain"))?;
    file.write_random(&mut env.rng(0), 0, 64 << 10)?;
    sys::drop_pages(&file.file()?)?;
    Ok(file)
}

/// A file of plain extents, one of compressed ones and one inline.
fn files(env: &Env, fs: &Fs) -> Result<Vec<(Kind, Model)>> {
    let plain = plain(env, fs)?;
    let mut compressed = Model::create(fs.path("compressed"))?;
    let path = fs::path(&compressed.path);
    fs::run("btrfs", ["property", "set", path, "compression", "zstd"])?;
    compressed.write(0, &model::compressible(&mut env.rng(1), 64 << 10))?;
    let mut inline = Model::create(fs.path("inline"))?;
    inline.write_random(&mut env.rng(2), 0, 1000)?;
    let files = vec![
        (Kind::Regular, plain),
        (Kind::Compressed, compressed),
        (Kind::Inline, inline),
    ];
    for (kind, file) in &files {
        sys::drop_pages(&file.file()?)?;
        let extents = fiemap::extents(&file.file()?)?;
        let found = fiemap::kinds(&extents, 0, file.size());
        ensure!(found == [*kind], "{}: {found:?}", file.name());
    }
    Ok(files)
}

/// Reads, and demands that the module served it. Looks at the page cache neither before nor
/// after: that maps the file, which moves the time of access as well.
fn read(subject: &Subject<'_>, request: &Request) -> Result<()> {
    let (outcome, moved) = subject.observe(request)?;
    let want = subject.wanted(request);
    subject.judge(request, outcome.verify(request, want, moved.is_some()))?;
    let Some(moved) = moved else { return Ok(()) };
    let kinds = subject.kinds(request);
    // Of one that ends early io_uring reads the rest, which is nothing.
    let verdict = subject::served(&moved, want.len(), 2, kinds.as_deref())
        .and_then(|()| subject::as_asked(&moved, request, kinds.as_deref()));
    subject.judge(request, verdict)
}

/// Whether a read moves the time of access of a file that was changed since it was read.
fn moves(env: &Env, file: &Model, via: Via) -> Result<bool> {
    let before = age(&file.path, HOUR)?;
    let subject = Subject::open(env, file)?;
    let request = Request::pread(0, 2 * BLOCK).via(via);
    read(&subject, &request)?;
    let moved = atime(&file.path)?;
    ensure!(
        moved == before || moved > before && moved >= mtime(&file.path)?,
        "{}: from {before:?} to {moved:?}",
        subject.at(&request)
    );
    if moved != before {
        // Once is enough until it is changed.
        std::thread::sleep(Duration::from_millis(50));
        read(&subject, &request)?;
        let again = atime(&file.path)?;
        ensure!(
            again == moved,
            "{}: {moved:?}, then {again:?}",
            subject.at(&request)
        );
    }
    Ok(moved != before)
}

fn mtime(path: &Path) -> Result<(i64, i64)> {
    let meta = std::fs::metadata(path)?;
    Ok((meta.mtime(), meta.mtime_nsec()))
}

/// The first read after a change moves it, and no other one.
fn relatime(env: &Env, via: Via) -> Result<()> {
    let fs = make(env)?;
    for (kind, file) in files(env, &fs)? {
        let moved = moves(env, &file, via)?;
        let wanted = env.module || kind != Kind::Regular;
        ensure!(moved == wanted, "{kind:?}: moved {moved}, wanted {wanted}");
    }
    Ok(())
}

/// What btrfs moves without the module is moved with it.
fn as_mainline(env: &Env) -> Result<()> {
    let fs = make(env)?;
    for (kind, file) in files(env, &fs)? {
        let moves = |env: &Env| moves(env, &file, Via::Pread);
        let without = module::without(env, || {
            let env = Env {
                module: false,
                ..env.clone()
            };
            moves(&env)
        })?;
        sys::drop_pages(&file.file()?)?;
        let with = moves(env)?;
        ensure!(with || !without, "{kind:?}: only without the module");
        ensure!(without == (kind != Kind::Regular), "{kind:?}: {without}");
    }
    Ok(())
}

fn remount(fs: &Fs, options: &str) -> Result<()> {
    let options = format!("remount,{options}");
    fs::run("mount", ["-o", &options, fs::path(&fs.mnt)]).map(drop)
}

/// Every read moves it, but one that may not wait does not.
fn strictatime(env: &Env) -> Result<()> {
    let fs = make(env)?;
    let file = plain(env, &fs)?;
    remount(&fs, "strictatime")?;
    let subject = Subject::open(env, &file)?;
    let request = Request::pread(0, BLOCK);
    let mut last = age(&file.path, HOUR)?;
    for _ in 0..3 {
        std::thread::sleep(Duration::from_millis(50));
        read(&subject, &request)?;
        let now = atime(&file.path)?;
        ensure!(now > last || !env.module, "{last:?}, then {now:?}");
        last = now;
    }
    may_not_wait(env, &subject)
}

/// One that may not wait leaves the time of access alone. A ring gives its read to a worker then, if
/// the time of access is old.
fn may_not_wait(env: &Env, subject: &Subject<'_>) -> Result<()> {
    let path = &subject.model.path;
    let request = Request::pread(0, BLOCK);
    for _ in 0..env.scaled(3) {
        // Brings in extent maps and checksums.
        read(subject, &request)?;
        let old = age(path, HOUR)?;
        for _ in 0..2 {
            let ready = attempt(subject, request.clone())?;
            ensure!(ready || !env.module, "EAGAIN, for the time of access");
            ensure!(atime(path)? == old || !env.module, "moved without waiting");
        }
        read(subject, &request.clone().via(Via::Async(Engine::Uring)))?;
        let moved = atime(path)?;
        ensure!(moved > old || !env.module, "{old:?}, then {moved:?}");
        // Not old for a while, on a machine of any speed: in the future.
        let times = FileTimes::new()
            .set_accessed(SystemTime::now() + HOUR)
            .set_modified(SystemTime::now() + 2 * HOUR);
        File::open(path)?.set_times(times)?;
        let young = atime(path)?;
        let ready = attempt(subject, request.clone())?;
        ensure!(ready || !env.module, "EAGAIN, though atime is young");
        ensure!(atime(path)? == young || !env.module, "moved all the same");
    }
    Ok(())
}

fn nowait(env: &Env) -> Result<()> {
    let fs = make(env)?;
    for (_, file) in files(env, &fs)? {
        may_not_wait(env, &Subject::open(env, &file)?)?;
    }
    Ok(())
}

/// Nothing moves it, and nobody waits for that.
fn stays(env: &Env, subject: &Subject<'_>, before: (i64, i64)) -> Result<()> {
    let request = Request::pread(0, BLOCK);
    let path = &subject.model.path;
    read(subject, &request)?;
    ensure!(atime(path)? == before, "moved by a read");
    let ready = attempt(subject, request)?;
    ensure!(
        ready || !env.module,
        "EAGAIN, though nothing is to be moved"
    );
    ensure!(atime(path)? == before, "moved by a read that may not wait");
    Ok(())
}

/// Mounted so that files stay as they are, or not.
fn remounted(env: &Env, options: &str, moving: bool) -> Result<()> {
    let fs = make(env)?;
    let file = plain(env, &fs)?;
    let before = age(&file.path, HOUR)?;
    remount(&fs, options)?;
    let subject = Subject::open(env, &file)?;
    if !moving {
        return stays(env, &subject, before);
    }
    read(&subject, &Request::pread(0, BLOCK))?;
    let after = atime(&file.path)?;
    ensure!(after > before || !env.module, "{before:?}, then {after:?}");
    Ok(())
}

fn o_noatime(env: &Env) -> Result<()> {
    let fs = make(env)?;
    let file = plain(env, &fs)?;
    let before = age(&file.path, HOUR)?;
    let mut subject = Subject::open(env, &file)?;
    subject.direct = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_DIRECT | libc::O_NOATIME)
        .open(&file.path)?;
    stays(env, &subject, before)
}

/// Of a file that is marked so that nothing moves it.
fn chattr(env: &Env) -> Result<()> {
    let fs = make(env)?;
    let file = plain(env, &fs)?;
    let before = age(&file.path, HOUR)?;
    fs::run("chattr", ["+A", fs::path(&file.path)])?;
    stays(env, &Subject::open(env, &file)?, before)
}

/// In a snapshot that is read-only, though the file system is not.
fn snapshot(env: &Env) -> Result<()> {
    let fs = make(env)?;
    let file = plain(env, &fs)?;
    let before = age(&file.path, HOUR)?;
    let snap = fs.path("snap");
    let both = [fs::path(&fs.mnt), fs::path(&snap)];
    fs::run(
        "btrfs",
        ["subvolume", "snapshot", "-r"].into_iter().chain(both),
    )?;
    let file = file.twin(snap.join("plain"));
    stays(env, &Subject::open(env, &file)?, before)
}

/// While the file system is frozen.
fn frozen(env: &Env) -> Result<()> {
    let fs = make(env)?;
    let file = plain(env, &fs)?;
    let before = age(&file.path, HOUR)?;
    let subject = Subject::open(env, &file)?;
    fs::run("fsfreeze", ["-f", fs::path(&fs.mnt)])?;
    let stayed = stays(env, &subject, before);
    fs::run("fsfreeze", ["-u", fs::path(&fs.mnt)])?;
    stayed
}
