// SPDX-License-Identifier: GPL-2.0

#include <linux/jiffies.h>
#include "helpers.h"

unsigned long bdio_jiffies(void)
{
	return jiffies;
}
