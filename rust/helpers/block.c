// SPDX-License-Identifier: GPL-2.0

#include <linux/blkdev.h>
#include <linux/device.h>
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
