// SPDX-License-Identifier: GPL-2.0

#include <linux/percpu.h>
#include "helpers.h"

void __percpu *bdio_per_cpu_alloc(size_t size, size_t align)
{
	return __alloc_percpu(size, align);
}

void bdio_per_cpu_free(void __percpu *area)
{
	free_percpu(area);
}

void *bdio_per_cpu_this(void __percpu *area)
{
	return raw_cpu_ptr(area);
}

/* Returns NULL for a CPU that is not possible. */
void *bdio_per_cpu_of(void __percpu *area, unsigned int cpu)
{
	return cpu_possible(cpu) ? per_cpu_ptr(area, cpu) : NULL;
}

u64 bdio_per_cpu_sum(const u64 __percpu *value)
{
	u64 sum = 0;
	int cpu;

	for_each_possible_cpu(cpu)
		sum += READ_ONCE(*per_cpu_ptr(value, cpu));
	return sum;
}
