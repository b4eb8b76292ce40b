// SPDX-License-Identifier: GPL-2.0

#include <linux/fs.h>
#include "accessors.h"
#include "block-group.h"
#include "btrfs_inode.h"
#include "ctree.h"
#include "dev-replace.h"
#include "extent-io-tree.h"
#include "extent_map.h"
#include "file-item.h"
#include "fs.h"
#include "ordered-data.h"
#include "volumes.h"
#include "helpers.h"

void bdio_get_extent_state(struct extent_state *state)
{
	refcount_inc(&state->refs);
}

void bdio_start_ordered_extent(struct btrfs_ordered_extent *ordered)
{
	btrfs_start_ordered_extent(ordered);
}

/* Whether there still is a block group in the chunk that starts at @start. */
bool bdio_has_block_group(struct btrfs_fs_info *fs_info, u64 start)
{
	struct rb_node *node;
	bool found = false;

	read_lock(&fs_info->block_group_cache_lock);
	node = fs_info->block_group_cache_tree.rb_root.rb_node;
	while (node && !found) {
		const struct btrfs_block_group *bg =
			rb_entry(node, struct btrfs_block_group, cache_node);

		found = bg->start == start;
		node = start < bg->start ? node->rb_left : node->rb_right;
	}
	read_unlock(&fs_info->block_group_cache_lock);
	return found;
}

void bdio_free_chunk_map(struct btrfs_chunk_map *map)
{
	btrfs_free_chunk_map(map);
}

u64 bdio_incompat_flags(const struct btrfs_fs_info *fs_info)
{
	return btrfs_super_incompat_flags(fs_info->super_copy);
}

bool bdio_replace_avoids_source(struct btrfs_fs_info *fs_info)
{
	struct btrfs_dev_replace *replace = &fs_info->dev_replace;

	return READ_ONCE(replace->cont_reading_from_srcdev_mode) ==
	       BTRFS_DEV_REPLACE_ITEM_CONT_READING_FROM_SRCDEV_MODE_AVOID;
}

/* What btrfs_bio_counter_inc_blocked() does, if it need not wait. */
bool bdio_bio_counter_try(struct btrfs_fs_info *fs_info)
{
	btrfs_bio_counter_sub(fs_info, -1);
	if (likely(!test_bit(BTRFS_FS_STATE_DEV_REPLACING, &fs_info->fs_state)))
		return true;
	btrfs_bio_counter_sub(fs_info, 1);
	return false;
}

/* The map that covers @start, if it need not be read. */
struct extent_map *bdio_cached_extent(struct btrfs_inode *inode, u64 start, u64 len)
{
	struct extent_map_tree *tree = &inode->extent_tree;
	struct extent_map *em;

	read_lock(&tree->lock);
	em = btrfs_lookup_extent_mapping(tree, start, len);
	read_unlock(&tree->lock);
	return em;
}

struct extent_map *bdio_settled_extent(struct btrfs_inode *inode, u64 start, u64 len)
{
	struct extent_map_tree *tree = &inode->extent_tree;
	struct extent_map *em;

	read_lock(&tree->lock);
	em = btrfs_lookup_extent_mapping(tree, start, len);
	if (em && (em->flags & EXTENT_FLAG_PINNED || em->start > start ||
		   btrfs_extent_map_end(em) - start < len)) {
		btrfs_free_extent_map(em);
		em = NULL;
	}
	read_unlock(&tree->lock);
	return em;
}

bool bdio_has_async_extent(const struct btrfs_inode *inode)
{
	return test_bit(BTRFS_INODE_HAS_ASYNC_EXTENT, &inode->runtime_flags);
}

bool bdio_no_data_csums(const struct btrfs_fs_info *fs_info)
{
	return test_bit(BTRFS_FS_STATE_NO_DATA_CSUMS, &fs_info->fs_state);
}

u64 bdio_generation(const struct btrfs_fs_info *fs_info)
{
	return btrfs_get_fs_generation(fs_info);
}

u64 bdio_ino(const struct btrfs_inode *inode)
{
	return btrfs_ino(inode);
}

struct btrfs_file_extent_item *bdio_file_extent(const struct extent_buffer *leaf,
						int slot)
{
	return btrfs_item_ptr(leaf, slot, struct btrfs_file_extent_item);
}

u32 bdio_item_size(const struct extent_buffer *leaf, int slot)
{
	return btrfs_item_size(leaf, slot);
}
