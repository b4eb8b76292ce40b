/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What bench/profile.c uses of the interface of QEMU for plugins, which
 * distributions package no header of: docs/devel/tcg-plugins.rst of QEMU.
 */

#ifndef BENCH_PROFILE_H
#define BENCH_PROFILE_H

#include <stddef.h>
#include <stdint.h>

struct qemu_plugin_tb;
struct qemu_info_t;

void qemu_plugin_register_vcpu_tb_trans_cb(uint64_t id, void (*translated)(uint64_t id, struct qemu_plugin_tb *tb));
void qemu_plugin_register_vcpu_tb_exec_cb(struct qemu_plugin_tb *tb, void (*executed)(unsigned int cpu, void *data),
					  int flags, void *data);
size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb *tb);
uint64_t qemu_plugin_tb_vaddr(const struct qemu_plugin_tb *tb);

#endif /* BENCH_PROFILE_H */
