/* SPDX-License-Identifier: ISC */
/* test_pattern.c - the byte stream: changed, lost and repeated bytes are found */
#include <config.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

#include "client/pattern.h"

static uint8_t bytes[3 * PATTERN_RUN];

/* Copy `size` bytes of the stream from `offset` on. */
static void copy(pattern_offset offset, size_t size)
{
	for (size_t at = 0; at < size; at++)
		bytes[at] = *pattern_bytes(pattern_after(offset, at));
}

static int make(void **state)
{
	(void) state;
	pattern_make();
	return 0;
}

static void a_run_is_the_stream_in_one_piece(void **state)
{
	(void) state;
	for (pattern_offset offset = 0; offset < PATTERN_PERIOD; offset += 4093) {
		copy(offset, PATTERN_RUN);
		assert_memory_equal(pattern_bytes(offset), bytes, PATTERN_RUN);
	}
}

static void an_intact_copy_of_any_length_matches(void **state)
{
	static const size_t sizes[] = {
		0, 1, 63, 65521, PATTERN_RUN - 1, PATTERN_RUN, PATTERN_RUN + 1, sizeof bytes
	};

	(void) state;
	copy(65520, sizeof bytes);
	for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++)
		assert_int_equal(pattern_compare(65520, bytes, sizes[i]), sizes[i]);
}

static void a_wrong_bit_is_found_at_its_offset(void **state)
{
	(void) state;
	copy(17, sizeof bytes);
	for (size_t at = 0; at < sizeof bytes; at += 99991) {
		bytes[at] ^= 0x10;
		assert_int_equal(pattern_compare(17, bytes, sizeof bytes), at);
		bytes[at] ^= 0x10;
	}
}

static void lost_repeated_and_displaced_bytes_are_found(void **state)
{
	(void) state;
	for (pattern_offset offset = 0; offset < PATTERN_PERIOD; offset += 7919) {
		copy(offset, 256);
		memmove(bytes + 64, bytes + 128, 128); /* a lost message */
		assert_true(pattern_compare(offset, bytes, 192) < 192);
		copy(offset, 256);
		memmove(bytes + 128, bytes + 64, 64); /* a repeated message */
		assert_true(pattern_compare(offset, bytes, 256) < 256);
		copy(offset, 65536 + 64);
		memmove(bytes, bytes + 65536, 64); /* bytes from 64 KiB further on */
		assert_true(pattern_compare(offset, bytes, 64) < 64);
	}
}

static void connections_start_at_different_offsets(void **state)
{
	uint8_t *seen = calloc(1, PATTERN_PERIOD);

	(void) state;
	assert_non_null(seen);
	for (uint64_t index = 0; index < PATTERN_PERIOD; index++) {
		pattern_offset offset = pattern_start(index);

		assert_true(offset < PATTERN_PERIOD);
		assert_false(seen[offset]);
		seen[offset] = 1;
	}
	free(seen);
}

static void offsets_wrap_around(void **state)
{
	(void) state;
	assert_int_equal(pattern_after(0, PATTERN_PERIOD), 0);
	assert_int_equal(pattern_after(PATTERN_PERIOD - 1, 1), 0);
	assert_int_equal(pattern_after(5, UINT64_C(1000000) * PATTERN_PERIOD + 3), 8);
	assert_int_equal(pattern_after(pattern_after(123, 100000), 200000), pattern_after(123, 300000));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_run_is_the_stream_in_one_piece),
		cmocka_unit_test(an_intact_copy_of_any_length_matches),
		cmocka_unit_test(a_wrong_bit_is_found_at_its_offset),
		cmocka_unit_test(lost_repeated_and_displaced_bytes_are_found),
		cmocka_unit_test(connections_start_at_different_offsets),
		cmocka_unit_test(offsets_wrap_around),
	};

	return cmocka_run_group_tests(tests, make, NULL);
}
