// SPDX-License-Identifier: GPL-2.0

#include <linux/moduleparam.h>
#include <linux/string.h>
#include "helpers.h"

/* Parameters that can be set at run time, which those of Rust cannot. */

static const char * const bdio_policies[] = {
	[BDIO_POLICY_SPREAD] = "spread",
	[BDIO_POLICY_FS] = "fs",
};

unsigned int bdio_read_policy = BDIO_POLICY_SPREAD;

static int bdio_policy_set(const char *val, const struct kernel_param *kp)
{
	int policy = sysfs_match_string(bdio_policies, val);

	if (policy < 0)
		return policy;
	WRITE_ONCE(bdio_read_policy, policy);
	return 0;
}

static int bdio_policy_get(char *buffer, const struct kernel_param *kp)
{
	return scnprintf(buffer, PAGE_SIZE, "%s\n", bdio_policies[READ_ONCE(bdio_read_policy)]);
}

static const struct kernel_param_ops bdio_policy_ops = {
	.set = bdio_policy_set,
	.get = bdio_policy_get,
};

module_param_cb(read_policy, &bdio_policy_ops, NULL, 0644);
MODULE_PARM_DESC(read_policy, "Which copy to read: spread (default), that on the least busy device, or fs, as the filesystem does");

unsigned int bdio_bounce_kib;

module_param_named(bounce_kib, bdio_bounce_kib, uint, 0644);
MODULE_PARM_DESC(bounce_kib, "Bounce memory of each filesystem in KiB, at least 8192; 0 (default) for a 64th of all memory, at most 1 GiB");
