# SPDX-License-Identifier: GPL-2.0
"""What bench/run, in the guest, and bench/report, on the host, both need to know."""


def size_of(text):
    """Bytes of a size as fio writes it."""
    return int(text[:-1]) << {"k": 10, "m": 20}[text[-1]]


def extents_in(data):
    """How many extents a file named `extents-N` has."""
    return int(data.removeprefix("extents-"))
