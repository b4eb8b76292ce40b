/* SPDX-License-Identifier: GPL-2.0 */
/*
 * One thin C function for each inline function or macro that Rust needs, and
 * nothing more: no logic lives here.
 */

#ifndef BTRFS_DIO_HELPERS_H
#define BTRFS_DIO_HELPERS_H

#include <linux/types.h>

struct bio;
struct bio_vec;
struct block_device;
struct btrfs_chunk_map;
struct btrfs_device;
struct btrfs_file_extent_item;
struct btrfs_fs_info;
struct btrfs_inode;
struct btrfs_ordered_extent;
struct delayed_work;
struct completion;
struct dentry;
struct extent_buffer;
struct extent_map;
struct extent_state;
struct file;
struct inode;
struct iov_iter;
struct iovec;
struct kiocb;
struct mem_cgroup;
struct page;
struct percpu_ref;
struct seq_file;
struct shrinker;
struct task_struct;
struct work_struct;
struct workqueue_struct;

/* btrfs.c */
void bdio_get_extent_state(struct extent_state *state);
void bdio_start_ordered_extent(struct btrfs_ordered_extent *ordered);
bool bdio_has_block_group(struct btrfs_fs_info *fs_info, u64 start);
void bdio_free_chunk_map(struct btrfs_chunk_map *map);
u64 bdio_incompat_flags(const struct btrfs_fs_info *fs_info);
bool bdio_replace_avoids_source(struct btrfs_fs_info *fs_info);
bool bdio_bio_counter_try(struct btrfs_fs_info *fs_info);
struct extent_map *bdio_cached_extent(struct btrfs_inode *inode, u64 start, u64 len);
struct extent_map *bdio_settled_extent(struct btrfs_inode *inode, u64 start, u64 len);
bool bdio_has_async_extent(const struct btrfs_inode *inode);
bool bdio_no_data_csums(const struct btrfs_fs_info *fs_info);
u64 bdio_generation(const struct btrfs_fs_info *fs_info);
u64 bdio_ino(const struct btrfs_inode *inode);
struct btrfs_file_extent_item *bdio_file_extent(const struct extent_buffer *leaf,
						int slot);
u32 bdio_item_size(const struct extent_buffer *leaf, int slot);

/* repair.c */
void bdio_count_read_error(struct btrfs_device *device, int error);
void bdio_report_read_error(struct btrfs_inode *inode, u64 offset, u64 len, int error);
bool bdio_may_write(struct btrfs_fs_info *fs_info);
bool bdio_write_begin(struct btrfs_fs_info *fs_info);
void bdio_write_end(struct btrfs_fs_info *fs_info);
void bdio_warn_csum(const struct btrfs_inode *inode, u64 offset, const u8 *csum,
		    const u8 *expected, int mirror);

/* owner.c */
struct bdio_work_for {
	struct mem_cgroup *memcg;
	struct mem_cgroup *before;
	u64 read_bytes;
};

struct task_struct *bdio_current(void);
void bdio_task_get(struct task_struct *task);
void bdio_task_put(struct task_struct *task);
u64 bdio_task_owner(struct task_struct *task);
u64 bdio_current_owner(void);
bool bdio_current_must_not_wait(void);
void bdio_work_for_begin(struct task_struct *task, struct bdio_work_for *saved);
void bdio_work_for_end(struct task_struct *task, const struct bdio_work_for *saved);

/* block.c */
void bdio_bdev_get(struct block_device *bdev);
void bdio_bdev_put(struct block_device *bdev);
unsigned int bdio_bdev_dma_alignment(struct block_device *bdev);
dev_t bdio_bdev_number(struct block_device *bdev);
void bdio_bio_set_dev(struct bio *bio, struct block_device *bdev);
void bdio_bio_set_vecs(struct bio *bio, const struct bio_vec *vecs,
		       unsigned int offset, unsigned int size);
unsigned short bdio_merge_vecs(struct bio_vec *vecs, unsigned short nr);

/* params.c */
#define BDIO_POLICY_SPREAD	0
#define BDIO_POLICY_FS		1
extern unsigned int bdio_read_policy;
extern unsigned int bdio_bounce_kib;

/* clock.c */
unsigned long bdio_jiffies(void);

/* counters.c */
#define BDIO_COUNTERS	64
void bdio_counter_add(unsigned int nr, u64 value);
u64 bdio_counter_sum(unsigned int nr);

/* debugfs.c */
struct dentry *bdio_debugfs_create(const char *dir);
void bdio_debugfs_file(struct dentry *dir, const char *file,
		       void (*show)(struct seq_file *m));
void bdio_debugfs_remove(struct dentry *dir);

/* decode.c */
size_t bdio_lzo1x_worst_compress(size_t len);

/* hash.c */
void bdio_sha256(const void *data, size_t len, u8 *out);
void bdio_blake2b_256(const void *data, size_t len, u8 *out);

