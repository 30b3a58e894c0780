/* SPDX-License-Identifier: ISC */
/* test_conn.c - the connection: single properties, and random schedules */
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

/* The linker (--wrap) sends the allocations of the connection to these functions. */
static bool no_memory;

void *__real_malloc(size_t size);
void *__wrap_malloc(size_t size);
void *__real_realloc(void *memory, size_t size);
void *__wrap_realloc(void *memory, size_t size);

void *__wrap_malloc(size_t size)
{
	return no_memory ? NULL : __real_malloc(size);
}

void *__wrap_realloc(void *memory, size_t size)
{
	return no_memory ? NULL : __real_realloc(memory, size);
}

static uint8_t scratch_bytes[LIMIT];
static const struct span scratch = { scratch_bytes, sizeof scratch_bytes };

static void a_new_connection_wants_input_and_has_no_memory(void **state)
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

static void owed_bytes_are_bounded(void **state)
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
		/* errors of ICMP messages, reported when the connection times out */
		{ ENETUNREACH, CONN_RESET }, { EHOSTUNREACH, CONN_RESET }, { ENOPROTOOPT, CONN_RESET },
		{ ECONNREFUSED, CONN_RESET }, { EOPNOTSUPP, CONN_RESET }, { EHOSTDOWN, CONN_RESET },
		{ ENONET, CONN_RESET }, { EPROTO, CONN_RESET }, { EACCES, CONN_RESET },
		{ EIO, CONN_ERROR },        { ENOMEM, CONN_ERROR }, { EBADF, CONN_ERROR },
		{ ENOTCONN, CONN_RESET },   { EHOSTDOWN, CONN_RESET }, { ENETDOWN, CONN_RESET },
		{ ECONNABORTED, CONN_RESET }, { EHOSTUNREACH, CONN_RESET },
		{ ENETUNREACH, CONN_RESET }, { ECONNREFUSED, CONN_RESET },
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

static void drain_receives_a_given_number_of_bytes(void **state)
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
	conn_drain(&conn, 0); /* nothing to receive: it lingers at once */
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
	assert_int_equal(conn.reason, CONN_EOF);
	conn_clear(&conn);
	conn_init(&conn, 0);
	conn_pipe_received(&conn, 1);
	assert_null(conn_recv_buf(&conn, scratch, LIMIT).data);
	conn_clear(&conn);
}

/* Receive `n` bytes and copy them to own memory. */
static void receive(struct conn *conn, size_t n, size_t limit)
{
	while (n > 0) {
		struct span span = conn_recv_buf(conn, scratch, limit);
		size_t part = span.size < n ? span.size : n;

		assert_true(part > 0);
		conn_received(conn, span.data, part);
		assert_int_equal(conn_own_data(conn), 0);
		n -= part;
	}
}

static void memory_doubles_up_to_the_limit(void **state)
{
	static const size_t received[] = { 1, 512, 513, 1024, 1025, 1500, 1501 }, limit = 1600;
	static const uint32_t sizes[] = { 512, 512, 1024, 1024, 1600, 1600, 1600 };
	struct conn conn;

	(void) state;
	for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
		conn_init(&conn, 0);
		receive(&conn, 1, limit);
		receive(&conn, received[i] - 1, limit);
		assert_int_equal(conn.memory->size, sizes[i]);
		assert_int_equal(conn.owed, received[i]);
		conn_clear(&conn);
		assert_null(conn.memory);
		assert_int_equal(conn_owed_total(&conn), 0);
	}
}

/* The owed bytes are moved to the start of the memory once no more than half of it is owed. */
static void full_memory_takes_no_input_until_half_is_sent(void **state)
{
	struct span span;
	struct conn conn;

	(void) state;
	conn_init(&conn, 0);
	receive(&conn, 1, LIMIT);
	receive(&conn, LIMIT - 1, LIMIT);
	assert_int_equal(conn_recv_window(&conn, LIMIT), 0);
	conn_sent(&conn, LIMIT / 2 - 1);
	assert_int_equal(conn_recv_window(&conn, LIMIT), 0);
	assert_int_equal(conn_want(&conn, LIMIT), CONN_SEND);
	assert_null(conn_recv_buf(&conn, scratch, LIMIT).data);
	/* a larger limit, after a reload, lets the memory grow */
	assert_int_equal(conn_recv_window(&conn, LIMIT + 1), LIMIT / 2);
	conn_sent(&conn, 1);
	assert_int_equal(conn_recv_window(&conn, LIMIT), LIMIT / 2);
	assert_int_equal(conn_want(&conn, LIMIT), CONN_SEND | CONN_RECV);
	span = conn_recv_buf(&conn, scratch, LIMIT);
	assert_ptr_equal(conn.data, conn.memory->bytes);
	assert_ptr_equal(span.data, conn.memory->bytes + LIMIT / 2);
	assert_int_equal(span.size, LIMIT / 2);
	assert_int_equal(conn.memory->size, LIMIT);
	/* the memory has space after the owed bytes, which is offered without a move */
	conn_received(&conn, span.data, 10);
	conn_sent(&conn, 1);
	assert_int_equal(conn_recv_window(&conn, LIMIT), LIMIT / 2 - 9);
	assert_int_equal(conn_recv_buf(&conn, scratch, LIMIT).size, LIMIT / 2 - 10);
	conn_clear(&conn);
}

