// SPDX-License-Identifier: GPL-2.0

//! The KUnit suites: boundary tables of all that needs no filesystem.

mod cache;
mod checksum;
mod checksum_cache;
mod decode;
mod decode_lzo;
mod decode_zlib;
mod fair_share;
mod mirror;
mod plan;
mod range;
mod request;
mod stats;
mod stripe;
mod unstable;
mod verify;
