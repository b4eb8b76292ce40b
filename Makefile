# SPDX-License-Identifier: GPL-2.0
#
# Every target works by itself on a fresh machine: what it needs is made first.
# The kernel's build system reads Kbuild, never this file.

KERNEL ?= release
export KERNEL
# As they were typed: make would see its own variables in them.
override CMD := $(value CMD)
override FSTESTS := $(value FSTESTS)
override TESTS := $(value TESTS)
export CMD FSTESTS TESTS BASELINE QUICK ONLY

.DEFAULT_GOAL := help
# One thing at a time: the scripts use all processors themselves.
.NOTPARALLEL:
.PHONY: help setup kernel modules vm shell host kunit test test-full test-debug fstests bench profile insns check demo clean distclean

help:		## this list
	@echo "usage: make TARGET [KERNEL=release|debug]"
	@sed -nE 's/^([a-z-]+):[^#]*## (.*)/  \1\t\2/p' Makefile | expand -t 14

setup:		## install the tools (asks for root only if packages are missing)
	@scripts/setup

kernel: setup	## fetch, patch and build the kernel (15 minutes the first time)
	@scripts/kernel $(KERNEL)

modules: kernel	## build the module
	@scripts/modules $(KERNEL)

vm: modules	## run CMD='...' in a virtual machine, as root, with the module loaded
	@scripts/vm --kernel $(KERNEL) -- "$$CMD"

shell: modules	## the same, with an interactive shell
	@scripts/vm --kernel $(KERNEL) --disks 2 --shell

host: setup	## test what needs no kernel, on this machine
	@scripts/host

kunit: modules	## run the unit tests
	@scripts/kunit $(KERNEL)

test: modules	## run all tests
	@scripts/test $(KERNEL)

test-full: modules	## run all tests, and leave nothing to chance (hours)
	@scripts/test --full $(KERNEL)

test-debug:	## run all tests on the kernel with the checkers
	@$(MAKE) --no-print-directory test KERNEL=debug

fstests:	## run tests of the xfstests in FSTESTS=DIR (TESTS='-g aio', BASELINE=1)
	@scripts/fstests --list $(KERNEL) >/dev/null
	@$(MAKE) --no-print-directory modules
	@scripts/fstests $(KERNEL)

profile: modules	## where the instructions of a 4 KiB read go, function by function
	@scripts/profile

bench: modules	## measure side by side with btrfs, the device and XFS (hours; QUICK=1: minutes; ONLY=size: a part)
	@scripts/bench

insns: modules	## instructions per read, side by side with btrfs and the device
	@scripts/vm --icount --no-module --disks 2 --size 768 --blocksize 4096 -- "bench/insns $$(scripts/modules --path)"

check:		## formatting, lints and rules
	@$(MAKE) --no-print-directory modules KERNEL=release
	@scripts/check

demo: modules	## show what the module does
	@scripts/demo $(KERNEL)

clean:		## remove what was built of this checkout
	@scripts/clean

distclean:	## remove the cache as well: kernels, downloads and tools
	@scripts/clean --all
