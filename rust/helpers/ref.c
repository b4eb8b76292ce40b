// SPDX-License-Identifier: GPL-2.0

#include <linux/completion.h>
#include <linux/percpu-refcount.h>
#include <linux/sched.h>
#include "helpers.h"

void bdio_ref_get(struct percpu_ref *ref)
{
	percpu_ref_get(ref);
}

void bdio_ref_put(struct percpu_ref *ref)
{
	percpu_ref_put(ref);
}

/* As wait_for_completion(), by a task that is neither load nor hung meanwhile. */
void bdio_wait_idle(struct completion *done)
{
	wait_for_completion_state(done, TASK_IDLE);
}
