// SPDX-License-Identifier: GPL-2.0

//! Others on the machine: loop devices on images, and programs that ask what direct
//! I/O takes, get the same answers with the module as without it, whether it was
//! loaded before the loop device was made, or after.

use super::Case;
use crate::buffer::{BLOCK, Region, first_difference};
use crate::env::{Env, skip};
use crate::fs::{self, Csum, Fs, Spec};
use crate::gpt;
use crate::model;
use crate::module;
use crate::stats::Stats;
use crate::sys;
use anyhow::{Context, Result, ensure};
use std::fs::{File, OpenOptions};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// What every loop device has for a sector, in bytes.
const SECTOR: usize = 512;
/// The options that compress, or do not.
const OPTIONS: [(&str, &str); 2] = [("plain", ""), ("zstd", "compress-force=zstd")];

/// A check of a loop device on an image.
type Check = fn(&Env, &Fs, &mut Image, When) -> Result<()>;

pub fn cases(_: &Env) -> Vec<Case> {
    let mut cases = Vec::new();
    for (options, mount) in OPTIONS {
        for (name, make, check) in [
            ("sectors", random as Make, sectors as Check),
            ("told", random, told),
            ("end", uneven_end, end),
            ("gpt", partitioned, partitions),
            ("xfs", xfs, mounts),
        ] {
            let name = format!("{name}-{options}");
            cases.push(Case::new(name, move |env| each(env, mount, make, check)));
        }
    }
    cases.push(Case::new("statx", statx));
    cases
}

/// When the module is loaded, seen from a loop device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum When {
    Never,
    Before,
    After,
}

/// An image, and what it must hold.
struct Image {
    path: PathBuf,
    data: Vec<u8>,
}

/// Makes an image in a file system.
type Make = fn(&Env, &Fs) -> Result<Image>;

impl Image {
    /// An image of these bytes.
    fn of(fs: &Fs, data: Vec<u8>) -> Result<Self> {
        let path = fs.path("image");
        std::fs::write(&path, &data)?;
        let image = Self { path, data };
        image.forget()?;
        Ok(image)
    }

    /// Leaves nothing of it in the page cache.
    fn forget(&self) -> Result<()> {
        Ok(sys::drop_pages(&File::open(&self.path)?)?)
    }

    /// Attaches it, with more options, and past the page cache; once it is, calls `loaded`.
    fn attach(&self, more: &[&str], loaded: impl FnOnce() -> Result<()>) -> Result<Loop> {
        self.forget()?;
        let mut args = vec!["--find", "--show", "--direct-io=on"];
        args.extend(more);
        args.push(fs::path(&self.path));
        let path = PathBuf::from(fs::run("losetup", args)?.trim_end());
        let device = Loop { path };
        loaded()?;
        Ok(device)
    }
}

/// A loop device, detached on drop.
struct Loop {
    path: PathBuf,
}

impl Loop {
    fn name(&self) -> &str {
        let name = self.path.file_name().unwrap_or_default();
        name.to_str().unwrap_or_default()
    }

    /// One of its attributes.
    fn attribute(&self, name: &str) -> Result<String> {
        let path = Path::new("/sys/block").join(self.name()).join(name);
        let text = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        Ok(text.trim_end().to_owned())
    }

    /// Says of what size its sectors are, and whether it reads past the page cache.
    fn check(&self) -> Result<()> {
        for (name, wanted) in [("queue/logical_block_size", "512"), ("loop/dio", "1")] {
            let found = self.attribute(name)?;
            ensure!(found == wanted, "{name} is {found}, wanted {wanted}");
        }
        Ok(())
    }

    /// The nodes of its partitions.
    fn partitions(&self) -> Result<Vec<PathBuf>> {
        let mut found = Vec::new();
        for entry in std::fs::read_dir(Path::new("/sys/block").join(self.name()))? {
            let name = entry?.file_name();
            if name.to_string_lossy().starts_with(self.name()) {
                found.push(Path::new("/dev").join(name));
            }
        }
        found.sort();
        Ok(found)
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        if let Err(error) = fs::run("losetup", ["--detach", fs::path(&self.path)]) {
            eprintln!("# {error:#}");
        }
    }
}

