/* SPDX-License-Identifier: ISC */
/* test_conn.c - the connection: single properties, and generated schedules against a reference */
#include <config.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <errno.h>

#include "echo/conn.h"

#define LIMIT 4096

static uint8_t scratch_bytes[LIMIT];
static const struct span scratch = { scratch_bytes, sizeof scratch_bytes };

static void wants_input_and_holds_nothing_at_first(void **state)
{
	const uint8_t *data;
	struct conn conn;

	(void) state;
	conn_init(&conn, 7);
	assert_int_equal(conn_want(&conn, LIMIT), CONN_RECV);
	assert_int_equal(conn_pending(&conn, &data), 0);
	assert_null(conn.memory);
	assert_int_equal(conn.since, 7);
	conn_clear(&conn);
}

static void half_close_is_answered_in_full(void **state)
{
	struct conn conn;
	struct span span;

	(void) state;
	conn_init(&conn, 0);
	span = conn_recv_buf(&conn, scratch, LIMIT);
	assert_ptr_equal(span.data, scratch.data);
	conn_received(&conn, span.data, 100);
	conn_eof(&conn);
	assert_int_equal(conn_want(&conn, LIMIT), CONN_SEND);
	conn_sent(&conn, 60);
	assert_int_equal(conn_own_data(&conn), 0);
	assert_int_equal(conn_want(&conn, LIMIT), CONN_SEND);
	conn_sent(&conn, 40);
	assert_int_equal(conn_want(&conn, LIMIT), CONN_CLOSE);
	assert_int_equal(conn.reason, CONN_EOF);
	assert_int_equal(conn.echoed, 100);
	assert_null(conn.memory);
	conn_clear(&conn);
}

static void what_is_held_is_bounded(void **state)
{
	struct conn conn;
	size_t total = 0;

	(void) state;
	conn_init(&conn, 0);
	for (int i = 0; i < 1000; i++) {
		struct span span = conn_recv_buf(&conn, scratch, LIMIT);

		if (span.size == 0)
			break;
		conn_received(&conn, span.data, span.size > 100 ? 100 : span.size);
		total += span.size > 100 ? 100 : span.size;
		assert_int_equal(conn_own_data(&conn), 0);
		assert_true(conn.memory->size <= LIMIT);
	}
	assert_int_equal(total, LIMIT);
	assert_int_equal(conn_want(&conn, LIMIT), CONN_SEND);
	conn_clear(&conn);
}

static void errors_have_their_reason(void **state)
{
	static const struct {
		int error;
		enum conn_reason reason;
	} cases[] = {
		{ ECONNRESET, CONN_RESET }, { EPIPE, CONN_RESET },  { ETIMEDOUT, CONN_RESET },
		{ EIO, CONN_ERROR },        { ENOMEM, CONN_ERROR }, { EBADF, CONN_ERROR },
	};

	(void) state;
	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
		struct conn conn;

		conn_init(&conn, 0);
		conn_error(&conn, cases[i].error);
		assert_int_equal(conn.reason, cases[i].reason);
		assert_int_equal(conn_want(&conn, LIMIT), CONN_CLOSE);
		conn_error(&conn, ENOSPC); /* the first reason stays */
		assert_int_equal(conn.reason, cases[i].reason);
		assert_int_equal(conn.error, conn.reason == CONN_ERROR ? cases[i].error : 0);
		conn_clear(&conn);
	}
}

static void drain_takes_what_had_come_and_no_more(void **state)
{
	struct conn conn;
	struct span span;

	(void) state;
	conn_init(&conn, 0);
	conn_drain(&conn, 50);
	span = conn_recv_buf(&conn, scratch, LIMIT);
	assert_int_equal(span.size, 50);
	conn_received(&conn, span.data, 50);
	assert_int_equal(conn_want(&conn, LIMIT), CONN_SEND);
	conn_sent(&conn, 50);
	assert_int_equal(conn_want(&conn, LIMIT), CONN_LINGER);
	conn_end(&conn, CONN_DRAIN);
	assert_int_equal(conn_want(&conn, LIMIT), CONN_CLOSE);
	conn_clear(&conn);
	conn_init(&conn, 0);
	conn_drain(&conn, 0); /* an idle one is done at once */
	assert_int_equal(conn_want(&conn, LIMIT), CONN_LINGER);
	conn_clear(&conn);
}

