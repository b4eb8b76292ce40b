// SPDX-License-Identifier: GPL-2.0
/*
 * Makes the kernel complain in a chosen way, to see that the harness notices.
 */
#include <linux/bug.h>
#include <linux/kernel.h>
#include <linux/module.h>
#include <linux/panic.h>
#include <linux/string.h>

static char *how = "";
module_param(how, charp, 0444);
MODULE_PARM_DESC(how, "warn, bug, oops or taint");

static int __init trouble_init(void)
{
	if (!strcmp(how, "warn"))
		WARN(1, "trouble asked for\n");
	else if (!strcmp(how, "bug"))
		BUG();
	else if (!strcmp(how, "oops"))
		*(volatile int *)8 = 0;
	else if (!strcmp(how, "taint"))
		add_taint(TAINT_USER, LOCKDEP_STILL_OK);
	return 0;
}

static void __exit trouble_exit(void)
{
}

module_init(trouble_init);
module_exit(trouble_exit);
MODULE_DESCRIPTION("Makes the kernel complain");
MODULE_LICENSE("GPL");
