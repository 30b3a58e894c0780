/* SPDX-License-Identifier: ISC */
/* test_stats.c - counters; the state of a connection as a message */
#include <config.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <sys/socket.h>

#include "echo/state.h"
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

static void a_connection_comes_back_as_it_went(void **state)
{
	struct peer peer = { .family = AF_INET6, .port = 4711, .scope = 2, .address = { 0xfe, 0x80, 1 } },
		    back_peer;
	struct proxied proxied = { .proxy = { .family = AF_INET, .port = 9, .address = { 192, 0, 2, 9 } },
		                   .header_left = 65535 },
		       back_proxied;
	struct conn conn, back;
	struct state message;
	int64_t active;
	uint32_t owed;

	(void) state;
	conn_init(&conn, 1000);
	conn.echoed = 77;
	conn.eof = true;
	conn.header = true;
	assert_non_null(conn_restore(&conn, 5));
	state_encode(&message, &conn, &peer, &proxied, 500, 0); /* a tick rounded down to before the start */
	assert_int_equal(state_decode(&message, sizeof message, 2000, &back, &back_peer, &back_proxied,
	                              &active, &owed),
	                 0);
	assert_int_equal(back.since, 1000);
	assert_int_equal(active, 1000);
	assert_int_equal(back.echoed, 77);
	assert_true(back.eof);
	assert_true(back.header);
	assert_memory_equal(&proxied, &back_proxied, sizeof proxied);
	assert_int_equal(owed, 5);
	assert_memory_equal(&peer, &back_peer, sizeof peer);
	conn_clear(&conn);
}

static void damage_is_noticed(void **state)
{
	struct peer peer = { .family = AF_INET }, back_peer;
	struct proxied proxied = { .header_left = 0 }, back_proxied;
	struct conn conn, back;
	struct state message;
	int64_t active;
	uint32_t owed;

	(void) state;
	conn_init(&conn, 1000);
	for (size_t i = 0; i < sizeof message * 8; i++) {
		state_encode(&message, &conn, &peer, &proxied, 1000, 0);
		((unsigned char *) &message)[i / 8] ^= (unsigned char) (1 << i % 8);
		assert_true(state_decode(&message, sizeof message, 2000, &back, &back_peer, &back_proxied,
		                         &active, &owed) < 0);
	}
	state_encode(&message, &conn, &peer, &proxied, 1000, 0);
	for (size_t size = 0; size < sizeof message; size++)
		assert_true(state_decode(&message, size, 2000, &back, &back_peer, &back_proxied, &active,
		                         &owed) < 0);
	assert_true(state_decode(&message, sizeof message, 999, &back, &back_peer, &back_proxied, &active,
	                         &owed) < 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(openmetrics_names_every_counter_once),
		cmocka_unit_test(a_connection_comes_back_as_it_went),
		cmocka_unit_test(damage_is_noticed),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
