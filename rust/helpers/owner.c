// SPDX-License-Identifier: GPL-2.0

#include <linux/blk-cgroup.h>
#include <linux/cgroup.h>
#include <linux/cred.h>
#include <linux/hash.h>
#include <linux/kthread.h>
#include <linux/memcontrol.h>
#include <linux/sched/mm.h>
#include <linux/sched/signal.h>
#include <linux/sched/task.h>
#include "helpers.h"

struct task_struct *bdio_current(void)
{
	return current;
}

void bdio_task_get(struct task_struct *task)
{
	get_task_struct(task);
}

void bdio_task_put(struct task_struct *task)
{
	put_task_struct(task);
}

/* Tells apart whose requests compete: by I/O cgroup and user. */
u64 bdio_task_owner(struct task_struct *task)
{
	u64 owner;

	rcu_read_lock();
	owner = __kuid_val(__task_cred(task)->euid);
#ifdef CONFIG_BLK_CGROUP
	owner ^= hash_64(task_css(task, io_cgrp_id)->serial_nr, 64);
#endif
	rcu_read_unlock();
	return owner;
}

u64 bdio_current_owner(void)
{
	return bdio_task_owner(current);
}

/* Whether it must not be made to wait for what others hold: they may wait for it. */
bool bdio_current_must_not_wait(void)
{
	return current->flags & (PF_LOCAL_THROTTLE | PF_MEMALLOC_NOIO);
}

/*
 * The current kernel thread works for @task from here on: what it reads and
 * allocates is charged to the cgroups of that, as in drivers/block/loop.c.
 */
void bdio_work_for_begin(struct task_struct *task, struct bdio_work_for *saved)
{
#ifdef CONFIG_BLK_CGROUP
	struct cgroup_subsys_state *css = task_get_css(task, io_cgrp_id);

	kthread_associate_blkcg(css);
	css_put(css);
#endif
#ifdef CONFIG_MEMCG
	rcu_read_lock();
	saved->memcg = mem_cgroup_from_task(task);
	if (saved->memcg && !css_tryget(&saved->memcg->css))
		saved->memcg = NULL;
	rcu_read_unlock();
	saved->before = set_active_memcg(saved->memcg);
#endif
#ifdef CONFIG_TASK_IO_ACCOUNTING
	saved->read_bytes = current->ioac.read_bytes;
#endif
}

/* Adds what has been read since to the account of @task, as if it had a thread that has ended. */
void bdio_work_for_end(struct task_struct *task, const struct bdio_work_for *saved)
{
#ifdef CONFIG_TASK_IO_ACCOUNTING
	struct signal_struct *sig = task->signal;

	write_seqlock_irq(&sig->stats_lock);
	sig->ioac.read_bytes += current->ioac.read_bytes - saved->read_bytes;
	write_sequnlock_irq(&sig->stats_lock);
#endif
#ifdef CONFIG_MEMCG
	set_active_memcg(saved->before);
	if (saved->memcg)
		css_put(&saved->memcg->css);
#endif
#ifdef CONFIG_BLK_CGROUP
	kthread_associate_blkcg(NULL);
#endif
}
