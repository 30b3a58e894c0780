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
	assert_non_null(strstr(text,
	                       "# TYPE echod_connections gauge\n# HELP echod_connections Connections being "
	                       "served\nechod_connections 3\n"));
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

static void counters_have_labels(void **state)
{
	(void) state;
	assert_string_equal(stats_labels(STAT_ACCEPTED), "");
	assert_string_equal(stats_labels(STAT_ENDED_IDLE), "reason=\"idle\"");
}

/* A freed slot keeps its counters, to which its next worker adds. */
static void a_free_slot_has_counters_only(void **state)
{
	struct stats_slot slot = { .live = 1, .unsent = 2, .pid = 3, .blocked = 1, .state = SLOT_READY };

	(void) state;
	slot.counters[STAT_ACCEPTED] = 4;
	stats_slot_free(&slot);
	assert_int_equal(slot.live, 0);
	assert_int_equal(slot.unsent, 0);
	assert_int_equal(slot.pid, 0);
	assert_int_equal(slot.blocked, 0);
	assert_int_equal(slot.state, SLOT_FREE);
	assert_int_equal(slot.counters[STAT_ACCEPTED], 4);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(openmetrics_names_every_counter_once),
		cmocka_unit_test(counters_have_labels),
		cmocka_unit_test(a_free_slot_has_counters_only),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
