// SPDX-License-Identifier: GPL-2.0

//! Headers of inline items.

use super::inline_header::{Header, SIZE};
use crate::{props::config, safe::decode::Compression};
use kernel::prelude::*;
use proptest::{prelude::*, sample::select};

proptest! {
    #![proptest_config(config())]

    /// What is written as include/uapi/linux/btrfs_tree.h has it is read, if it is known; and whatever
    /// sizes it gives, no more is copied than the item has.
    #[test]
    fn inline_headers_are_read(
        generation in any::<u64>(),
        ram_bytes in prop_oneof![any::<u64>(), 0u64..10_000],
        compression in prop_oneof![0u8..6, any::<u8>()],
        encryption in select(&[0u8, 0, 0, 1, 255]),
        other_encoding in any::<u16>(),
        kind in select(&[0u8, 0, 0, 1, 2, 255]),
        stored in 0usize..70_000,
        max in select(&[512usize, 4096, 65_536]),
    ) {
        let mut raw = Vec::new();
        raw.extend(generation.to_le_bytes());
        raw.extend(ram_bytes.to_le_bytes());
        raw.extend([compression, encryption]);
        raw.extend(other_encoding.to_le_bytes());
        raw.push(kind);
        let raw: [u8; SIZE] = raw.try_into().unwrap();
        let how = match compression {
            0 => Some(None),
            1 => Some(Some(Compression::Zlib)),
            2 => Some(Some(Compression::Lzo)),
            3 => Some(Some(Compression::Zstd)),
            _ => None,
        };
        let wanted = match (kind, encryption, how) {
            (0, 0, Some(how)) => Ok(Some(Header { how, ram_bytes })),
            (0, ..) => Err(EOPNOTSUPP),
            _ => Ok(None),
        };
        let header = Header::parse(&raw);
        prop_assert_eq!(header, wanted);
        if let Ok(Some(header)) = header {
            let (copied, len) = header.extent(stored, max);
            prop_assert!(copied <= stored && len <= max && len as u64 <= ram_bytes);
            prop_assert!(header.how.is_some() || copied <= len);
            // As much as there is, of plain data; all of the stream, of compressed.
            let most = if header.how.is_some() { usize::MAX } else { len };
            prop_assert_eq!(copied, stored.min(most));
        }
    }
}
