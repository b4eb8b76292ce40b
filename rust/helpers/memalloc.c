// SPDX-License-Identifier: GPL-2.0

#include <linux/sched/mm.h>
#include "helpers.h"

unsigned int bdio_memalloc_nofs_save(void)
{
	return memalloc_nofs_save();
}

void bdio_memalloc_nofs_restore(unsigned int flags)
{
	memalloc_nofs_restore(flags);
}
