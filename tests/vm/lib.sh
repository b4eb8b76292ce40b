# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash
#
# What tests/vm/run and tests/vm/demo share: the guest's test program. Sourced
# by them after scripts/lib.sh, never run.

# shellcheck disable=SC2154 # top, CACHE and logs are from scripts/lib.sh
crate="$top/tests/vm/diotest"
# Each checkout has one of its own: a guest may be running another one's.
target="$CACHE/target-$(sha256sum <<<"$top" | cut -c 1-8)"
# shellcheck disable=SC2034 # used by the sourcing scripts
diotest="$target/release/diotest"

# Where scripts/vm puts the module in the guest.
# shellcheck disable=SC2034 # used by the sourcing scripts
guest_ko=/run/dio/btrfs_dio.ko

# Builds the test program; it runs in the guest, on the host's libraries.
build_diotest() {
	local found
	found="$(host_cargo)"
	# In a subshell: the lock is for building, not for the run.
	(
		lock diotest
		CARGO_TARGET_DIR="$target" "$found" build --release --locked --manifest-path "$crate/Cargo.toml" \
			>"$logs/diotest.log" 2>&1
	) || {
		cat "$logs/diotest.log" >&2
		die "building the test program failed."
	}
}

# disk_list N: the names of N disks, as the test program wants them.
disk_list() {
	local i list=''
	for ((i = 0; i < $1; i++)); do
		list+="${list:+,}/dev/dio$i"
	done
	echo "$list"
}
