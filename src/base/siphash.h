/* SPDX-License-Identifier: ISC */
/* siphash.h - a keyed hash for tables whose keys clients choose (SipHash-2-4, Aumasson and Bernstein 2012)
 *
 * A client that does not know the key cannot choose table keys that share a bucket. Pure; any thread.
 */
#ifndef ECHOD_BASE_SIPHASH_H
#define ECHOD_BASE_SIPHASH_H

#include <stddef.h>
#include <stdint.h>

struct siphash_key {
	uint64_t low, high; /* bytes 0 to 7 and 8 to 15, little-endian */
};

/* Make a random key with getrandom(2). May wait at boot until the kernel has random numbers; 0 or -errno. */
int siphash_key_make(struct siphash_key *key);

/* The hash of `size` bytes at `data`. */
uint64_t siphash(const struct siphash_key *key, const void *data, size_t size);

#endif
