// SPDX-License-Identifier: GPL-2.0

#include <linux/sched.h>
#include "helpers.h"

int bdio_current_pid(void)
{
	return current->pid;
}
