// SPDX-License-Identifier: GPL-2.0

//! A table for people: files of every kind, read with O_DIRECT through the
//! module and then without it; who read them, whether the bytes are right, and
//! what it cost the page cache.

use crate::aio::Engine;
use crate::env::Env;
use crate::fs::{self, Csum, Fs, Spec};
use crate::kinds;
use crate::model::{self, Model};
use crate::module;
use crate::packed;
use crate::pagecache;
use crate::read::{Request, Via};
use crate::stats::Stats;
use crate::subject::Subject;
use anyhow::Result;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;

/// One line of the table.
struct Row {
    reader: String,
    sum: String,
    equal: bool,
    before: usize,
    after: usize,
    /// Whether this is what is promised of the module.
    kept: bool,
}

/// A file of the demonstration, and how it is read.
struct Exhibit {
    what: &'static str,
    model: Model,
    request: Request,
}

impl Exhibit {
    fn new(what: &'static str, model: Model) -> Self {
        let len = model.data.len().next_multiple_of(4096);
        Self {
            what,
            model,
            request: Request::pread(0, len),
        }
    }
}

/// What a file system is filled with.
type Fill = fn(&Env, &Fs) -> Result<Vec<Exhibit>>;

/// Sums for the last sentence.
#[derive(Default)]
struct Sums {
    files: u32,
    served: u32,
    left: BTreeMap<String, u32>,
    broken: u32,
    mainline_pages: usize,
    mainline_wrong: u32,
}

/// Shows it. Whether everything was as promised.
pub fn run(env: &Env) -> Result<bool> {
    let rooms: [(Spec, Fill); 8] = [
        (Spec::new("raid1", Csum::Crc32c), every_kind),
        (Spec::new("single", Csum::Xxhash), plain_and_inline),
        (Spec::new("dup", Csum::NoDataSum), plain_and_inline),
        (Spec::new("raid0", Csum::Blake2), plain_and_inline),
        (Spec::new("raid10", Csum::Sha256), plain_and_inline),
        (Spec::new("raid1c3", Csum::Crc32c), plain_and_inline),
        (
            Spec::new("single", Csum::Crc32c).options("compress-force"),
            compressed,
        ),
        (Spec::new("raid5", Csum::Crc32c), parity),
    ];
    let mut sums = Sums::default();
    header();
    for (spec, fill) in rooms {
        let mut fs = Fs::make(env, &spec)?;
        let exhibits = fill(env, &fs)?;
        let mut with = Vec::new();
        if env.module {
            fs.remount()?;
            for exhibit in &exhibits {
                with.push(read(env, exhibit)?);
            }
            module::unload()?;
        }
        let plain = Env {
            module: false,
            ..env.clone()
        };
        fs.remount()?;
        let mut without = Vec::new();
        for exhibit in &exhibits {
            without.push(read(&plain, exhibit)?);
        }
        if env.module {
            module::load(env)?;
        }
        for (i, exhibit) in exhibits.iter().enumerate() {
            print(&spec, exhibit, with.get(i), &without[i]);
            sums.add(with.get(i), &without[i]);
        }
    }
    Ok(sums.tell(env))
}

/// Reads a file whole, and looks at what that did.
fn read(env: &Env, exhibit: &Exhibit) -> Result<Row> {
    let subject = Subject::open(env, &exhibit.model)?;
    let before = pagecache::pages(&subject.direct)?;
    let (outcome, moved) = subject.observe(&exhibit.request)?;
    let after = pagecache::pages(&subject.direct)?;
    let want = subject.wanted(&exhibit.request);
    let equal = outcome.verify(&exhibit.request, want, false).is_ok();
    let sum: String = Sha256::digest(outcome.bytes())
        .iter()
        .take(4)
        .map(|b| format!("{b:02x}"))
        .collect();
    let (reader, kept) = match &moved {
        Some(moved) => through_module(moved, exhibit, after == before),
        None if after > before => ("mainline, by the page cache".into(), true),
        None => ("mainline, direct".into(), true),
    };
    Ok(Row {
        reader,
        sum,
        equal,
        before,
        after,
        kept: kept && equal,
    })
}

/// Who served a read while the module was loaded, and whether that is as promised.
fn through_module(moved: &Stats, exhibit: &Exhibit, clean: bool) -> (String, bool) {
    let reasons = moved.reasons();
    if moved.get("reads") == 1 && reasons.is_empty() {
        let queued = moved.get("queued") == 1;
        return match exhibit.request.via {
            Via::Async(_) if queued => ("btrfs_dio, not waited for".into(), clean),
            Via::Async(_) => ("btrfs_dio, waited for".into(), false),
            _ => ("btrfs_dio".into(), clean && !queued),
        };
    }
    (format!("left to mainline: {}", reasons.join(", ")), false)
}

impl Sums {
    fn add(&mut self, with: Option<&Row>, without: &Row) {
        self.files += 1;
        self.mainline_pages += without.after - without.before;
        self.mainline_wrong += u32::from(!without.equal);
        let Some(with) = with else { return };
        self.broken += u32::from(!with.kept);
        match with.reader.strip_prefix("left to mainline: ") {
            Some(reason) => *self.left.entry(reason.into()).or_default() += 1,
            None => self.served += 1,
        }
    }

