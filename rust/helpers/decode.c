// SPDX-License-Identifier: GPL-2.0

#include <linux/types.h>
#include <linux/lzo.h>
#include "helpers.h"

size_t bdio_lzo1x_worst_compress(size_t len)
{
	return lzo1x_worst_compress(len);
}
