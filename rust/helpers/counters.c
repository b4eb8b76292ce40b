// SPDX-License-Identifier: GPL-2.0

#include <linux/percpu.h>
#include "helpers.h"

/* Per CPU, so that readers on different CPUs share no cache line. */
static DEFINE_PER_CPU(u64 [BDIO_COUNTERS], bdio_counters);

void bdio_counter_add(unsigned int nr, u64 value)
{
	this_cpu_add(bdio_counters[nr], value);
}

u64 bdio_counter_sum(unsigned int nr)
{
	u64 sum = 0;
	int cpu;

	for_each_possible_cpu(cpu)
		sum += READ_ONCE(per_cpu(bdio_counters, cpu)[nr]);
	return sum;
}