    fn tell(&self, env: &Env) -> bool {
        let (files, pages) = (self.files, self.mainline_pages);
        let good = self.broken == 0 && self.mainline_wrong == 0;
        println!();
        if env.module {
            let left: Vec<_> = self
                .left
                .iter()
                .map(|(why, n)| format!("{n} {why}"))
                .collect();
            let left = if left.is_empty() {
                "none".into()
            } else {
                left.join(", ")
            };
            println!(
                "{files} reads with O_DIRECT: {} served by btrfs_dio without",
                self.served
            );
            println!("touching the page cache, left to mainline: {left}.");
        }
        println!(
            "Mainline alone put {pages} pages into the page cache for the same {files} reads."
        );
        match (good, self.broken) {
            (true, _) => println!("Every byte was as written, and every promise was kept."),
            (false, n) => println!("BROKEN: {n} reads were not as promised, see the lines above."),
        }
        good
    }
}

fn header() {
    println!(
        "{:<24}{:<9}{:<10}{:>8}  {:<29}{:<15}{:>13}",
        "file", "profile", "checksum", "bytes", "read by", "equal, sha256", "cached pages"
    );
    println!("{}", "-".repeat(110));
}

fn print(spec: &Spec, exhibit: &Exhibit, with: Option<&Row>, without: &Row) {
    let bytes = exhibit
        .request
        .total()
        .min(exhibit.model.data.len())
        .to_string();
    let mut left = (
        exhibit.what,
        spec.profile.name,
        spec.csum.name(),
        bytes.as_str(),
    );
    for row in with.into_iter().chain([without]) {
        let equal = if row.equal { "yes" } else { "NO" };
        let mark = if row.kept { "" } else { " BROKEN" };
        println!(
            "{:<24}{:<9}{:<10}{:>8}  {:<29}{:<15}{:>13}{mark}",
            left.0,
            left.1,
            left.2,
            left.3,
            row.reader,
            format!("{equal} {}", row.sum),
            format!("{} -> {}", row.before, row.after),
        );
        left = ("", "", "", "");
    }
}

/// A file of each kind, and one that is read in other ways: at a multiple of 512
/// bytes only, and by who does not wait.
fn every_kind(env: &Env, fs: &Fs) -> Result<Vec<Exhibit>> {
    let names = [
        ("plain", "plain extents"),
        ("hole", "data and holes"),
        ("prealloc", "preallocated"),
        ("halfwritten", "preallocated, written"),
        ("inline5-2047", "inline"),
        ("fragments", "many small extents"),
        ("reflink", "shared by reflink"),
        ("origin", "shared with a snapshot"),
        ("bookends", "parts of old extents"),
        ("mix", "all of it in one file"),
    ];
    let mut exhibits = Vec::new();
    for model in kinds::all(env, fs)? {
        let name = model.name();
        let listed = names.iter().find(|(file, _)| *file == name);
        let seen = exhibits.iter().any(|e: &Exhibit| e.model.name() == name);
        match listed {
            Some((_, what)) if !seen => exhibits.push(Exhibit::new(what, model)),
            _ => {}
        }
    }
    let ways = [
        ("plain, read at 512", Request::pread(512, 100 * 512)),
        (
            "plain, by libaio",
            Request::pread(0, 1 << 20).via(Via::Async(Engine::Libaio)),
        ),
        (
            "plain, by io_uring",
            Request::pread(0, 1 << 20).via(Via::Async(Engine::Uring)),
        ),
    ];
    for (i, (what, request)) in ways.into_iter().enumerate() {
        let mut model = Model::create(fs.path(format!("way{i}")))?;
        model.write_random(&mut env.rng(1), 0, 1 << 20)?;
        model.sync()?;
        let mut exhibit = Exhibit::new(what, model);
        exhibit.request = request;
        exhibits.push(exhibit);
    }
    Ok(exhibits)
}

fn plain_and_inline(env: &Env, fs: &Fs) -> Result<Vec<Exhibit>> {
    let mut rng = env.rng(2);
    let mut plain = Model::create(fs.path("plain"))?;
    plain.write_random(&mut rng, 0, (1 << 20) + 1000)?;
    plain.sync()?;
    let mut small = Model::create(fs.path("small"))?;
    small.write_random(&mut rng, 0, 1500)?;
    small.sync()?;
    Ok(vec![
        Exhibit::new("plain extents", plain),
        Exhibit::new("inline", small),
    ])
}

/// A file compressed by each algorithm, one of them in the metadata, and one
/// read at a multiple of 512 bytes only.
fn compressed(env: &Env, fs: &Fs) -> Result<Vec<Exhibit>> {
    let mut rng = env.rng(3);
    let mut exhibits = Vec::new();
    let files = [
        ("compressed by zlib", "zlib", 1 << 20),
        ("compressed by lzo", "lzo", 1 << 20),
        ("compressed by zstd", "zstd", 1 << 20),
        ("zstd, read at 512", "zstd", 1 << 20),
        ("inline, compressed", "zstd", 2000),
    ];
    for (i, (what, algorithm, size)) in files.into_iter().enumerate() {
        let mut model = Model::create(fs.path(format!("compressed{i}")))?;
        let path = fs::path(&model.path);
        fs::run("btrfs", ["property", "set", path, "compression", algorithm])?;
        model.write(0, &model::compressible(&mut rng, size))?;
        model.sync()?;
        let mut exhibit = Exhibit::new(what, model);
        if what.ends_with("512") {
            exhibit.request = Request::pread(512 * 77, 512 * 300);
        } else if size > 4096 {
            packed::first(&exhibit.model)?;
        }
        exhibits.push(exhibit);
    }
    Ok(exhibits)
}

fn parity(env: &Env, fs: &Fs) -> Result<Vec<Exhibit>> {
    let mut exhibits = plain_and_inline(env, fs)?;
    let plain = exhibits.swap_remove(0);
    Ok(vec![plain])
}
