// SPDX-License-Identifier: GPL-2.0

#include <linux/fs.h>
#include <linux/mount.h>
#include <linux/pagemap.h>
#include <linux/timekeeping.h>
#include <linux/uio.h>
#include "btrfs_inode.h"
#include "ctree.h"
#include "helpers.h"

struct inode *bdio_file_inode(const struct kiocb *iocb)
{
	return file_inode(iocb->ki_filp);
}

loff_t bdio_i_size_read(const struct inode *inode)
{
	return i_size_read(inode);
}

void bdio_inode_lock_shared(struct inode *inode)
{
	inode_lock_shared(inode);
}

void bdio_inode_unlock_shared(struct inode *inode)
{
	inode_unlock_shared(inode);
}

void bdio_inode_dio_begin(struct inode *inode)
{
	inode_dio_begin(inode);
}

void bdio_inode_dio_end(struct inode *inode)
{
	inode_dio_end(inode);
}

const struct iovec *bdio_iter_iov(const struct iov_iter *iter)
{
	return iter_iov(iter);
}

bool bdio_inode_trylock_shared(struct inode *inode)
{
	return inode_trylock_shared(inode);
}

bool bdio_range_needs_writeback(struct inode *inode, loff_t start, loff_t end)
{
	return filemap_range_needs_writeback(inode->i_mapping, start, end);
}

/* Waits until nobody has the folio at @index locked; returns what comes next. */
pgoff_t bdio_wait_folio(struct inode *inode, pgoff_t index)
{
	struct folio *folio = filemap_get_folio(inode->i_mapping, index);
	pgoff_t next;

	if (IS_ERR(folio))
		return index + 1;
	folio_lock(folio);
	folio_unlock(folio);
	next = folio_next_index(folio);
	folio_put(folio);
	return next;
}

/* Reads from the file of an iocb, which itself is left alone. */
ssize_t bdio_read_sync(const struct kiocb *of, struct iov_iter *iter, loff_t pos)
{
	struct kiocb kiocb;

	init_sync_kiocb(&kiocb, of->ki_filp);
	kiocb.ki_flags |= IOCB_DIRECT;
	kiocb.ki_ioprio = of->ki_ioprio;
	kiocb.ki_pos = pos;
	return kiocb.ki_filp->f_op->read_iter(&kiocb, iter);
}

void bdio_complete(struct kiocb *iocb, long result)
{
	if (result > 0)
		iocb->ki_pos += result;
	iocb->ki_complete(iocb, result);
}

/*
 * Whether file_accessed() would move the time of access: as atime_needs_update(),
 * which is not exported.  False, too, where btrfs_update_time() would refuse.
 */
bool bdio_atime_is_due(const struct kiocb *iocb)
{
	const struct file *file = iocb->ki_filp;
	const struct vfsmount *mnt = file->f_path.mnt;
	struct inode *inode = file_inode(file);
	const struct timespec64 atime = inode_get_atime(inode);

	if ((file->f_flags & O_NOATIME) || (inode->i_flags & S_NOATIME) ||
	    IS_NOATIME(inode) ||
	    (mnt->mnt_flags & (MNT_NOATIME | MNT_READONLY)))
		return false;
	if (mnt->mnt_flags & MNT_RELATIME) {
		const struct timespec64 mtime = inode_get_mtime(inode);
		const struct timespec64 ctime = inode_get_ctime(inode);

		if (timespec64_compare(&mtime, &atime) < 0 &&
		    timespec64_compare(&ctime, &atime) < 0 &&
		    ktime_get_real_seconds() - atime.tv_sec < 24 * 60 * 60)
			return false;
	}
	return !btrfs_root_readonly(BTRFS_I(inode)->root) &&
	       READ_ONCE(inode->i_sb->s_writers.frozen) == SB_UNFROZEN &&
	       !HAS_UNMAPPED_ID(mnt_idmap(mnt), inode);
}

/*
 * Whether the time of access lags so much that it is worth a transaction: by more
 * than a second, or a file that is written all the time would have one for each
 * read.  By how much does not matter if each read has to move it.
 */
bool bdio_atime_lags(const struct kiocb *iocb)
{
	const struct file *file = iocb->ki_filp;

	return !(file->f_path.mnt->mnt_flags & MNT_RELATIME) ||
	       ktime_get_real_seconds() - inode_get_atime_sec(file_inode(file)) > 1;
}

void bdio_file_accessed(const struct kiocb *iocb)
{
	file_accessed(iocb->ki_filp);
}
