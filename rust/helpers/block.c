// SPDX-License-Identifier: GPL-2.0

#include <linux/blkdev.h>
#include <linux/device.h>
#include <linux/overflow.h>
#include <xen/xen.h>
#include "helpers.h"

void bdio_bdev_get(struct block_device *bdev)
{
	get_device(&bdev->bd_device);
}

void bdio_bdev_put(struct block_device *bdev)
{
	put_device(&bdev->bd_device);
}

dev_t bdio_bdev_number(struct block_device *bdev)
{
	return bdev->bd_dev;
}

void bdio_bio_set_dev(struct bio *bio, struct block_device *bdev)
{
	bio_set_dev(bio, bdev);
}

/* As bio_iov_iter_set() does it: the vectors stay those of the submitter. */
void bdio_bio_set_vecs(struct bio *bio, const struct bio_vec *vecs,
		       unsigned int offset, unsigned int size)
{
	bio->bi_io_vec = (struct bio_vec *)vecs;
	bio->bi_iter.bi_idx = 0;
	bio->bi_iter.bi_offset = offset;
	bio->bi_iter.bi_size = size;
	bio_set_flag(bio, BIO_CLONED);
}

unsigned int bdio_bdev_dma_alignment(struct block_device *bdev)
{
	return bdev_dma_alignment(bdev);
}

/* As bvec_try_merge_page() does it, for whole pages. Returns how many are left. */
unsigned short bdio_merge_vecs(struct bio_vec *vecs, unsigned short nr)
{
	struct bio_vec *last = vecs;
	unsigned short i;

	if (!nr || IS_ENABLED(CONFIG_KMSAN) || xen_domain())
		return nr;
	for (i = 1; i < nr; i++) {
		struct bio_vec *vec = vecs + i;
		size_t end = (size_t)last->bv_offset + last->bv_len;
		unsigned int sum;

		if (vec->bv_offset == 0 && PAGE_ALIGNED(end) &&
		    last->bv_page + end / PAGE_SIZE == vec->bv_page &&
		    page_to_phys(last->bv_page) + end == page_to_phys(vec->bv_page) &&
		    !check_add_overflow(last->bv_len, vec->bv_len, &sum))
			last->bv_len = sum;
		else
			*++last = *vec;
	}
	return last - vecs + 1;
}
