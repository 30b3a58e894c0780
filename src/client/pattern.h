/* pattern.h - an endless stream of bytes that can be checked where it lies
 *
 * One table of pseudo-random bytes, repeated with a prime period, is the stream of every connection; each
 * starts at its own place in it. To send is to point into the table, to check is one
 * memcmp() against it: nothing is generated. The prime period never falls in step with
 * buffers or messages, so bytes that are lost, doubled, swapped or another connection's differ.
 *
 * pattern_make() once, before any thread starts; then everything is read-only.
 */
#ifndef ECHOD_CLIENT_PATTERN_H
#define ECHOD_CLIENT_PATTERN_H

#include <stddef.h>
#include <stdint.h>

#define PATTERN_PERIOD 65521u      /* the largest prime below 2^16 */
#define PATTERN_RUN (256u * 1024u) /* bytes that lie in one piece from any place on */

/* A place in the stream: 0 to PATTERN_PERIOD - 1. */
typedef uint32_t pattern_offset;

/* Fill the table. Always the same bytes. */
void pattern_make(void);

/* Where connection number `index` starts; different for the first PATTERN_PERIOD connections. */
pattern_offset pattern_start(uint64_t index);

/* The place `count` bytes after `place`. */
pattern_offset pattern_after(pattern_offset offset, uint64_t count);

/* The bytes from `place` on, PATTERN_RUN of them. */
const uint8_t *pattern_bytes(pattern_offset offset);

/* Compare `size` bytes (any number) with the stream at `place`. Returns the index of the first byte that
 * differs, or `size` where none does. */
size_t pattern_compare(pattern_offset offset, const void *bytes, size_t size);

/* The index of the first byte in which `a` and `b` differ, or `size`. */
size_t bytes_compare(const void *a, const void *b, size_t size);

#endif