/// Checks an image without the module, with one that was there before the loop device,
/// and with one that came after it.
fn each(env: &Env, options: &str, make: Make, check: Check) -> Result<()> {
    let spec = Spec::new("single", Csum::Crc32c).options(options);
    let fs = Fs::make(env, &spec)?;
    let mut image = make(env, &fs)?;
    module::without(env, || check(env, &fs, &mut image, When::Never)).context("without")?;
    if !env.module {
        return Ok(());
    }
    check(env, &fs, &mut image, When::Before).context("loaded before")?;
    module::unload_in_time()?;
    let checked = check(env, &fs, &mut image, When::After).context("loaded after");
    if !module::loaded() {
        module::load(env)?;
    }
    checked
}

/// Attaches an image, and calls `f` with the device. Where there is a module, it must
/// have served what was read.
fn attached(
    env: &Env,
    image: &Image,
    more: &[&str],
    when: When,
    f: impl FnOnce(&Loop) -> Result<()>,
) -> Result<()> {
    ensure!(module::loaded() == (when == When::Before), "loaded or not");
    let device = image.attach(more, || match when {
        When::After => module::load(env),
        _ => Ok(()),
    })?;
    device.check()?;
    let before = (when != When::Never).then(Stats::read).transpose()?;
    f(&device)?;
    device.check()?;
    drop(device);
    let Some(before) = before else { return Ok(()) };
    let moved = Stats::read()?.since(&before);
    ensure!(moved.get("reads") > 0, "not served: {moved}");
    ensure!(moved.trouble() == 0, "trouble with sound disks: {moved}");
    if when == When::After {
        module::unload_in_time()?;
    }
    Ok(())
}

fn random(env: &Env, fs: &Fs) -> Result<Image> {
    Image::of(fs, model::uneven(&mut env.rng(0), 2 << 20))
}

/// Whole sectors, but no whole blocks.
fn uneven_end(env: &Env, fs: &Fs) -> Result<Image> {
    let len = (1 << 20) + 3 * BLOCK + 3 * SECTOR;
    Image::of(fs, model::random(&mut env.rng(0), len))
}

/// The sectors of the device are as small as without the module.
fn sectors(env: &Env, _: &Fs, image: &mut Image, when: When) -> Result<()> {
    attached(env, image, &[], when, |device| {
        compare(&device.path, &image.data, 0..image.data.len())
    })
}

/// Whoever says what the sectors are gets them, and direct I/O.
fn told(env: &Env, _: &Fs, image: &mut Image, when: When) -> Result<()> {
    attached(env, image, &["--sector-size", "512"], when, |device| {
        compare(&device.path, &image.data, 0..image.data.len())
    })
}

/// Reads a range of a device past the page cache, and compares.
fn compare(device: &Path, data: &[u8], range: std::ops::Range<usize>) -> Result<()> {
    let file = model::open_direct(device)?;
    let mut region = Region::new(range.len())?;
    let at = format!("{} {range:?}", device.display());
    file.read_exact_at(region.bytes_mut(), range.start as u64)
        .with_context(|| at.clone())?;
    let differs = first_difference(region.bytes(), &data[range]);
    ensure!(differs.is_none(), "{at}: differs at {differs:?}");
    Ok(())
}

/// The end of an image that has no whole blocks.
fn end(env: &Env, _: &Fs, image: &mut Image, when: When) -> Result<()> {
    attached(env, image, &[], when, |device| {
        let len = image.data.len();
        for back in [SECTOR, 3 * SECTOR, BLOCK, 2 * BLOCK + SECTOR, len] {
            compare(&device.path, &image.data, len - back..len)?;
        }
        // Through its page cache, as most programs do.
        let bytes = std::fs::read(&device.path)?;
        ensure!(bytes.len() == len, "{} bytes of {len}", bytes.len());
        let differs = first_difference(&bytes, &image.data);
        ensure!(differs.is_none(), "differs at {differs:?}");
        Ok(())
    })
}

/// Where the partitions are, in sectors: none of them begins with a block.
const PARTITIONS: [std::ops::Range<u64>; 2] = [67..1203, 1205..3000];

fn partitioned(env: &Env, fs: &Fs) -> Result<Image> {
    let mut data = model::uneven(&mut env.rng(0), 2 << 20);
    gpt::write(&mut data, SECTOR, &PARTITIONS);
    Image::of(fs, data)
}

/// All partitions are there, and hold what they must.
fn partitions(env: &Env, _: &Fs, image: &mut Image, when: When) -> Result<()> {
    attached(env, image, &["--partscan"], when, |device| {
        let found = device.partitions()?;
        ensure!(found.len() == PARTITIONS.len(), "partitions: {found:?}");
        for (node, sectors) in found.iter().zip(PARTITIONS) {
            let bytes = sectors.start as usize * SECTOR..sectors.end as usize * SECTOR;
            let data = &image.data[bytes];
            compare(node, data, 0..data.len())?;
        }
        Ok(())
    })
}