static void pipe_counts_as_owed(void **state)
{
	struct conn conn;

	(void) state;
	conn_init(&conn, 0);
	conn_pipe_received(&conn, 3000);
	assert_int_equal(conn_owed_total(&conn), 3000);
	assert_int_equal(conn_recv_window(&conn, LIMIT), LIMIT - 3000);
	conn_eof(&conn);
	assert_int_equal(conn_want(&conn, LIMIT), CONN_SEND);
	conn_pipe_sent(&conn, 2999);
	assert_int_equal(conn_want(&conn, LIMIT), CONN_SEND);
	conn_pipe_sent(&conn, 1);
	assert_int_equal(conn_want(&conn, LIMIT), CONN_CLOSE);
	assert_int_equal(conn.echoed, 3000);
	conn_clear(&conn);
}

/* --- schedules ------------------------------------------------------------------------- */

static uint32_t random_state;

static uint32_t random_below(uint32_t n)
{
	random_state ^= random_state << 13;
	random_state ^= random_state >> 17;
	random_state ^= random_state << 5;
	return random_state % n;
}

static uint8_t stream_byte(uint64_t position)
{
	return (uint8_t) (position * 197 + (position >> 8) * 31);
}

/* Receive part of what fits; the reference is the position in the stream alone. */
static uint64_t step_receive(struct conn *conn, size_t limit, uint64_t received)
{
	struct span span = conn_recv_buf(conn, scratch, limit);
	size_t n;

	if (span.size == 0)
		return received;
	n = 1 + random_below((uint32_t) span.size);
	for (size_t i = 0; i < n; i++)
		span.data[i] = stream_byte(received + i);
	conn_received(conn, span.data, n);
	return received + n;
}

static uint64_t step_send(struct conn *conn, uint64_t sent)
{
	const uint8_t *data;
	size_t owed = conn_pending(conn, &data), n;

	if (owed == 0)
		return sent;
	n = random_below((uint32_t) owed + 1);
	for (size_t i = 0; i < n; i++)
		assert_int_equal(data[i], stream_byte(sent + i));
	if (n > 0)
		conn_sent(conn, n);
	return sent + n;
}

static void any_schedule_echoes_in_order(void **state)
{
	(void) state;
	for (uint32_t seed = 1; seed <= 2000; seed++) {
		size_t limit = 512 + seed % (LIMIT - 511);
		uint64_t received = 0, sent = 0;
		struct conn conn;

		random_state = seed * 2654435761U;
		conn_init(&conn, 0);
		for (int step = 0; step < 200; step++) {
			unsigned want = conn_want(&conn, limit);

			assert_int_equal(!!(want & CONN_SEND), received > sent);
			if (want & CONN_RECV && random_below(2))
				received = step_receive(&conn, limit, received);
			if (random_below(2))
				sent = step_send(&conn, sent);
			assert_int_equal(conn_own_data(&conn), 0);
			assert_int_equal(conn_owed_total(&conn), received - sent);
			assert_true(received - sent <= limit);
		}
		conn_eof(&conn);
		while (!(conn_want(&conn, limit) & CONN_CLOSE))
			sent = step_send(&conn, sent);
		assert_int_equal(sent, received);
		assert_int_equal(conn.echoed, received);
		assert_int_equal(conn.reason, CONN_EOF);
		assert_null(conn.memory);
		conn_clear(&conn);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(wants_input_and_holds_nothing_at_first),
		cmocka_unit_test(half_close_is_answered_in_full),
		cmocka_unit_test(what_is_held_is_bounded),
		cmocka_unit_test(errors_have_their_reason),
		cmocka_unit_test(drain_takes_what_had_come_and_no_more),
		cmocka_unit_test(pipe_counts_as_owed),
		cmocka_unit_test(any_schedule_echoes_in_order),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
