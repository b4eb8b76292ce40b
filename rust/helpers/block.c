// SPDX-License-Identifier: GPL-2.0

#include <linux/blk_types.h>
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
