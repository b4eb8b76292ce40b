// SPDX-License-Identifier: GPL-2.0

#include <linux/sched.h>
#include "helpers.h"

int bdio_current_pid(void)
{
	return current->pid;
}

/* Whether it is a worker of io_uring, which is there to wait. */
bool bdio_is_io_worker(void)
{
	return current->flags & PF_IO_WORKER;
}
