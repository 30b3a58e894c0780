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

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(pool_objects_do_not_overlap),
		cmocka_unit_test(ratelimit_lets_a_burst_through_and_counts_the_rest),
		cmocka_unit_test(poll_timeouts_are_rounded_up),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
