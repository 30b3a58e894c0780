/* SPDX-License-Identifier: ISC */
/* test_stats.c - counters */
#include <config.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "echo/stats.h"

static void openmetrics_names_every_counter_once(void **state)
{
	struct stats_total total = { .live = 3 };
	char *text = NULL;
	size_t size;
	FILE *out = open_memstream(&text, &size);

	(void) state;
	total.counters[STAT_ENDED_IDLE] = 42;
	assert_non_null(out);
	stats_write_openmetrics(&total, out);
	fclose(out);
	assert_non_null(strstr(text, "echod_connections 3\n"));
	assert_non_null(strstr(text, "echod_connections_ended_total{reason=\"idle\"} 42\n"));
	for (enum stats_counter i = 0; i < STATS_COUNT; i++) {
		char type[128];
		const char *first;

		snprintf(type, sizeof type, "# TYPE echod_%s counter\n", stats_name(i));
		first = strstr(text, type);
		assert_non_null(first);
		assert_null(strstr(first + 1, type));
	}
	free(text);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(openmetrics_names_every_counter_once),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
