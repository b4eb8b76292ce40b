# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash
#
# What every script here shares: places, tools and the way to fail. Sourced,
# never run.

# The name of the calling script as the user typed it, and the checkout.
self="scripts/$(basename "$0")"
top="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)"

# All that is downloaded or built lives here, so that a checkout stays clean
# and a second checkout builds nothing twice.
CACHE="${BTRFS_DIO_CACHE:-${XDG_CACHE_HOME:-${HOME:-/root}/.cache}/btrfs_dio}"
logs="$CACHE/logs"
tools="$CACHE/tools"

# A mirror that does not answer at once may do so later.
export CARGO_NET_RETRY=10

say() { printf '%s: %s\n' "$self" "$*" >&2; }

# One clear sentence, then out.
die() {
	say "$*"
	exit 1
}

usage_error() {
	say "$*"
	exit 2
}

# make, bindgen and virtme-ng take paths apart at these characters.
for path in "$top" "$CACHE"; do
	if [[ ! $path =~ ^/[A-Za-z0-9_+./@-]*$ ]]; then
		die "the path '$path' has characters the kernel's build cannot handle; use letters, digits and ._+@- only."
	fi
done
unset path

mkdir -p "$logs" "$tools" 2>/dev/null ||
	die "cannot create the cache directory $CACHE (set BTRFS_DIO_CACHE to a writable one)."

# Two runs at once must not build the same thing: lock NAME until exit.
lock() {
	local fd
	exec {fd}>"$CACHE/$1.lock" || die "cannot write to $CACHE."
	if ! flock -n "$fd"; then
		say "waiting for another run that is working on $1"
		flock "$fd"
	fi
}

# need_space DIR MIB PURPOSE
need_space() {
	local free
	free="$(df -Pm "$1" | awk 'NR == 2 { print $4 }')"
	((free >= $2)) ||
		die "$3 needs $2 MiB in $1, which has $free MiB left: the disk is full."
}

# check_flavour NAME: release is what people run, debug has the checkers on.
check_flavour() {
	case "$1" in
	release | debug) ;;
	*) usage_error "there is no kernel '$1'; it is 'release' or 'debug'." ;;
	esac
}

# ---- tools ------------------------------------------------------------------

# The oldest LLVM that is new enough and complete; prints its number.
llvm_version() {
	local v
	for v in 19 20 21 22 23 24; do
		if command -v "clang-$v" >/dev/null && command -v "ld.lld-$v" >/dev/null &&
			command -v "llvm-nm-$v" >/dev/null && compgen -G "/usr/lib/llvm-$v/lib/libclang*.so*" >/dev/null; then
			echo "$v"
			return
		fi
	done
	return 1
}

# version_ge A B: A is B or newer.
version_ge() { [[ "$(printf '%s\n' "$2" "$1" | sort -V | head -n 1)" == "$2" ]]; }

bindgen_min=0.71.1

# Our own copy first, the machine's if it is new enough.
bindgen_path() {
	local b v
	for b in "$tools/bindgen/bin/bindgen" /usr/bin/bindgen; do
		[[ -x $b ]] || continue
		v="$("$b" --version 2>/dev/null | awk '{ print $2 }')"
		if [[ -n $v ]] && version_ge "$v" "$bindgen_min"; then
			echo "$b"
			return
		fi
	done
	return 1
}

# The cargo for what runs on the host, or on its libraries.
host_cargo() {
	local cargo
	for cargo in cargo /usr/bin/cargo; do
		if command -v "$cargo" >/dev/null &&
			version_ge "$("$cargo" --version | awk '{ print $2 }')" 1.85; then
			echo "$cargo"
			return
		fi
	done
	die "no cargo 1.85 or newer; run 'make setup'."
}

# Fills the array `kmake`: make with every tool named. A Rust toolchain of the
# user's earlier in PATH has no sources of `core`, so PATH is not trusted; and
# mawk, Debian's awk, makes an empty cpufeaturemasks.h without a word.
kernel_make() {
	local llvm bindgen
	llvm="$(llvm_version)" || die "no complete LLVM 19 or newer; run 'make setup'."
	bindgen="$(bindgen_path)" || die "no bindgen $bindgen_min or newer; run 'make setup'."
	[[ -x /usr/bin/rustc ]] || die "no /usr/bin/rustc; run 'make setup'."
	export LIBCLANG_PATH="/usr/lib/llvm-$llvm/lib"
	unset RUSTFLAGS CARGO_ENCODED_RUSTFLAGS RUSTC_WRAPPER MAKEFLAGS MFLAGS MAKELEVEL ARCH CROSS_COMPILE KBUILD_OUTPUT O M MO V W
	# shellcheck disable=SC2034 # used by the sourcing script
	kmake=(make ARCH=x86_64 "LLVM=-$llvm"
		RUSTC=/usr/bin/rustc RUSTDOC=/usr/bin/rustdoc HOSTRUSTC=/usr/bin/rustc
		RUSTFMT=/usr/bin/rustfmt CLIPPY_DRIVER=/usr/bin/clippy-driver
		"BINDGEN=$bindgen" AWK=gawk)
}

# What the result of a build depends on besides the sources.
toolchain_id() {
	"clang-$(llvm_version)" --version | head -n 1
	/usr/bin/rustc --version
	"$(bindgen_path)" --version
}

# ---- places -----------------------------------------------------------------

source_record="$CACHE/downloads/source"

# source_field NAME: one field of the record of the resolved kernel source.
source_field() { sed -n "s/^$1=//p" "$source_record"; }

# kernel_tree FLAVOUR: where that kernel is (to be) built.
kernel_tree() {
	if [[ -n ${KERNEL_SRC:-} ]]; then
		local src
		src="$(cd "$KERNEL_SRC" 2>/dev/null && pwd -P)" ||
			die "KERNEL_SRC=$KERNEL_SRC is not a directory."
		echo "$CACHE/kernel/src-$(sha256sum <<<"$src" | cut -c 1-8)-$1"
	elif [[ -f $source_record ]]; then
		echo "$CACHE/kernel/$(source_field upstream)-$1"
	else
		return 1
	fi
}

# built_tree FLAVOUR: the same, and it must be there.
built_tree() {
	local tree
	if ! tree="$(kernel_tree "$1")" || [[ ! -f $tree/arch/x86/boot/bzImage ]]; then
		die "the $1 kernel is not built; run 'make kernel KERNEL=$1'."
	fi
	echo "$tree"
}

# kvm_answer: where it is kept whether hardware virtualisation works, asked once per boot
# of this machine.
kvm_answer() { echo "$CACHE/kvm-$(cat /proc/sys/kernel/random/boot_id)"; }

# host_target: where this checkout's tests on the host are built.
host_target() { echo "$CACHE/host/$(sha256sum <<<"$top" | cut -c 1-8)"; }

# module_dir FLAVOUR [VARIANT]: output directory of this checkout's module.
module_dir() {
	echo "$CACHE/modules/$1${2:+-$2}-$(sha256sum <<<"$top" | cut -c 1-8)"
}
