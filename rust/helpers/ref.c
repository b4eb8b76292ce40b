// SPDX-License-Identifier: GPL-2.0

#include <linux/percpu-refcount.h>
#include "helpers.h"

void bdio_ref_get(struct percpu_ref *ref)
{
	percpu_ref_get(ref);
}

void bdio_ref_put(struct percpu_ref *ref)
{
	percpu_ref_put(ref);
}
