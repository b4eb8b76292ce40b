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

unsigned int bdio_bdev_dma_alignment(struct block_device *bdev)
{
	return bdev_dma_alignment(bdev);
}
