// SPDX-License-Identifier: GPL-2.0

#include <linux/cpumask.h>
#include <linux/workqueue.h>
#include "helpers.h"

struct workqueue_struct *bdio_alloc_workqueue(const char *name)
{
	return alloc_workqueue("%s", WQ_MEM_RECLAIM | WQ_PERCPU, 0, name);
}

void bdio_init_work(struct work_struct *work, void (*func)(struct work_struct *work))
{
	INIT_WORK(work, func);
}

void bdio_init_work_on_stack(struct work_struct *work,
			     void (*func)(struct work_struct *work))
{
	INIT_WORK_ONSTACK(work, func);
}

void bdio_destroy_work_on_stack(struct work_struct *work)
{
	destroy_work_on_stack(work);
}

struct workqueue_struct *bdio_alloc_unbound_workqueue(const char *name)
{
	return alloc_workqueue("%s", WQ_MEM_RECLAIM | WQ_UNBOUND, 0, name);
}

unsigned int bdio_online_cpus(void)
{
	return num_online_cpus();
}

void bdio_init_delayed_work(struct delayed_work *work,
			    void (*func)(struct work_struct *work))
{
	INIT_DELAYED_WORK(work, func);
}

bool bdio_queue_delayed_work(struct delayed_work *work, unsigned long delay)
{
	return queue_delayed_work(system_dfl_wq, work, delay);
}

bool bdio_queue_work(struct workqueue_struct *queue, struct work_struct *work)
{
	return queue_work(queue, work);
}
