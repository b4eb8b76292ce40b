// SPDX-License-Identifier: GPL-2.0

//! What the module does not serve: the data is right all the same, because
//! mainline serves it, and the counters say why, once and for no other reason.

use super::Case;
use crate::buffer::BLOCK;
use crate::env::{Env, skip};
use crate::fs::{Csum, Fs, Spec};
use crate::model::Model;
use crate::read::{Request, Via};
use crate::subject::{Expect, Subject};
use crate::sys;
use anyhow::Result;
use rand::RngExt;
use std::fs::File;

const B: u64 = BLOCK as u64;

pub fn cases(_: &Env) -> Vec<Case> {
    vec![
        Case::new("unaligned", unaligned),
        Case::new("verity", verity),
    ]
}

fn plain(env: &Env, spec: &Spec, size: usize) -> Result<(Fs, Model)> {
    let mut fs = Fs::make(env, spec)?;
    let mut file = Model::create(fs.path("file"))?;
    file.write_random(&mut env.rng(0), 0, size)?;
    file.sync()?;
    fs.remount()?;
    Ok((fs, file))
}

/// Offset, length or buffer a multiple of less than 512.
fn unaligned(env: &Env) -> Result<()> {
    let (_fs, file) = plain(env, &Spec::new("raid1", Csum::Crc32c), 300_001)?;
    let subject = Subject::open(env, &file)?;
    let expect = Expect::Declined("unaligned");
    let mut rng = env.rng(1);
    for unit in [256, 1] {
        for what in 0..7 {
            let mut some = |on: bool| {
                if on {
                    // An odd number of them is no multiple of more.
                    (rng.random_range(0..BLOCK / unit / 2) * 2 + 1) * unit
                } else {
                    0
                }
            };
            // Any of the three, and every two or three of them.
            let which = what + 1;
            let (offset, len, shift) = (
                some(which & 1 != 0) as u64,
                some(which & 2 != 0) + 3 * BLOCK,
                some(which & 4 != 0),
            );
            for base in [0, 17 * B, 72 * B] {
                let request = Request::pread(base + offset, len).shift(shift);
                for via in [Via::Pread, Via::Read] {
                    subject.expect(&request.clone().via(via), expect)?;
                }
            }
        }
    }
    // One short vector among good ones.
    subject.expect(&Request::preadv(0, vec![BLOCK, 511, BLOCK]), expect)?;
    file.cross_check()
}

/// `struct fsverity_enable_arg`.
#[repr(C)]
#[derive(Default)]
struct EnableVerity {
    version: u32,
    hash_algorithm: u32,
    block_size: u32,
    salt_size: u32,
    salt_ptr: u64,
    sig_size: u32,
    reserved1: u32,
    sig_ptr: u64,
    reserved2: [u64; 11],
}

/// `FS_IOC_ENABLE_VERITY`, `_IOW('f', 133, struct fsverity_enable_arg)`.
const FS_IOC_ENABLE_VERITY: u64 = 0x4080_6685;

/// Files under fs-verity.
fn verity(env: &Env) -> Result<()> {
    let (mut fs, file) = plain(env, &Spec::new("single", Csum::Crc32c), 300_000)?;
    let mut arg = EnableVerity {
        version: 1,
        hash_algorithm: 1,
        block_size: 4096,
        ..EnableVerity::default()
    };
    let readable = File::open(&file.path)?;
    // SAFETY: That is the structure this request takes.
    match unsafe { sys::ioctl(&readable, FS_IOC_ENABLE_VERITY, &mut arg) } {
        Err(e) if e.raw_os_error() == Some(libc::EOPNOTSUPP) => {
            return Err(skip("a kernel without fs-verity"));
        }
        other => drop(other?),
    }
    drop(readable);
    fs.remount()?;
    let subject = Subject::open(env, &file)?;
    for (offset, len) in [(0, BLOCK), (40_960, 1 << 17), (290_816, 1 << 16)] {
        subject.expect(&Request::pread(offset, len), Expect::Declined("verity"))?;
    }
    file.cross_check()
}
