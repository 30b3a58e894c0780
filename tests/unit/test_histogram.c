/* SPDX-License-Identifier: ISC */
/* test_histogram.c - the distribution: exact for small values and extremes, else within 1/256 */
#include <config.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "client/histogram.h"

#define BOUND (1.0 / 256)

static struct histogram histogram, other;

static int clear(void **state)
{
	(void) state;
	histogram_clear(&histogram);
	histogram_clear(&other);
	return 0;
}

static void assert_near(uint64_t got, uint64_t wanted)
{
	double error = fabs((double) got - (double) wanted);

	if (error > (double) wanted * BOUND)
		fail_msg("%llu is further than 1/256 from %llu", (unsigned long long) got,
		         (unsigned long long) wanted);
}

/* The next pseudo-random number of a seed. */
static uint64_t next_random(uint64_t *seed)
{
	*seed = *seed * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
	return *seed >> 11;
}

static void empty_is_zero(void **state)
{
	(void) state;
	assert_int_equal(histogram_quantile(&histogram, 0.5), 0);
	assert_int_equal(histogram_quantile(&histogram, 1), 0);
	assert_true(histogram_mean(&histogram) == 0);
	assert_true(histogram_deviation(&histogram) == 0);
	assert_int_equal(histogram_between(&histogram, 0, UINT64_MAX), 0);
}

static void every_magnitude_is_within_the_bound(void **state)
{
	(void) state;
	for (unsigned shift = 0; shift < 64; shift++) {
		uint64_t values[] = { UINT64_C(1) << shift, (UINT64_C(1) << shift) - 1,
			              (UINT64_C(1) << shift) + 1, UINT64_C(3) << shift >> 1 };

		for (size_t i = 0; i < sizeof values / sizeof values[0]; i++) {
			histogram_clear(&histogram);
			histogram_add(&histogram, values[i]);
			histogram_add(&histogram, values[i]);
			/* With a much larger value, the quantile is not the maximum. */
			if (values[i] < UINT64_MAX / 4) {
				histogram_add(&histogram, values[i] * 4 + 4);
				assert_near(histogram_quantile(&histogram, 0.5), values[i]);
			}
			assert_int_equal(histogram.min, values[i]);
		}
	}
}

static void small_values_and_extremes_are_exact(void **state)
{
	(void) state;
	for (uint64_t value = 0; value < 128; value++)
		histogram_add(&histogram, value);
	assert_int_equal(histogram_quantile(&histogram, 0), 0);
	assert_int_equal(histogram_quantile(&histogram, 0.5), 63);
	assert_int_equal(histogram_quantile(&histogram, 1), 127);
	histogram_add(&histogram, UINT64_MAX);
	assert_int_equal(histogram_quantile(&histogram, 1), UINT64_MAX);
	assert_int_equal(histogram.max, UINT64_MAX);
}

static int compare(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *) a, y = *(const uint64_t *) b;

	return x < y ? -1 : x > y;
}

static void quantiles_are_those_of_the_sorted_values(void **state)
{
	static uint64_t values[10007];
	static const double shares[] = { 0.001, 0.1, 0.5, 0.9, 0.99, 0.999, 1 };
	size_t count = sizeof values / sizeof values[0];
	uint64_t seed = 7;

	(void) state;
	for (size_t i = 0; i < count; i++) {
		/* Values of up to 53 bits; all magnitudes are equally frequent. */
		values[i] = next_random(&seed) >> (next_random(&seed) % 45);
		histogram_add(&histogram, values[i]);
	}
	qsort(values, count, sizeof values[0], compare);
	for (size_t i = 0; i < sizeof shares / sizeof shares[0]; i++)
		assert_near(histogram_quantile(&histogram, shares[i]),
		            values[(size_t) ceil(shares[i] * (double) count) - 1]);
}

static void mean_and_deviation_are_those_of_the_population(void **state)
{
	static const uint64_t values[] = { 2, 4, 4, 4, 5, 5, 7, 9 };

	(void) state;
	for (size_t i = 0; i < sizeof values / sizeof values[0]; i++)
		histogram_add(&histogram, values[i] * 1000);
	assert_true(fabs(histogram_mean(&histogram) - 5000) < 1e-6);
	assert_true(fabs(histogram_deviation(&histogram) - 2000) < 1e-6);
}

static void a_merge_is_as_if_all_were_added_to_one(void **state)
{
	static struct histogram whole;
	uint64_t seed = 3;

	(void) state;
	histogram_clear(&whole);
	for (int i = 0; i < 5000; i++) {
		uint64_t value = next_random(&seed) >> 20;

		histogram_add(&whole, value);
		histogram_add(i % 3 == 0 ? &histogram : &other, value);
	}
	histogram_merge(&histogram, &other);
	assert_int_equal(histogram.count, whole.count);
	assert_int_equal(histogram.min, whole.min);
	assert_int_equal(histogram.max, whole.max);
	assert_memory_equal(histogram.cells, whole.cells, sizeof whole.cells);
}

static void adjoining_ranges_count_each_value_once(void **state)
{
	uint64_t seed = 11, counted = 0, low = 0;

	(void) state;
	for (int i = 0; i < 5000; i++)
		histogram_add(&histogram, next_random(&seed) >> (next_random(&seed) % 50));
	for (uint64_t high = 1; low < UINT64_MAX / 4; low = high, high = high * 5 / 2 + 1)
		counted += histogram_between(&histogram, low, high);
	assert_int_equal(counted, histogram.count);
}

/* The cell of 10001 begins at 9984. */
static void a_range_contains_a_minimum_right_after_its_lower_limit(void **state)
{
	(void) state;
	histogram_add(&histogram, 10001);
	histogram_add(&histogram, 30000);
	assert_int_equal(histogram_between(&histogram, 5000, 10000), 0);
	assert_int_equal(histogram_between(&histogram, 10000, 20000), 1);
	assert_int_equal(histogram_between(&histogram, 10000, 50000), 2);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(empty_is_zero, clear),
		cmocka_unit_test_setup(every_magnitude_is_within_the_bound, clear),
		cmocka_unit_test_setup(small_values_and_extremes_are_exact, clear),
		cmocka_unit_test_setup(quantiles_are_those_of_the_sorted_values, clear),
		cmocka_unit_test_setup(mean_and_deviation_are_those_of_the_population, clear),
		cmocka_unit_test_setup(a_merge_is_as_if_all_were_added_to_one, clear),
		cmocka_unit_test_setup(adjoining_ranges_count_each_value_once, clear),
		cmocka_unit_test_setup(a_range_contains_a_minimum_right_after_its_lower_limit, clear),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