/* inode.c */
struct inode *bdio_file_inode(const struct kiocb *iocb);
loff_t bdio_i_size_read(const struct inode *inode);
void bdio_inode_lock_shared(struct inode *inode);
void bdio_inode_unlock_shared(struct inode *inode);
void bdio_inode_dio_begin(struct inode *inode);
void bdio_inode_dio_end(struct inode *inode);
const struct iovec *bdio_iter_iov(const struct iov_iter *iter);
bool bdio_inode_trylock_shared(struct inode *inode);
bool bdio_range_needs_writeback(struct inode *inode, loff_t start, loff_t end);
pgoff_t bdio_wait_folio(struct inode *inode, pgoff_t index);
ssize_t bdio_read_sync(const struct kiocb *of, struct iov_iter *iter, loff_t pos);
void bdio_complete(struct kiocb *iocb, long result);
bool bdio_atime_is_due(const struct kiocb *iocb);
bool bdio_atime_lags(const struct kiocb *iocb);
void bdio_file_accessed(const struct kiocb *iocb);

/* layout.c */
struct bdio_layout {
	u64 extent_map_hole;
	u64 extent_map_inline;
	u32 path_size;
	u32 inode_vfs_inode;
	u32 inode_io_tree;
	u32 inode_extent_tree;
	u32 inode_runtime_flags;
	u32 fs_info_sectorsize;
	u32 fs_info_csum_type;
	u32 fs_info_csums_per_leaf;
	u32 fs_info_fs_devices;
	u32 fs_devices_read_policy;
	u32 root_fs_info;
	u32 inode_root;
	u32 inode_flags;
	u32 replace_srcdev;
	u32 replace_state;
	u32 extent_map_flags;
	u32 extent_map_disk_bytenr;
	u32 extent_map_disk_num_bytes;
	u32 extent_map_ram_bytes;
	u32 extent_map_generation;
	u32 dio_ops_size;
	u32 percpu_ref_size;
	u32 work_size;
	u32 fs_info_commit_root_sem;
	u32 fs_info_dev_replace;
	u32 chunk_map_stripes;
	u32 io_stripe_size;
	u32 extent_map_size;
	u32 device_bdev;
	u32 device_dev_state;
	u32 bio_size;
	u32 iov_iter_size;
	u32 kiocb_size;
	u32 bio_private;
	u32 bio_set_size;
	u32 bio_vec_size;
	u32 plug_size;
	u32 completion_size;
	u32 vfs_inode_mapping;
	u32 rb_node_size;
	u32 z_stream_size;
	u32 shrinker_private_data;
	u32 shrinker_scan_objects;
	u32 shrink_control_nr_to_scan;
	u32 kiocb_complete;
	u32 iov_iter_type;
};

void bdio_layout(struct bdio_layout *layout);

/* memalloc.c */
unsigned int bdio_memalloc_nofs_save(void);
unsigned int bdio_memalloc_flags(void);
unsigned int bdio_memalloc_flags_save(unsigned int flags);
void bdio_memalloc_flags_restore(unsigned int flags);
void *bdio_alloc_bounce(size_t len, bool may_sleep);
struct page *bdio_kv_to_page(const void *addr);
bool bdio_is_vmalloc(const void *addr);
phys_addr_t bdio_kv_to_phys(const void *addr);
size_t bdio_memory(void);
bool bdio_pages_are_dirty(struct page *page, size_t nr);
void bdio_unpin_dirty(struct page *page, size_t nr);

/* per_cpu.c */
void __percpu *bdio_per_cpu_alloc(size_t size, size_t align);
void bdio_per_cpu_free(void __percpu *area);
void *bdio_per_cpu_this(void __percpu *area);
void *bdio_per_cpu_of(void __percpu *area, unsigned int cpu);
u64 bdio_per_cpu_sum(const u64 __percpu *value);

/* rcu.c */
void bdio_synchronize_tails(void);

/* ref.c */
void bdio_ref_get(struct percpu_ref *ref);
void bdio_ref_put(struct percpu_ref *ref);
void bdio_wait_idle(struct completion *done);

/* shrinker.c */
struct shrinker *bdio_shrinker_alloc(const char *name);

/* task.c */
int bdio_current_pid(void);
bool bdio_is_io_worker(void);

/* trace.c */
void bdio_trace_read_begin(const struct inode *inode, loff_t offset, size_t length);
void bdio_trace_read_end(const struct inode *inode, loff_t offset, size_t length,
			 ssize_t result);

/* workqueue.c */
struct workqueue_struct *bdio_alloc_workqueue(const char *name);
void bdio_init_work(struct work_struct *work, void (*func)(struct work_struct *work));
void bdio_init_work_on_stack(struct work_struct *work,
			     void (*func)(struct work_struct *work));
void bdio_destroy_work_on_stack(struct work_struct *work);
struct workqueue_struct *bdio_alloc_unbound_workqueue(const char *name);
unsigned int bdio_online_cpus(void);
void bdio_init_delayed_work(struct delayed_work *work,
			    void (*func)(struct work_struct *work));
bool bdio_queue_delayed_work(struct delayed_work *work, unsigned long delay);
bool bdio_queue_work(struct workqueue_struct *queue, struct work_struct *work);

#endif /* BTRFS_DIO_HELPERS_H */