/// As small as mkfs.xfs makes one.
const XFS_SIZE: u64 = 320 << 20;

/// An XFS of sectors of 512 bytes, without any file so far.
fn xfs(_: &Env, fs: &Fs) -> Result<Image> {
    if !std::fs::read_to_string("/proc/filesystems")?.contains("\txfs\n") {
        return Err(skip("a kernel without XFS"));
    }
    let path = fs.path("image");
    File::create_new(&path)?.set_len(XFS_SIZE)?;
    let options = ["-q", "-f", "-s", "size=512", "-K"];
    fs::run("mkfs.xfs", options.into_iter().chain([fs::path(&path)]))?;
    let data = Vec::new();
    Ok(Image { path, data })
}

/// An XFS that is mounted. Unmounted on drop.
struct Xfs(PathBuf);

impl Xfs {
    fn mount(device: &Path) -> Result<Self> {
        let mnt = PathBuf::from("/tmp/diotest.xfs");
        std::fs::create_dir_all(&mnt)?;
        let both = [fs::path(device), fs::path(&mnt)];
        fs::run("mount", ["-t", "xfs"].into_iter().chain(both))?;
        Ok(Self(mnt))
    }
}

impl Drop for Xfs {
    fn drop(&mut self) {
        if let Err(error) = fs::run("umount", [fs::path(&self.0)]) {
            eprintln!("# {error:#}");
            sys::umount_lazily(&self.0);
        }
    }
}

/// It mounts, what was written before is there, and what is written now will be.
fn mounts(env: &Env, _: &Fs, image: &mut Image, when: When) -> Result<()> {
    let mut data = std::mem::take(&mut image.data);
    attached(env, image, &[], when, |device| {
        let xfs = Xfs::mount(&device.path)?;
        let path = xfs.0.join("file");
        if !data.is_empty() {
            // What the file system reads, and then what XFS reads of it by itself.
            let found = std::fs::read(&path)?;
            let differs = first_difference(&found, &data);
            ensure!(differs.is_none(), "differs at {differs:?}");
            compare(&path, &data, SECTOR..data.len() / BLOCK * BLOCK)?;
        }
        let more = model::random(&mut env.rng(when as u64), 300_000 + SECTOR);
        let file = OpenOptions::new().create(true).append(true).open(&path)?;
        std::io::Write::write_all(&mut &file, &more)?;
        file.sync_all()?;
        data.extend(more);
        sys::drop_pages(&file)?;
        compare(&path, &data, 0..data.len() / BLOCK * BLOCK)
    })?;
    image.data = data;
    Ok(())
}

/// What statx(2) tells of a file: which of it is there, and how direct I/O is aligned.
fn told_by_statx(file: &File) -> Result<Vec<u64>> {
    use std::os::fd::AsRawFd;
    // SAFETY: Plain data, for which zeros are valid.
    let mut stat: libc::statx = unsafe { std::mem::zeroed() };
    // SAFETY: A path that ends, and memory to write the answer to.
    sys::check(unsafe {
        libc::statx(
            file.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH,
            // STATX_DIOALIGN and STATX_DIO_READ_ALIGN besides.
            libc::STATX_BASIC_STATS | 0x2000 | 0x20000,
            &raw mut stat,
        )
    } as isize)?;
    Ok(vec![
        stat.stx_mask.into(),
        stat.stx_blksize.into(),
        stat.stx_attributes,
        stat.stx_attributes_mask,
        stat.stx_dio_mem_align.into(),
        stat.stx_dio_offset_align.into(),
    ])
}

/// Programs that ask are told the same.
fn statx(env: &Env) -> Result<()> {
    for (_, options) in OPTIONS {
        let spec = Spec::new("single", Csum::Crc32c).options(options);
        let fs = Fs::make(env, &spec)?;
        let image = random(env, &fs)?;
        let ask = |direct: bool| -> Result<Vec<u64>> {
            let flags = if direct { libc::O_DIRECT } else { 0 };
            let mut options = OpenOptions::new();
            let file = options.read(true).custom_flags(flags).open(&image.path)?;
            told_by_statx(&file)
        };
        let both = || Ok((ask(false)?, ask(true)?));
        let without = module::without(env, both)?;
        let with = both()?;
        eprintln!("# {}: {without:?}", env.case);
        ensure!(with == without, "{without:?} without, {with:?} with");
    }
    Ok(())
}
