// SPDX-License-Identifier: GPL-2.0

#include <linux/debugfs.h>
#include <linux/seq_file.h>
#include "helpers.h"

static int bdio_file_show(struct seq_file *m, void *unused)
{
	void (*show)(struct seq_file *m) = m->private;

	show(m);
	return 0;
}
/* With the module as its owner: an open file keeps the module. */
DEFINE_SHOW_ATTRIBUTE(bdio_file);

struct dentry *bdio_debugfs_create(const char *dir)
{
	return debugfs_create_dir(dir, NULL);
}

void bdio_debugfs_file(struct dentry *dir, const char *file,
		       void (*show)(struct seq_file *m))
{
	debugfs_create_file(file, 0444, dir, show, &bdio_file_fops);
}

void bdio_debugfs_remove(struct dentry *dir)
{
	debugfs_remove(dir);
}
