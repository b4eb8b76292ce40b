// SPDX-License-Identifier: GPL-2.0

#include <linux/shrinker.h>
#include "helpers.h"

struct shrinker *bdio_shrinker_alloc(const char *name)
{
	return shrinker_alloc(0, "%s", name);
}
