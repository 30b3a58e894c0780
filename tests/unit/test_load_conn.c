/* SPDX-License-Identifier: ISC */
/* test_load_conn.c - one connection under load: messages, window, latency */
#include <config.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <string.h>

#include "client/load/conn.h"

#define SIZE 64
#define DEPTH 3

static struct load_conn conn;
static struct load_stamp stamps[16];
static struct histogram histogram;
static uint64_t fault;

static int make(void **state)
{
	(void) state;
	pattern_make();
	memset(stamps, 0, sizeof stamps);
	histogram_clear(&histogram);
	load_conn_init(&conn, 5, SIZE, DEPTH, stamps);
	return 0;
}

/* Send all bytes that may be sent. */
static void send_all(uint64_t now)
{
	size_t length;

	for (load_conn_out(&conn, SIZE_MAX, &length); length > 0; load_conn_out(&conn, SIZE_MAX, &length))
		load_conn_sent(&conn, length, now);
}

/* The next `length` bytes come back as they were sent. */
static int64_t receive(size_t length, uint64_t since, uint64_t now)
{
	return load_conn_received(&conn, pattern_bytes(conn.in), length, since, now, &histogram, &fault);
}

static void depth_is_kept(void **state)
{
	(void) state;
	for (int i = 0; i < DEPTH; i++) {
		assert_true(load_conn_has_room(&conn));
		load_conn_start(&conn, 100);
	}
	assert_false(load_conn_has_room(&conn));
	send_all(100);
	assert_int_equal(conn.sent, DEPTH * SIZE);
	assert_int_equal(receive(SIZE, 0, 200), 1);
	assert_true(load_conn_has_room(&conn));
}

static void latency_counts_from_the_start_to_the_last_byte(void **state)
{
	(void) state;
	load_conn_start(&conn, 1000);
	load_conn_start(&conn, 1010);
	send_all(1010);
	assert_int_equal(receive(SIZE - 1, 0, 1050), 0);
	assert_int_equal(histogram.count, 0);
	assert_int_equal(receive(1 + SIZE / 2, 0, 1060), 1);
	assert_int_equal(histogram.count, 1);
	assert_int_equal(histogram.max, 60);
	assert_int_equal(receive(SIZE / 2, 0, 1110), 1);
	assert_int_equal(histogram.max, 100);
	assert_int_equal(conn.received, conn.granted);
}

static void messages_that_began_too_early_do_not_count(void **state)
{
	(void) state;
	load_conn_start(&conn, 1000);
	load_conn_start(&conn, 2000);
	send_all(2000);
	assert_int_equal(receive(2 * SIZE, 1500, 2500), 2);
	assert_int_equal(histogram.count, 1);
	assert_int_equal(histogram.max, 500);
	assert_int_equal(conn.finished, 2);
}

static void a_short_send_goes_on_where_it_stopped(void **state)
{
	const uint8_t *first, *rest;
	size_t length;

	(void) state;
	load_conn_start(&conn, 1);
	first = load_conn_out(&conn, SIZE_MAX, &length);
	assert_int_equal(length, SIZE);
	load_conn_sent(&conn, 10, 1);
	rest = load_conn_out(&conn, SIZE_MAX, &length);
	assert_int_equal(length, SIZE - 10);
	assert_memory_equal(rest, first + 10, SIZE - 10);
}

static void a_wrong_byte_is_reported_with_its_offset(void **state)
{
	uint8_t bytes[SIZE];

	(void) state;
	load_conn_start(&conn, 1);
	load_conn_start(&conn, 1);
	send_all(1);
	assert_int_equal(receive(SIZE, 0, 2), 1);
	memcpy(bytes, pattern_bytes(conn.in), SIZE);
	bytes[33] ^= 1;
	assert_int_equal(load_conn_received(&conn, bytes, SIZE, 0, 3, &histogram, &fault), -EBADMSG);
	assert_int_equal(fault, SIZE + 33);
}

