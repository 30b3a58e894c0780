/* SPDX-License-Identifier: ISC */
/* test_pattern.c - the byte stream: every kind of damage shows */
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

/* `size` bytes of the stream from `place` on. */
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

static void one_wrong_bit_is_found_where_it_is(void **state)
{
	(void) state;
	copy(17, sizeof bytes);
	for (size_t at = 0; at < sizeof bytes; at += 99991) {
		bytes[at] ^= 0x10;
		assert_int_equal(pattern_compare(17, bytes, sizeof bytes), at);
		bytes[at] ^= 0x10;
	}
}

static void lost_doubled_and_swapped_bytes_show(void **state)
{
	(void) state;
	for (pattern_offset offset = 0; offset < PATTERN_PERIOD; offset += 7919) {
		copy(offset, 256);
		memmove(bytes + 64, bytes + 128, 128); /* a message lost */
		assert_true(pattern_compare(offset, bytes, 192) < 192);
		copy(offset, 256);
		memmove(bytes + 128, bytes + 64, 64); /* one doubled */
		assert_true(pattern_compare(offset, bytes, 256) < 256);
		copy(offset, 65536 + 64);
		memmove(bytes, bytes + 65536, 64); /* a buffer's length too far */
		assert_true(pattern_compare(offset, bytes, 64) < 64);
	}
}

static void connections_start_at_places_of_their_own(void **state)
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

static void places_go_round(void **state)
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
		cmocka_unit_test(one_wrong_bit_is_found_where_it_is),
		cmocka_unit_test(lost_doubled_and_swapped_bytes_show),
		cmocka_unit_test(connections_start_at_places_of_their_own),
		cmocka_unit_test(places_go_round),
	};

	return cmocka_run_group_tests(tests, make, NULL);
}
