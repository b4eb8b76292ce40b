// SPDX-License-Identifier: GPL-2.0

#include <linux/fs.h>
#include "btrfs_inode.h"
#include "fs.h"
#include "messages.h"
#include "helpers.h"

/*
 * Leave to write to the devices: the filesystem is neither read-only nor frozen
 * nor broken, and does not become the first two before bdio_write_end().
 */
bool bdio_write_begin(struct btrfs_fs_info *fs_info)
{
	struct super_block *sb = fs_info->sb;

	/* Who makes it read-only holds this. */
	if (!down_read_trylock(&sb->s_umount))
		return false;
	if (!sb_rdonly(sb) && !BTRFS_FS_ERROR(fs_info) &&
	    !btrfs_is_shutdown(fs_info) && sb_start_intwrite_trylock(sb))
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
