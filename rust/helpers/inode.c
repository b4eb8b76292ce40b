// SPDX-License-Identifier: GPL-2.0

#include <linux/fs.h>
#include <linux/fsverity.h>
#include <linux/uio.h>
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

bool bdio_fsverity_active(const struct inode *inode)
{
	return fsverity_active(inode);
}

bool bdio_is_encrypted(const struct inode *inode)
{
	return IS_ENCRYPTED(inode);
}

bool bdio_is_sync_kiocb(const struct kiocb *iocb)
{
	return is_sync_kiocb((struct kiocb *)iocb);
}

bool bdio_iter_is_ubuf(const struct iov_iter *iter)
{
	return iter_is_ubuf(iter);
}

bool bdio_iter_is_iovec(const struct iov_iter *iter)
{
	return iter_is_iovec(iter);
}

bool bdio_iter_is_bvec(const struct iov_iter *iter)
{
	return iov_iter_is_bvec(iter);
}

bool bdio_iter_will_pin(const struct iov_iter *iter)
{
	return iov_iter_extract_will_pin(iter);
}

const struct iovec *bdio_iter_iov(const struct iov_iter *iter)
{
	return iter_iov(iter);
}
