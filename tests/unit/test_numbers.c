/* SPDX-License-Identifier: ISC */
/* test_numbers.c - numbers with units, as in options and reports */
#include <config.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>

#include "client/numbers.h"

static void counts_have_digits_only(void **state)
{
	static const char *const wrong[] = { "", " 1", "1 ", "+1", "-1", "1.0", "0x10", "1e3", "abc", "1k" };
	uint64_t value = 0;

	(void) state;
	assert_int_equal(number_parse("42", 1, 100, &value), 0);
	assert_int_equal(value, 42);
	for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++)
		assert_int_equal(number_parse(wrong[i], 0, 100, &value), -EINVAL);
	assert_int_equal(number_parse("0", 1, 100, &value), -ERANGE);
	assert_int_equal(number_parse("101", 1, 100, &value), -ERANGE);
	assert_int_equal(number_parse("18446744073709551616", 1, UINT64_MAX, &value), -ERANGE);
	assert_int_equal(value, 42);
}

static void sizes_have_units(void **state)
{
	uint64_t value = 0;

	(void) state;
	assert_int_equal(number_parse_size("64", 1, 1 << 30, &value), 0);
	assert_int_equal(value, 64);
	assert_int_equal(number_parse_size("16K", 1, 1 << 30, &value), 0);
	assert_int_equal(value, 16384);
	assert_int_equal(number_parse_size("2m", 1, 1 << 30, &value), 0);
	assert_int_equal(value, 2 << 20);
	assert_int_equal(number_parse_size("1G", 1, 1 << 30, &value), 0);
	assert_int_equal(number_parse_size("2G", 1, 1 << 30, &value), -ERANGE);
	assert_int_equal(number_parse_size("18446744073709551615G", 1, UINT64_MAX, &value), -ERANGE);
	assert_int_equal(number_parse_size("0K", 1, 1 << 30, &value), -ERANGE);
	assert_int_equal(number_parse_size("1KB", 1, 1 << 30, &value), -EINVAL);
	assert_int_equal(number_parse_size("K", 1, 1 << 30, &value), -EINVAL);
	assert_int_equal(number_parse_size("1x", 1, 1 << 30, &value), -EINVAL);
}

static void times_have_units(void **state)
{
	static const struct {
		const char *text;
		uint64_t ticks;
	} right[] = {
		{ "2", 2000000000 }, { "0.25", 250000000 },  { ".5", 500000000 },    { "250ms", 250000000 },
		{ "10us", 10000 },   { "1.5s", 1500000000 }, { "2m", 120000000000 }, { "1h", 3600000000000 },
	};
	static const char *const wrong[] = { "", ".", "1.2.3", "1d", "-1", "1 s", "s", "1e3", "nan", "inf" };
	uint64_t ticks = 0;

	(void) state;
	for (size_t i = 0; i < sizeof right / sizeof right[0]; i++) {
		assert_int_equal(number_parse_time(right[i].text, 0, 1e6, &ticks), 0);
		assert_int_equal(ticks, right[i].ticks);
	}
	for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++)
		assert_int_equal(number_parse_time(wrong[i], 0, 1e6, &ticks), -EINVAL);
	assert_int_equal(number_parse_time("0", 0.001, 1e6, &ticks), -ERANGE);
	assert_int_equal(number_parse_time("1000001", 0, 1e6, &ticks), -ERANGE);
}

static void dscp_has_names(void **state)
{
	int tos = -1;

	(void) state;
	assert_int_equal(number_parse_tos("46", &tos), 0);
	assert_int_equal(tos, 46 << 2);
	assert_int_equal(number_parse_tos("ef", &tos), 0);
	assert_int_equal(tos, 46 << 2);
	assert_int_equal(number_parse_tos("AF41", &tos), 0);
	assert_int_equal(tos, 34 << 2);
	assert_int_equal(number_parse_tos("CS5", &tos), 0);
	assert_int_equal(tos, 40 << 2);
	assert_int_equal(number_parse_tos("LE", &tos), 0);
	assert_int_equal(tos, 1 << 2);
	assert_int_equal(number_parse_tos("64", &tos), -ERANGE);
	assert_int_equal(number_parse_tos("AF44", &tos), -EINVAL);
	assert_int_equal(number_parse_tos("AF51", &tos), -EINVAL);
	assert_int_equal(number_parse_tos("CS8", &tos), -EINVAL);
	assert_int_equal(number_parse_tos("", &tos), -EINVAL);
	assert_int_equal(number_parse_tos("0xb8", &tos), 0);
	assert_int_equal(tos, 0xb8);
	assert_int_equal(number_parse_tos("0XF", &tos), 0);
	assert_int_equal(tos, 0x0f);
	assert_int_equal(number_parse_tos("0x100", &tos), -ERANGE);
	assert_int_equal(number_parse_tos("0x", &tos), -EINVAL);
	assert_int_equal(number_parse_tos("0xbg", &tos), -EINVAL);
}

static void numbers_are_formatted(void **state)
{
	char text[NUMBER_TEXT_MAX];

	(void) state;
	assert_string_equal(number_group(text, 0), "0");
	assert_string_equal(number_group(text, 999), "999");
	assert_string_equal(number_group(text, 1000), "1,000");
	assert_string_equal(number_group(text, 1234567), "1,234,567");
	assert_string_equal(number_group(text, UINT64_MAX), "18,446,744,073,709,551,615");
	assert_string_equal(number_duration(text, 870), "870 ns");
	assert_string_equal(number_duration(text, 98200), "98.2 us");
	assert_string_equal(number_duration(text, 1250000), "1.25 ms");
	assert_string_equal(number_duration(text, 999600000), "1.00 s");
	assert_string_equal(number_bytes(text, 512), "512 B");
	assert_string_equal(number_bytes(text, 1536), "1.5 KiB");
	assert_string_equal(number_bytes(text, 1073741824), "1.0 GiB");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(counts_have_digits_only),
		cmocka_unit_test(sizes_have_units),
		cmocka_unit_test(times_have_units),
		cmocka_unit_test(dscp_has_names),
		cmocka_unit_test(numbers_are_formatted),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
