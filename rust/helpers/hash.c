// SPDX-License-Identifier: GPL-2.0

#include <crypto/blake2b.h>
#include <crypto/sha2.h>
#include "helpers.h"

void bdio_sha256(const void *data, size_t len, u8 *out)
{
	sha256(data, len, out);
}

void bdio_blake2b_256(const void *data, size_t len, u8 *out)
{
	blake2b(NULL, 0, data, len, out, 32);
}
