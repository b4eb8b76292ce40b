// SPDX-License-Identifier: GPL-2.0

#define CREATE_TRACE_POINTS
#include "trace.h"
#include "helpers.h"

void bdio_trace_read_begin(const struct inode *inode, loff_t offset, size_t length)
{
	trace_btrfs_dio_read_begin(inode, offset, length);
}

void bdio_trace_read_end(const struct inode *inode, loff_t offset, size_t length,
			 ssize_t result)
{
	trace_btrfs_dio_read_end(inode, offset, length, result);
}
