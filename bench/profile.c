// SPDX-License-Identifier: GPL-2.0
/*
 * A plugin of QEMU that counts the instructions a guest executes, block of code
 * by block of code: scripts/profile builds it and gives the sums names.
 *
 *   -plugin FILE,out=PREFIX,marker=ADDRESS
 *
 * Counting begins and ends, in turns, when the function at ADDRESS is called;
 * each time it ends, PREFIX.1, PREFIX.2 ... gets lines of an address and how
 * many instructions were executed in the block that begins there.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "profile.h"

#define EXPORT __attribute__((visibility("default")))

/* The version of the interface: what is used has been in it from the first to this. */
EXPORT int qemu_plugin_version = PLUGIN_VERSION;

/* Instructions that begin at an address and are executed one after the other. */
struct block {
	uint64_t address;
	uint64_t length;
	uint64_t count;
	struct block *next;
};

#define BUCKETS (1 << 18)

/* A guest with one CPU: there is nobody else. */
static struct block *blocks[BUCKETS];
static const char *prefix;
static uint64_t marker;
static unsigned int calls;

static void write_counts(void)
{
	struct block *block;
	char name[4096];
	FILE *file;
	int i;

	snprintf(name, sizeof(name), "%s.%u", prefix, calls / 2);
	file = fopen(name, "w");
	if (!file) {
		perror(name);
		exit(1);
	}
	for (i = 0; i < BUCKETS; i++) {
		for (block = blocks[i]; block; block = block->next) {
			if (block->count)
				fprintf(file, "%lx %lu\n", block->address, block->count * block->length);
			block->count = 0;
		}
	}
	if (fclose(file)) {
		perror(name);
		exit(1);
	}
}

static void executed(unsigned int cpu, void *data)
{
	struct block *block = data;

	if (calls & 1)
		block->count++;
}

static void marked(unsigned int cpu, void *data)
{
	calls++;
	if (!(calls & 1))
		write_counts();
}

static void translated(uint64_t id, struct qemu_plugin_tb *tb)
{
	uint64_t address = qemu_plugin_tb_vaddr(tb);
	uint64_t length = qemu_plugin_tb_n_insns(tb);
	struct block **first = &blocks[((address ^ length << 40) * 0x9e3779b97f4a7c15) >> 46];
	struct block *block;

	for (block = *first; block; block = block->next) {
		if (block->address == address && block->length == length)
			break;
	}
	if (!block) {
		block = calloc(1, sizeof(*block));
		if (!block)
			abort();
		block->address = address;
		block->length = length;
		block->next = *first;
		*first = block;
	}
	if (address == marker)
		qemu_plugin_register_vcpu_tb_exec_cb(tb, marked, 0, NULL);
	qemu_plugin_register_vcpu_tb_exec_cb(tb, executed, 0, block);
}

EXPORT int qemu_plugin_install(uint64_t id, const struct qemu_info_t *info, int argc, char **argv)
{
	int i;

	for (i = 0; i < argc; i++) {
		if (!strncmp(argv[i], "out=", 4))
			prefix = strdup(argv[i] + 4);
		else if (!strncmp(argv[i], "marker=", 7))
			marker = strtoull(argv[i] + 7, NULL, 16);
	}
	if (!prefix || !marker) {
		fprintf(stderr, "needs out=PREFIX and marker=ADDRESS\n");
		return 1;
	}
	qemu_plugin_register_vcpu_tb_trans_cb(id, translated);
	return 0;
}
