/* SPDX-License-Identifier: ISC */
/* test_sandbox.c - the manual lists the system calls of the table; a filter is made for each model */
#include <config.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <linux/filter.h>

#include "models/model.h"

static char *read_file(const char *name)
{
	const char *source = getenv("ECHOD_SRCDIR");
	char path[4096], *text;
	size_t size = 1 << 20, n;
	FILE *file;

	snprintf(path, sizeof path, "%s/%s", source ? source : ".", name);
	file = fopen(path, "r");
	if (!file)
		fail_msg("cannot open %s; ECHOD_SRCDIR must name the source tree", path);
	text = calloc(1, size);
	assert_non_null(text);
	n = fread(text, 1, size - 1, file);
	assert_true(n > 0);
	fclose(file);
	return text;
}

static void test_manual_lists_the_calls(void **state)
{
	char *manual = read_file("man/echod.8"), *table;
	size_t size;
	FILE *out = open_memstream(&table, &size);
	const char *why;

	(void) state;
	sandbox_print(out);
	fclose(out);
	if (size == 0 && !sandbox_can_filter(&why)) {
		print_message("not checked: %s\n", why);
		skip();
	}
#if !defined ECHOD_FAULTS && !defined ECHOD_COVERAGE && !defined ECHOD_SANITIZERS
	if (!strstr(manual, table))
		fail_msg("the list of system calls in man/echod.8 must be:\n%s", table);
#endif
	free(table);
	free(manual);
}

static void test_filters_are_made(void **state)
{
	const char *why;

	(void) state;
	if (!sandbox_can_filter(&why)) {
		print_message("not checked: %s\n", why);
		skip();
	}
	for (size_t i = 0; model_names[i]; i++) {
		unsigned uses = SANDBOX_STREAMS | model_find(model_names[i])->uses;
		struct sock_fprog *filter;

		for (unsigned threads = 0; threads < 2; threads++) {
			assert_int_equal(sandbox_filter_make(&filter, threads ? uses | SANDBOX_THREADS : uses), 0);
			assert_non_null(filter);
			assert_true(filter->len > 20);
			sandbox_filter_free(filter);
		}
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_manual_lists_the_calls),
		cmocka_unit_test(test_filters_are_made),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
