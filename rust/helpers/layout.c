// SPDX-License-Identifier: GPL-2.0

#include <linux/bio.h>
#include <linux/blkdev.h>
#include <linux/btrfs_dio.h>
#include <linux/completion.h>
#include <linux/fs.h>
#include <linux/percpu-refcount.h>
#include <linux/workqueue.h>
#include <linux/shrinker.h>
#include <linux/uio.h>
#include <linux/zlib.h>
#include "btrfs_inode.h"
#include "ctree.h"
#include "extent_map.h"
#include "fs.h"
#include "volumes.h"
#include "helpers.h"

/* What the compiler of the kernel makes of what Rust reads and writes. */
void bdio_layout(struct bdio_layout *layout)
{
	*layout = (struct bdio_layout) {
		.extent_map_hole = EXTENT_MAP_HOLE,
		.extent_map_inline = EXTENT_MAP_INLINE,
		.path_size = sizeof(struct btrfs_path),
		.inode_vfs_inode = offsetof(struct btrfs_inode, vfs_inode),
		.inode_io_tree = offsetof(struct btrfs_inode, io_tree),
		.inode_extent_tree = offsetof(struct btrfs_inode, extent_tree),
		.inode_runtime_flags = offsetof(struct btrfs_inode, runtime_flags),
		.fs_info_sectorsize = offsetof(struct btrfs_fs_info, sectorsize),
		.fs_info_csum_type = offsetof(struct btrfs_fs_info, csum_type),
		.fs_info_csums_per_leaf = offsetof(struct btrfs_fs_info, csums_per_leaf),
		.fs_info_fs_devices = offsetof(struct btrfs_fs_info, fs_devices),
		.fs_devices_read_policy = offsetof(struct btrfs_fs_devices, read_policy),
		.root_fs_info = offsetof(struct btrfs_root, fs_info),
		.inode_root = offsetof(struct btrfs_inode, root),
		.inode_flags = offsetof(struct btrfs_inode, flags),
		.replace_srcdev = offsetof(struct btrfs_dev_replace, srcdev),
		.replace_state = offsetof(struct btrfs_dev_replace, replace_state),
		.extent_map_flags = offsetof(struct extent_map, flags),
		.extent_map_disk_bytenr = offsetof(struct extent_map, disk_bytenr),
		.extent_map_disk_num_bytes = offsetof(struct extent_map, disk_num_bytes),
		.extent_map_ram_bytes = offsetof(struct extent_map, ram_bytes),
		.extent_map_generation = offsetof(struct extent_map, generation),
		.dio_ops_size = sizeof(struct btrfs_dio_ops),
		.percpu_ref_size = sizeof(struct percpu_ref),
		.work_size = sizeof(struct work_struct),
		.fs_info_commit_root_sem = offsetof(struct btrfs_fs_info, commit_root_sem),
		.fs_info_dev_replace = offsetof(struct btrfs_fs_info, dev_replace),
		.chunk_map_stripes = offsetof(struct btrfs_chunk_map, stripes),
		.io_stripe_size = sizeof(struct btrfs_io_stripe),
		.extent_map_size = sizeof(struct extent_map),
		.device_bdev = offsetof(struct btrfs_device, bdev),
		.device_dev_state = offsetof(struct btrfs_device, dev_state),
		.bio_size = sizeof(struct bio),
		.iov_iter_size = sizeof(struct iov_iter),
		.kiocb_size = sizeof(struct kiocb),
		.bio_private = offsetof(struct bio, bi_private),
		.bio_set_size = sizeof(struct bio_set),
		.bio_vec_size = sizeof(struct bio_vec),
		.plug_size = sizeof(struct blk_plug),
		.completion_size = sizeof(struct completion),
		.vfs_inode_mapping = offsetof(struct inode, i_mapping),
		.rb_node_size = sizeof(struct rb_node),
		.z_stream_size = sizeof(struct z_stream_s),
		.shrinker_private_data = offsetof(struct shrinker, private_data),
		.shrinker_scan_objects = offsetof(struct shrinker, scan_objects),
		.shrink_control_nr_to_scan = offsetof(struct shrink_control, nr_to_scan),
		.kiocb_complete = offsetof(struct kiocb, ki_complete),
		.iov_iter_type = offsetof(struct iov_iter, iter_type),
	};
}