/* With one byte more, the source and the destination of the move would overlap. The memory grows then. */
static void bytes_are_moved_only_where_they_do_not_overlap(void **state)
{
	struct span span;
	struct conn conn;

	(void) state;
	for (size_t sent = 255; sent <= 257; sent++) {
		conn_init(&conn, 0);
		receive(&conn, 512, LIMIT);
		conn_sent(&conn, sent);
		span = conn_recv_buf(&conn, scratch, LIMIT);
		assert_int_equal(conn.memory->size, sent < 256 ? 1024 : 512);
		assert_int_equal(conn.data - conn.memory->bytes, sent < 256 ? sent : 0);
		assert_ptr_equal(span.data, conn.data + conn.owed);
		assert_int_equal(span.size, conn.memory->bytes + conn.memory->size - span.data);
		conn_clear(&conn);
	}
}

static void borrowed_bytes_are_copied_before_more_is_received(void **state)
{
	struct conn conn;

	(void) state;
	conn_init(&conn, 0);
	assert_int_equal(conn_own_data(&conn), 0);
	assert_null(conn.memory);
	conn_received(&conn, scratch_bytes, 600);
	assert_int_equal(conn_recv_window(&conn, LIMIT), LIMIT - 600);
	assert_int_equal(conn_recv_window(&conn, 512), 0);
	assert_int_equal(conn_want(&conn, 600), CONN_SEND);
	assert_int_equal(conn_want(&conn, 601), CONN_SEND | CONN_RECV);
	assert_null(conn_recv_buf(&conn, scratch, LIMIT).data);
	assert_int_equal(conn_recv_buf(&conn, scratch, LIMIT).size, 0);
	assert_int_equal(conn_own_data(&conn), 0);
	assert_int_equal(conn.memory->size, 600);
	assert_int_equal(conn_recv_buf(&conn, scratch, LIMIT).size, 600);
	conn_clear(&conn);
}

static void restored_bytes_are_owed(void **state)
{
	const uint8_t *data;
	struct conn conn;
	uint8_t *memory;

	(void) state;
	conn_init(&conn, 0);
	memory = conn_restore(&conn, 100);
	assert_ptr_equal(memory, conn.memory->bytes);
	assert_int_equal(conn_pending(&conn, &data), 100);
	assert_ptr_equal(data, conn.memory->bytes);
	conn_sent(&conn, 100);
	assert_null(conn.memory);
	conn_pipe_received(&conn, 700);
	assert_int_equal(conn_want(&conn, LIMIT), CONN_SEND | CONN_RECV);
	assert_null(conn_recv_buf(&conn, scratch, LIMIT).data);
	assert_non_null(conn_restore_piped(&conn));
	assert_int_equal(conn_owed_total(&conn), 700);
	assert_int_equal(conn_pending(&conn, &data), 700);
	assert_int_equal(conn.memory->size, 700);
	conn_pipe_received(&conn, 1);
	conn_clear(&conn);
	assert_int_equal(conn_owed_total(&conn), 0);
}

static void a_connection_that_has_ended_wants_nothing(void **state)
{
	struct conn conn;

	(void) state;
	conn_init(&conn, 0);
	conn_end(&conn, CONN_IDLE);
	assert_int_equal(conn_recv_window(&conn, LIMIT), 0);
	conn_eof(&conn); /* the first reason is kept */
	assert_int_equal(conn.reason, CONN_IDLE);
	conn_end(&conn, CONN_DRAIN);
	assert_int_equal(conn.reason, CONN_IDLE);
	assert_int_equal(conn_want(&conn, LIMIT), CONN_CLOSE);
	conn_clear(&conn);
	conn_init(&conn, 0);
	conn_eof(&conn);
	assert_int_equal(conn.reason, CONN_EOF);
	assert_int_equal(conn_recv_window(&conn, LIMIT), 0);
}

static void headers_are_not_sent(void **state)
{
	struct conn conn;

	(void) state;
	conn_init(&conn, 0);
	conn.header = true;
	receive(&conn, 107, LIMIT);
	assert_int_equal(conn_want(&conn, LIMIT), CONN_RECV);
	conn_drop(&conn, 60);
	conn_header_done(&conn);
	assert_int_equal(conn_want(&conn, LIMIT), CONN_RECV | CONN_SEND);
	assert_int_equal(conn.echoed, 0);
	conn_sent(&conn, 47);
	assert_int_equal(conn.echoed, 47);
	conn_clear(&conn);

	/* the stream ends in the middle of the header */
	conn_init(&conn, 0);
	conn.header = true;
	receive(&conn, 10, LIMIT);
	conn_eof(&conn);
	assert_int_equal(conn.reason, CONN_PROXY);
	conn_clear(&conn);
	conn_init(&conn, 0);
	conn.header = true;
	receive(&conn, 1, LIMIT);
	conn_eof(&conn);
	assert_int_equal(conn.reason, CONN_PROXY);
	conn_clear(&conn);
	/* the stream ends before the header */
	conn_init(&conn, 0);
	conn.header = true;
	conn_eof(&conn);
	assert_int_equal(conn.reason, CONN_EOF);
	/* the stream ends, and no header is expected */
	conn_init(&conn, 0);
	receive(&conn, 10, LIMIT);
	conn_eof(&conn);
	assert_int_equal(conn.reason, CONN_OPEN);
	conn_clear(&conn);
	/* extensions of a header are skipped after the end of the stream was seen */
	conn_init(&conn, 0);
	conn.header = conn.eof = true;
	conn_header_done(&conn);
	assert_int_equal(conn.reason, CONN_EOF);
}

