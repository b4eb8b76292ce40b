/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Headers that the bindings are generated from. Types of the core kernel are
 * not generated again: they are those of the kernel crate.
 */

/* The headers of btrfs rely on these having come first. */
#include <linux/bio.h>
#include <linux/blkdev.h>
#include <linux/fs.h>
#include <linux/pagemap.h>

#include "accessors.h"
#include "bio.h"
#include "btrfs_inode.h"
#include "ctree.h"
#include "dev-replace.h"
#include "disk-io.h"
#include "extent-io-tree.h"
#include "extent_io.h"
#include "extent_map.h"
#include "file-item.h"
#include "fs.h"
#include "ordered-data.h"
#include "raid56.h"
#include "volumes.h"

#include <linux/btrfs_dio.h>
#include <linux/crc32c.h>
#include <linux/lzo.h>
#include <linux/shrinker.h>
#include <linux/xxhash.h>
#include <linux/zlib.h>
#include <linux/zstd.h>
#include <linux/zutil.h>

#include "helpers.h"

/* bindgen does not evaluate casts. */
const u32 RUST_CONST_HELPER_IOCB_NOWAIT = (__force u32)IOCB_NOWAIT;
const u64 RUST_CONST_HELPER_BTRFS_INCOMPAT_RST = BTRFS_FEATURE_INCOMPAT_RAID_STRIPE_TREE;
const u64 RUST_CONST_HELPER_BTRFS_INCOMPAT_REMAP = BTRFS_FEATURE_INCOMPAT_REMAP_TREE;
const u32 RUST_CONST_HELPER_BTRFS_INLINE_DATA_START = BTRFS_FILE_EXTENT_INLINE_DATA_START;
const size_t RUST_CONST_HELPER_LZO1X_MEM_COMPRESS = LZO1X_MEM_COMPRESS;
const gfp_t RUST_CONST_HELPER_NOFS = GFP_NOFS;
const gfp_t RUST_CONST_HELPER_NOWAIT = GFP_NOWAIT;
/* Nor, in some versions, what is beyond LONG_MAX. */
const long RUST_CONST_HELPER_BDIO_SHRINK_EMPTY = (long)SHRINK_EMPTY;
const long RUST_CONST_HELPER_BDIO_SHRINK_STOP = (long)SHRINK_STOP;
const u32 RUST_CONST_HELPER_READ_OPF =
	(__force u32)(REQ_OP_READ | REQ_SYNC | REQ_IDLE);
