/* SPDX-License-Identifier: ISC */
/* pattern.h - the bytes that are sent, in a form that is cheap to check
 *
 * A table of pseudo-random bytes, repeated with a prime period, is the stream of every connection; each
 * connection starts at an offset of its own. Sending points into the table, checking is a memcmp(3) with
 * it: nothing is generated. Because the period is prime, it never coincides with sizes of buffers or
 * messages, so that lost, duplicated or swapped bytes and bytes of another connection are detected.
 *
 * pattern_make() must be called once before any thread starts; then everything is read-only.
 */
#ifndef ECHOD_CLIENT_PATTERN_H
#define ECHOD_CLIENT_PATTERN_H

#include <stddef.h>
#include <stdint.h>

#define PATTERN_PERIOD 65521u      /* the largest prime below 2^16 */
#define PATTERN_RUN (256u * 1024u) /* contiguous bytes available from any offset */

/* An offset in the table: 0 to PATTERN_PERIOD - 1. */
typedef uint32_t pattern_offset;

/* Fill the table, always with the same bytes. */
void pattern_make(void);

/* Where connection number `index` starts; different for PATTERN_PERIOD consecutive connections. */
pattern_offset pattern_start(uint64_t index);

/* The offset `count` bytes after `offset`. */
pattern_offset pattern_after(pattern_offset offset, uint64_t count);

/* The bytes from `offset` on, PATTERN_RUN of them. */
const uint8_t *pattern_bytes(pattern_offset offset);

/* Compare `size` bytes (any number) with the stream at `offset`. Returns the index of the first byte that
 * differs, or `size` if all are equal. */
size_t pattern_compare(pattern_offset offset, const void *bytes, size_t size);

/* The index of the first byte in which `a` and `b` differ, or `size`. */
size_t bytes_compare(const void *a, const void *b, size_t size);

#endif
