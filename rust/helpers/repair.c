// SPDX-License-Identifier: GPL-2.0

#include <linux/blkdev.h>
#include <linux/fs.h>
#include <linux/fserror.h>
#include "btrfs_inode.h"
#include "fs.h"
#include "messages.h"
#include "volumes.h"
#include "helpers.h"

/* As btrfs_log_dev_io_error() does it, of a read that ended with this error. */
void bdio_count_read_error(struct btrfs_device *device, int error)
{
	const blk_status_t status = errno_to_blk_status(error);

	if (!device->bdev)
		return;
	if (status == BLK_STS_IOERR || status == BLK_STS_TARGET ||
	    status == BLK_STS_MEDIUM || status == BLK_STS_PROTECTION) {
		btrfs_dev_stat_inc_and_print(device, BTRFS_DEV_STAT_READ_ERRS);
		return;
	}
	rcu_read_lock();
	btrfs_warn_rl(device->fs_info, "bdev %s unexpected block io error: %d",
		      btrfs_dev_name(device), status);
	rcu_read_unlock();
}

/* Whether the filesystem is neither read-only nor broken. */
bool bdio_may_write(struct btrfs_fs_info *fs_info)
{
	return !sb_rdonly(fs_info->sb) && !BTRFS_FS_ERROR(fs_info) &&
	       !btrfs_is_shutdown(fs_info);
}

/*
 * Leave to write to the devices: the filesystem is neither read-only nor frozen
 * nor broken, and nobody freezes or remounts it before bdio_write_end().
 */
bool bdio_write_begin(struct btrfs_fs_info *fs_info)
{
	struct super_block *sb = fs_info->sb;

	/* Who makes it read-only holds this. */
	if (!down_read_trylock(&sb->s_umount))
		return false;
	if (bdio_may_write(fs_info) && sb_start_intwrite_trylock(sb))
		return true;
	up_read(&sb->s_umount);
	return false;
}

void bdio_write_end(struct btrfs_fs_info *fs_info)
{
	sb_end_intwrite(fs_info->sb);
	up_read(&fs_info->sb->s_umount);
}

/* As btrfs_print_data_csum_error() has it, for people who look for that. */
void bdio_warn_csum(const struct btrfs_inode *inode, u64 offset, const u8 *csum,
		    const u8 *expected, int mirror)
{
	const struct btrfs_root *root = inode->root;
	const u32 size = root->fs_info->csum_size;

	btrfs_warn_rl(root->fs_info,
"csum failed root %lld ino %llu off %llu csum " BTRFS_CSUM_FMT " expected csum " BTRFS_CSUM_FMT " mirror %d",
		      btrfs_root_id(root), btrfs_ino(inode), offset,
		      BTRFS_CSUM_FMT_VALUE(size, csum),
		      BTRFS_CSUM_FMT_VALUE(size, expected), mirror);
}

/* As iomap_dio_complete() does it, for who listens to errors of the filesystem. */
void bdio_report_read_error(struct btrfs_inode *inode, u64 offset, u64 len, int error)
{
	fserror_report_io(&inode->vfs_inode, FSERR_DIRECTIO_READ, offset, len, error,
			  GFP_NOFS);
}