static void drain_counts_the_bytes_that_remain(void **state)
{
	struct conn conn;

	(void) state;
	conn_init(&conn, 0);
	conn_drain(&conn, LIMIT + 100);
	assert_int_equal(conn_recv_window(&conn, LIMIT), LIMIT);
	receive(&conn, 200, LIMIT);
	assert_int_equal(conn.quota, LIMIT - 100);
	assert_int_equal(conn_recv_window(&conn, LIMIT), LIMIT - 200);
	conn_sent(&conn, 200);
	assert_int_equal(conn_recv_window(&conn, LIMIT), LIMIT - 100);
	conn_pipe_received(&conn, 1);
	assert_int_equal(conn.quota, LIMIT - 101);
	conn_drain(&conn, SIZE_MAX);
	assert_int_equal(conn.quota, CONN_LIMIT_MAX);
	conn_drain(&conn, CONN_LIMIT_MAX - 1);
	assert_int_equal(conn.quota, CONN_LIMIT_MAX - 1);
	conn_clear(&conn);
	/* without a drain received bytes are not counted */
	conn_init(&conn, 0);
	receive(&conn, 10, LIMIT);
	conn_pipe_received(&conn, 10);
	assert_int_equal(conn.quota, 0);
	conn_clear(&conn);
}

static void without_memory_connections_end_or_wait(void **state)
{
	struct conn conn;
	struct span span;

	(void) state;
	/* where the memory cannot grow, nothing is received and the owed bytes are kept */
	conn_init(&conn, 0);
	receive(&conn, 512, LIMIT);
	no_memory = true;
	assert_int_equal(conn_recv_buf(&conn, scratch, LIMIT).size, 0);
	no_memory = false;
	assert_int_equal(conn.owed, 512);
	assert_int_equal(conn.reason, CONN_OPEN);
	span = conn_recv_buf(&conn, scratch, LIMIT);
	assert_int_equal(span.size, 512);
	conn_clear(&conn);
	/* borrowed bytes cannot be copied: the connection ends */
	conn_init(&conn, 0);
	conn_received(&conn, scratch_bytes, 10);
	no_memory = true;
	assert_int_equal(conn_own_data(&conn), -ENOMEM);
	assert_null(conn_restore(&conn, 10));
	no_memory = false;
	assert_int_equal(conn.reason, CONN_ERROR);
	assert_int_equal(conn.error, ENOMEM);
	conn_clear(&conn);
	conn_init(&conn, 0);
	conn_pipe_received(&conn, 10);
	no_memory = true;
	assert_null(conn_restore_piped(&conn));
	no_memory = false;
	assert_int_equal(conn.piped, 10);
	conn_clear(&conn);
}

static void reasons_have_names(void **state)
{
	(void) state;
	assert_string_equal(conn_reason_name(CONN_OPEN), "open");
	assert_string_equal(conn_reason_name(CONN_ERROR), "error");
	for (enum conn_reason reason = CONN_OPEN; reason < CONN_REASONS; reason++)
		assert_non_null(conn_reason_name(reason));
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

/* Receive a random number of bytes. Their values follow from their position in the stream. */
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
		cmocka_unit_test(a_new_connection_wants_input_and_has_no_memory),
		cmocka_unit_test(half_close_is_answered_in_full),
		cmocka_unit_test(owed_bytes_are_bounded),
		cmocka_unit_test(errors_have_their_reason),
		cmocka_unit_test(drain_receives_a_given_number_of_bytes),
		cmocka_unit_test(pipe_counts_as_owed),
		cmocka_unit_test(memory_doubles_up_to_the_limit),
		cmocka_unit_test(full_memory_takes_no_input_until_half_is_sent),
		cmocka_unit_test(bytes_are_moved_only_where_they_do_not_overlap),
		cmocka_unit_test(borrowed_bytes_are_copied_before_more_is_received),
		cmocka_unit_test(restored_bytes_are_owed),
		cmocka_unit_test(a_connection_that_has_ended_wants_nothing),
		cmocka_unit_test(headers_are_not_sent),
		cmocka_unit_test(drain_counts_the_bytes_that_remain),
		cmocka_unit_test(without_memory_connections_end_or_wait),
		cmocka_unit_test(reasons_have_names),
		cmocka_unit_test(any_schedule_echoes_in_order),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
