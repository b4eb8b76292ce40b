// SPDX-License-Identifier: GPL-2.0

//! As [`rust/decode.rs`](../../../../rust/decode.rs), of which there is only LZO.

#[path = "../../../../rust/decode/extent.rs"]
mod extent;
#[path = "../../../../rust/decode/lzo.rs"]
mod lzo;
#[path = "../../../../rust/decode/output.rs"]
mod output;

#[cfg(not(loom))]
mod props;

pub(crate) use self::{
    extent::{
        Compression,
        MAX_EXTENT, //
    },
    output::Output,
};

use self::extent::{
    Decoder,
    Extent,
    MAX_BLOCK, //
};
