/* test_base.c - pool, ring, rate limit and clock */
#include <config.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/clock.h"
#include "base/pool.h"
#include "base/ratelimit.h"
#include "base/siphash.h"

#define OBJECT 112
#define OBJECTS 3000

/* Objects keep what was written to them while others come and go. */
static void pool_objects_do_not_overlap(void **state)
{
	static unsigned char *objects[OBJECTS];
	struct pool pool;
	uint32_t random = 1;

	(void) state;
	memset(objects, 0, sizeof objects);
	pool_init(&pool, OBJECT);
	for (int i = 0; i < 100000; i++) {
		unsigned at;

		random = random * 1664525 + 1013904223;
		at = (random >> 8) % OBJECTS;
		if (!objects[at]) {
			objects[at] = pool_take(&pool);
			assert_non_null(objects[at]);
			memset(objects[at], (int) (at & 0xff), OBJECT);
			continue;
		}
		for (int j = 0; j < OBJECT; j++)
			assert_int_equal(objects[at][j], at & 0xff);
		pool_give(&pool, objects[at]);
		objects[at] = NULL;
	}
	for (unsigned at = 0; at < OBJECTS; at++)
		pool_give(&pool, objects[at]);
	/* all memory was given back but for one chunk, kept for the next object */
	assert_false(list_empty(&pool.chunks));
	assert_ptr_equal(pool.chunks.next, pool.chunks.prev);
	pool_free(&pool);
	assert_true(list_empty(&pool.chunks));
}

static void ratelimit_lets_a_burst_through_and_counts_the_rest(void **state)
{
	struct ratelimit limit = { 0 };
	unsigned passed = 0;

	(void) state;
	for (int i = 0; i < 100; i++)
		passed += ratelimit_allow(&limit, 1000 + i, USEC_PER_SEC, 10);
	assert_int_equal(passed, 10);
	assert_int_equal(ratelimit_take_left_out(&limit), 90);
	assert_int_equal(ratelimit_take_left_out(&limit), 0);
	assert_true(ratelimit_allow(&limit, 1000 + USEC_PER_SEC, USEC_PER_SEC, 10));
}

static void poll_timeouts_are_rounded_up(void **state)
{
	(void) state;
	assert_int_equal(clock_poll_timeout(INT64_MAX, 5), -1);
	assert_int_equal(clock_poll_timeout(5, 5), 0);
	assert_int_equal(clock_poll_timeout(4, 5), 0);
	assert_int_equal(clock_poll_timeout(6, 5), 1);
	assert_int_equal(clock_poll_timeout(1005, 5), 1);
	assert_int_equal(clock_poll_timeout(1006, 5), 2);
	assert_int_equal(clock_poll_timeout(INT64_MAX - 1, 0), INT32_MAX);
}

/* The test values of the paper, appendix A, and of its reference code: messages 00, 01, 02, ... of each length. */
static void siphash_agrees_with_its_paper(void **state)
{
	static const struct {
		size_t size;
		uint64_t hash;
	} values[] = {
		{ 0, UINT64_C(0x726fdb47dd0e0e31) },
		{ 1, UINT64_C(0x74f839c593dc67fd) },
		{ 7, UINT64_C(0xab0200f58b01d137) },
		{ 8, UINT64_C(0x93f5f5799a932462) },
		{ 15, UINT64_C(0xa129ca6149be45e5) },
		{ 16, UINT64_C(0x3f2acc7f57c29bdb) },
	};
	const struct siphash_key key = { UINT64_C(0x0706050403020100), UINT64_C(0x0f0e0d0c0b0a0908) };
	struct siphash_key one, other;
	unsigned char message[16];

	(void) state;
	for (size_t i = 0; i < sizeof message; i++)
		message[i] = (unsigned char) i;
	for (size_t i = 0; i < sizeof values / sizeof values[0]; i++)
		assert_true(siphash(&key, message, values[i].size) == values[i].hash);
	assert_int_equal(siphash_key_make(&one), 0);
	assert_int_equal(siphash_key_make(&other), 0);
	assert_memory_not_equal(&one, &other, sizeof one);
	assert_true(siphash(&one, message, 8) != siphash(&other, message, 8));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(siphash_agrees_with_its_paper),
		cmocka_unit_test(pool_objects_do_not_overlap),
		cmocka_unit_test(ratelimit_lets_a_burst_through_and_counts_the_rest),
		cmocka_unit_test(poll_timeouts_are_rounded_up),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
