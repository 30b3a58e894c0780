/* SPDX-License-Identifier: ISC */
/* pattern.c - see pattern.h */
#include <config.h>

#include "client/pattern.h"

#include <string.h>

static uint8_t table[PATTERN_PERIOD + PATTERN_RUN];

void pattern_make(void)
{
	uint64_t state = 0x862; /* any seed except 0 */

	for (size_t i = 0; i < PATTERN_PERIOD; i++) {
		/* xorshift64*: use the high bits, the low ones are weak */
		state ^= state >> 12;
		state ^= state << 25;
		state ^= state >> 27;
		table[i] = (uint8_t) ((state * UINT64_C(0x2545F4914F6CDD1D)) >> 56);
	}
	for (size_t i = PATTERN_PERIOD; i < sizeof table; i++)
		table[i] = table[i - PATTERN_PERIOD];
}

pattern_offset pattern_start(uint64_t index)
{
	/* The factor is not a multiple of the period, and keeps consecutive connections far apart. */
	return (pattern_offset) ((index % PATTERN_PERIOD) * 40503u % PATTERN_PERIOD);
}

pattern_offset pattern_after(pattern_offset offset, uint64_t count)
{
	/* The usual case, without a division. */
	if (count < PATTERN_PERIOD) {
		offset += (pattern_offset) count;
		return offset >= PATTERN_PERIOD ? offset - PATTERN_PERIOD : offset;
	}
	return (pattern_offset) ((offset + count) % PATTERN_PERIOD);
}

const uint8_t *pattern_bytes(pattern_offset offset)
{
	return table + offset;
}

size_t bytes_compare(const void *a, const void *b, size_t size)
{
	const uint8_t *x = a, *y = b;
	size_t at = 0;

	if (memcmp(x, y, size) == 0)
		return size;
	while (x[at] == y[at])
		at++;
	return at;
}

size_t pattern_compare(pattern_offset offset, const void *bytes, size_t size)
{
	const uint8_t *given = bytes;
	size_t done = 0;

	while (done < size) {
		size_t part = size - done < PATTERN_RUN ? size - done : PATTERN_RUN;
		size_t same = bytes_compare(table + offset, given + done, part);

		if (same != part)
			return done + same;
		done += part;
		offset = pattern_after(offset, part);
	}
	return size;
}
