#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0
"""Gives names to what bench/profile.c has counted, and prints it as a table.

usage: bench/profile.py DIR READS

DIR has `symbols`, as /proc/kallsyms has them, and counts.1 to counts.6: a small
run and one of READS more reads of btrfs, of the module, and of the device.
"""

import bisect
import collections
import os
import re
import subprocess
import sys

CONTENDERS = ("btrfs", "module", "device")
# What fewer instructions are spent in is summed up.
LEAST = 20


def symbols_of(directory):
    """Addresses of functions, ascending, and their names."""
    functions = []
    with open(os.path.join(directory, "symbols"), encoding="ascii") as file:
        for line in file:
            address, kind, name = line.split()[:3]
            if kind in "tTwW":
                functions.append((int(address, 16), name))
    functions.sort()
    return [address for address, _ in functions], [name for _, name in functions]


def counts_of(directory, number, symbols):
    """Instructions by function."""
    addresses, names = symbols
    counts = collections.Counter()
    with open(os.path.join(directory, f"counts.{number}"), encoding="ascii") as file:
        for line in file:
            address, count = line.split()
            address = int(address, 16)
            at = bisect.bisect(addresses, address) - 1
            counts["(fio and its libraries)" if address >> 47 == 0 else names[max(at, 0)]] += int(count)
    return counts


def readable(names):
    """Names of Rust as they are written, without what they are instances of."""
    done = subprocess.run(["c++filt"], input="\n".join(names), stdout=subprocess.PIPE, text=True, check=True)
    return dict(zip(names, (re.sub(r"\[[0-9a-f]{16}\]", "", line) for line in done.stdout.splitlines())))


def main():
    """See the top of the file."""
    directory, reads = sys.argv[1], int(sys.argv[2])
    symbols = symbols_of(directory)
    table = {}
    for n, contender in enumerate(CONTENDERS):
        few = counts_of(directory, 2 * n + 1, symbols)
        many = counts_of(directory, 2 * n + 2, symbols)
        table[contender] = {name: (count - few[name]) / reads for name, count in many.items()}
    names = set().union(*table.values())
    shown = sorted((name for name in names if max(table[c].get(name, 0) for c in CONTENDERS) >= LEAST),
                   key=lambda name: -max(table[c].get(name, 0) for c in ("module", "btrfs")))
    written = readable(shown)
    print(f"{'btrfs':>9} {'module':>9} {'device':>9}  guest instructions per read, in")
    for name in shown:
        print(*(f"{table[c].get(name, 0):9.0f}" for c in CONTENDERS), "", written[name])
    rest = [sum(count for name, count in table[c].items() if name not in written) for c in CONTENDERS]
    print(*(f"{count:9.0f}" for count in rest), f" (functions with less than {LEAST})")
    print(*(f"{sum(table[c].values()):9.0f}" for c in CONTENDERS), " (all)")


if __name__ == "__main__":
    main()
