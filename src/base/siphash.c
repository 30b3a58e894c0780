/* SPDX-License-Identifier: ISC */
#include <config.h>

#include "base/siphash.h"

#include <errno.h>
#include <sys/random.h>

int siphash_key_make(struct siphash_key *key)
{
	ssize_t n;

	/* 256 bytes or less come whole, once the kernel has random numbers: getrandom(2) */
	do
		n = getrandom(key, sizeof *key, 0);
	while (n < 0 && errno == EINTR);
	if (n < 0)
		return -errno;
	return n == sizeof *key ? 0 : -EIO;
}

static uint64_t rotate(uint64_t word, unsigned bits)
{
	return word << bits | word >> (64 - bits);
}

static void mix(uint64_t v[static 4], unsigned rounds)
{
	while (rounds-- > 0) {
		v[0] += v[1];
		v[2] += v[3];
		v[1] = rotate(v[1], 13) ^ v[0];
		v[3] = rotate(v[3], 16) ^ v[2];
		v[0] = rotate(v[0], 32);
		v[2] += v[1];
		v[0] += v[3];
		v[1] = rotate(v[1], 17) ^ v[2];
		v[3] = rotate(v[3], 21) ^ v[0];
		v[2] = rotate(v[2], 32);
	}
}

static void absorb(uint64_t v[static 4], uint64_t word)
{
	v[3] ^= word;
	mix(v, 2);
	v[0] ^= word;
}

static uint64_t read_word(const unsigned char *data, size_t size)
{
	uint64_t word = 0;

	for (size_t i = 0; i < size; i++)
		word |= (uint64_t) data[i] << 8 * i;
	return word;
}

uint64_t siphash(const struct siphash_key *key, const void *data, size_t size)
{
	const unsigned char *at = data;
	uint64_t v[4] = {
		key->low ^ UINT64_C(0x736f6d6570736575),
		key->high ^ UINT64_C(0x646f72616e646f6d),
		key->low ^ UINT64_C(0x6c7967656e657261),
		key->high ^ UINT64_C(0x7465646279746573),
	};
	size_t left = size;

	for (; left >= 8; left -= 8, at += 8)
		absorb(v, read_word(at, 8));
	absorb(v, read_word(at, left) | (uint64_t) size << 56);
	v[2] ^= 0xff;
	mix(v, 4);
	return v[0] ^ v[1] ^ v[2] ^ v[3];
}
