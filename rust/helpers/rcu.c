// SPDX-License-Identifier: GPL-2.0

#include <linux/rcupdate.h>
#include "helpers.h"

#if defined(CONFIG_PREEMPTION) && !defined(CONFIG_TASKS_RCU)
#error "a preemptible kernel needs CONFIG_TASKS_RCU, which e.g. CONFIG_FTRACE selects"
#endif

/* Wait for functions that are returning: in interrupts, and in tasks. */
void bdio_synchronize_tails(void)
{
	synchronize_rcu();
	synchronize_rcu_tasks();
}
