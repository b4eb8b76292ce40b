/* SPDX-License-Identifier: GPL-2.0 */
#undef TRACE_SYSTEM
#define TRACE_SYSTEM btrfs_dio

#if !defined(BTRFS_DIO_TRACE_H) || defined(TRACE_HEADER_MULTI_READ)
#define BTRFS_DIO_TRACE_H

#include <linux/fs.h>
#include <linux/tracepoint.h>

/* Offsets, lengths and results are in bytes. A result below 0 is an errno. */

TRACE_EVENT(btrfs_dio_read_begin,
	TP_PROTO(const struct inode *inode, loff_t offset, size_t length),
	TP_ARGS(inode, offset, length),
	TP_STRUCT__entry(
		__field(dev_t, dev)
		__field(u64, ino)
		__field(loff_t, offset)
		__field(size_t, length)
	),
	TP_fast_assign(
		__entry->dev = inode->i_sb->s_dev;
		__entry->ino = inode->i_ino;
		__entry->offset = offset;
		__entry->length = length;
	),
	TP_printk("dev=%d:%d ino=%llu offset=%lld length=%zu",
		  MAJOR(__entry->dev), MINOR(__entry->dev), __entry->ino,
		  __entry->offset, __entry->length)
);

TRACE_EVENT(btrfs_dio_read_end,
	TP_PROTO(const struct inode *inode, loff_t offset, size_t length,
		 ssize_t result),
	TP_ARGS(inode, offset, length, result),
	TP_STRUCT__entry(
		__field(dev_t, dev)
		__field(u64, ino)
		__field(loff_t, offset)
		__field(size_t, length)
		__field(ssize_t, result)
	),
	TP_fast_assign(
		__entry->dev = inode->i_sb->s_dev;
		__entry->ino = inode->i_ino;
		__entry->offset = offset;
		__entry->length = length;
		__entry->result = result;
	),
	TP_printk("dev=%d:%d ino=%llu offset=%lld length=%zu result=%zd",
		  MAJOR(__entry->dev), MINOR(__entry->dev), __entry->ino,
		  __entry->offset, __entry->length, __entry->result)
);

#endif /* BTRFS_DIO_TRACE_H */

#undef TRACE_INCLUDE_PATH
#define TRACE_INCLUDE_PATH .
#undef TRACE_INCLUDE_FILE
#define TRACE_INCLUDE_FILE trace
#include <trace/define_trace.h>
