// SPDX-License-Identifier: GPL-2.0

#include <linux/file.h>
#include <linux/fs.h>
#include "helpers.h"

struct file *bdio_get_file(const struct kiocb *iocb)
{
	return get_file(iocb->ki_filp);
}
