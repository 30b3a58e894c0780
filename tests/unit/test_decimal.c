/* SPDX-License-Identifier: ISC */
/* test_decimal.c - decimal numbers: form, range, and values beyond 64 bits */
#include <config.h>

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/decimal.h"

static void parses_plain_numbers(void **state)
{
	uint64_t value;

	(void) state;
	assert_int_equal(decimal_parse("0", 0, &value), 0);
	assert_int_equal(value, 0);
	assert_int_equal(decimal_parse("65535", 65535, &value), 0);
	assert_int_equal(value, 65535);
	assert_int_equal(decimal_parse("18446744073709551615", UINT64_MAX, &value), 0);
	assert_true(value == UINT64_MAX);
}

static void rejects_other_forms(void **state)
{
	static const char *const texts[] = { "",   " ",  "00",  "01",  "+1",  "-1", " 1",
		                             "1 ", "1x", "0x1", "1.0", "1,0", "x" };
	uint64_t value;

	(void) state;
	for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++)
		assert_int_equal(decimal_parse(texts[i], UINT64_MAX, &value), -EINVAL);
}

static void rejects_numbers_beyond_the_range(void **state)
{
	uint64_t value;

	(void) state;
	assert_int_equal(decimal_parse("65536", 65535, &value), -ERANGE);
	assert_int_equal(value, 65536);
	assert_int_equal(decimal_parse("18446744073709551616", UINT64_MAX - 1, &value), -ERANGE);
	assert_true(value == UINT64_MAX);
	assert_int_equal(decimal_parse("99999999999999999999999999", INT64_MAX, &value), -ERANGE);
	assert_true(value == UINT64_MAX);
}

static void reads_the_digits_at_the_start(void **state)
{
	const char *text = "012K";
	uint64_t value;

	(void) state;
	assert_int_equal(decimal_prefix(&text, &value), 0);
	assert_int_equal(value, 12);
	assert_string_equal(text, "K");
	assert_int_equal(decimal_prefix(&text, &value), -EINVAL);
	assert_string_equal(text, "K");
	text = "184467440737095516150x";
	assert_int_equal(decimal_prefix(&text, &value), -ERANGE);
	assert_true(value == UINT64_MAX);
	assert_string_equal(text, "x");
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(parses_plain_numbers),
		cmocka_unit_test(rejects_other_forms),
		cmocka_unit_test(rejects_numbers_beyond_the_range),
		cmocka_unit_test(reads_the_digits_at_the_start),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