static void bytes_never_sent_are_a_fault(void **state)
{
	(void) state;
	assert_int_equal(receive(1, 0, 2), -EBADMSG);
	assert_int_equal(fault, 0);
	load_conn_start(&conn, 1);
	load_conn_sent(&conn, 20, 1);
	/* The right bytes, but they cannot have been echoed yet. */
	assert_int_equal(receive(21, 0, 2), -EBADMSG);
	assert_int_equal(fault, 20);
}

static void abandoned_messages_are_counted_and_others_may_follow(void **state)
{
	(void) state;
	load_conn_start(&conn, 1);
	load_conn_start(&conn, 1);
	load_conn_sent(&conn, 100, 1);
	assert_int_equal(receive(70, 0, 2), 1);
	assert_int_equal(load_conn_abandon(&conn), 1);
	assert_int_equal(conn.granted, conn.received);
	assert_true(load_conn_has_room(&conn));
	load_conn_start(&conn, 10);
	send_all(10);
	assert_int_equal(receive(SIZE, 0, 30), 1);
	assert_int_equal(histogram.max, 20);
}

static void a_stream_has_a_window(void **state)
{
	size_t length;

	(void) state;
	load_conn_init(&conn, 0, 65536, 0, stamps);
	load_conn_grant(&conn, 1000000);
	load_conn_out(&conn, SIZE_MAX, &length);
	assert_int_equal(length, PATTERN_RUN);
	load_conn_sent(&conn, length, 100);
	load_conn_out(&conn, SIZE_MAX, &length);
	load_conn_sent(&conn, length, 120);
	assert_int_equal(receive(1000, 0, 130), 0);
	assert_int_equal(histogram.count, 0);
	load_conn_grant(&conn, 1000000);
	assert_int_equal(conn.granted, 1001000);
	/* The first send is measured until all of its bytes are back. */
	assert_int_equal(receive(PATTERN_RUN - 1000, 0, 170), 0);
	assert_int_equal(histogram.count, 1);
	assert_int_equal(histogram.max, 70);
}

/* Message 1 of datagrams 0 to 3 is lost: its entry stays in use, and the others are used again. */
static void a_lost_datagram_does_not_block_the_next(void **state)
{
	(void) state;
	load_conn_init(&conn, 0, SIZE, 4, stamps);
	for (unsigned i = 0; i < 4; i++)
		load_conn_start(&conn, 1);
	for (unsigned round = 1; round < 5; round++) {
		for (unsigned i = 0; i < 4; i++) {
			if (i == 1)
				continue;
			stamps[i] = (struct load_stamp) { 0 };
			conn.finished++;
		}
		for (unsigned i = 0; i < 3; i++) {
			assert_true(load_conn_has_room(&conn));
			load_conn_start(&conn, 1 + round);
		}
		assert_false(load_conn_has_room(&conn));
	}
	assert_int_equal(stamps[1].message, 1);
	assert_int_equal(stamps[1].start, 1);
	for (unsigned i = 0; i < 4; i++)
		assert_int_equal(stamps[i].message & conn.mask, i);
}

static void room_for_stamps_is_a_power_of_two(void **state)
{
	(void) state;
	assert_int_equal(load_conn_stamps_needed(0), 1);
	assert_int_equal(load_conn_stamps_needed(1), 1);
	assert_int_equal(load_conn_stamps_needed(3), 4);
	assert_int_equal(load_conn_stamps_needed(16), 16);
	assert_int_equal(load_conn_stamps_needed(65536), 65536);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(depth_is_kept, make),
		cmocka_unit_test_setup(latency_counts_from_the_start_to_the_last_byte, make),
		cmocka_unit_test_setup(messages_that_began_too_early_do_not_count, make),
		cmocka_unit_test_setup(a_short_send_goes_on_where_it_stopped, make),
		cmocka_unit_test_setup(a_wrong_byte_is_reported_with_its_offset, make),
		cmocka_unit_test_setup(bytes_never_sent_are_a_fault, make),
		cmocka_unit_test_setup(abandoned_messages_are_counted_and_others_may_follow, make),
		cmocka_unit_test_setup(a_stream_has_a_window, make),
		cmocka_unit_test_setup(a_lost_datagram_does_not_block_the_next, make),
		cmocka_unit_test_setup(room_for_stamps_is_a_power_of_two, make),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
