/* test_load_conn.c - the account of one connection under load */
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

static struct flow flow;
static uint64_t stamps[16];
static struct histogram histogram;
static uint64_t fault;

static int make(void **state)
{
	(void) state;
	pattern_make();
	memset(stamps, 0, sizeof(stamps));
	histogram_clear(&histogram);
	flow_init(&flow, 5, SIZE, DEPTH, stamps);
	return 0;
}

/* Hand over all that may be sent. */
static void send_all(uint64_t now)
{
	size_t length;

	for (flow_out(&flow, SIZE_MAX, &length); length > 0; flow_out(&flow, SIZE_MAX, &length))
		flow_sent(&flow, length, now);
}

/* The next `length` bytes come back as they were sent. */
static int64_t receive(size_t length, uint64_t since, uint64_t now)
{
	return flow_received(&flow, pattern_bytes(flow.in), length, since, now, &histogram, &fault);
}

static void depth_is_kept(void **state)
{
	(void) state;
	for (int i = 0; i < DEPTH; i++) {
		assert_true(flow_has_room(&flow));
		flow_start(&flow, 100);
	}
	assert_false(flow_has_room(&flow));
	send_all(100);
	assert_int_equal(flow.sent, DEPTH * SIZE);
	assert_int_equal(receive(SIZE, 0, 200), 1);
	assert_true(flow_has_room(&flow));
}

static void latency_counts_from_the_start_to_the_last_byte(void **state)
{
	(void) state;
	flow_start(&flow, 1000);
	flow_start(&flow, 1010);
	send_all(1010);
	assert_int_equal(receive(SIZE - 1, 0, 1050), 0);
	assert_int_equal(histogram.count, 0);
	assert_int_equal(receive(1 + SIZE / 2, 0, 1060), 1);
	assert_int_equal(histogram.count, 1);
	assert_int_equal(histogram.max, 60);
	assert_int_equal(receive(SIZE / 2, 0, 1110), 1);
	assert_int_equal(histogram.max, 100);
	assert_int_equal(flow.received, flow.granted);
}

static void what_began_too_early_does_not_count(void **state)
{
	(void) state;
	flow_start(&flow, 1000);
	flow_start(&flow, 2000);
	send_all(2000);
	assert_int_equal(receive(2 * SIZE, 1500, 2500), 1);
	assert_int_equal(histogram.count, 1);
	assert_int_equal(histogram.max, 500);
	assert_int_equal(flow.finished, 2);
}

static void a_short_send_goes_on_where_it_stopped(void **state)
{
	const uint8_t *first, *rest;
	size_t length;

	(void) state;
	flow_start(&flow, 1);
	first = flow_out(&flow, SIZE_MAX, &length);
	assert_int_equal(length, SIZE);
	flow_sent(&flow, 10, 1);
	rest = flow_out(&flow, SIZE_MAX, &length);
	assert_int_equal(length, SIZE - 10);
	assert_memory_equal(rest, first + 10, SIZE - 10);
}

static void a_wrong_byte_is_told_with_its_offset(void **state)
{
	uint8_t bytes[SIZE];

	(void) state;
	flow_start(&flow, 1);
	flow_start(&flow, 1);
	send_all(1);
	assert_int_equal(receive(SIZE, 0, 2), 1);
	memcpy(bytes, pattern_bytes(flow.in), SIZE);
	bytes[33] ^= 1;
	assert_int_equal(flow_received(&flow, bytes, SIZE, 0, 3, &histogram, &fault), -EBADMSG);
	assert_int_equal(fault, SIZE + 33);
}

static void bytes_never_sent_are_a_fault(void **state)
{
	(void) state;
	assert_int_equal(receive(1, 0, 2), -EBADMSG);
	assert_int_equal(fault, 0);
	flow_start(&flow, 1);
	flow_sent(&flow, 20, 1);
	/* The right bytes, but they cannot have been echoed yet. */
	assert_int_equal(receive(21, 0, 2), -EBADMSG);
	assert_int_equal(fault, 20);
}

static void abandoned_messages_are_counted_and_the_next_begins_afresh(void **state)
{
	(void) state;
	flow_start(&flow, 1);
	flow_start(&flow, 1);
	flow_sent(&flow, 100, 1);
	assert_int_equal(receive(70, 0, 2), 1);
	assert_int_equal(flow_abandon(&flow), 1);
	assert_int_equal(flow.granted, flow.received);
	assert_true(flow_has_room(&flow));
	flow_start(&flow, 10);
	send_all(10);
	assert_int_equal(receive(SIZE, 0, 30), 1);
	assert_int_equal(histogram.max, 20);
}

static void a_stream_runs_its_window_ahead(void **state)
{
	size_t length;

	(void) state;
	flow_init(&flow, 0, 65536, 0, stamps);
	flow_grant(&flow, 1000000);
	flow_out(&flow, SIZE_MAX, &length);
	assert_int_equal(length, PATTERN_RUN);
	flow_sent(&flow, length, 100);
	flow_out(&flow, SIZE_MAX, &length);
	flow_sent(&flow, length, 120);
	assert_int_equal(receive(1000, 0, 130), 0);
	assert_int_equal(histogram.count, 0);
	flow_grant(&flow, 1000000);
	assert_int_equal(flow.granted, 1001000);
	/* The mark is behind the first send: it is back when that many bytes are. */
	assert_int_equal(receive(PATTERN_RUN - 1000, 0, 170), 0);
	assert_int_equal(histogram.count, 1);
	assert_int_equal(histogram.max, 70);
}

static void room_for_stamps_is_a_power_of_two(void **state)
{
	(void) state;
	assert_int_equal(flow_stamps_needed(0), 1);
	assert_int_equal(flow_stamps_needed(1), 1);
	assert_int_equal(flow_stamps_needed(3), 4);
	assert_int_equal(flow_stamps_needed(16), 16);
	assert_int_equal(flow_stamps_needed(65536), 65536);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(depth_is_kept, make),
		cmocka_unit_test_setup(latency_counts_from_the_start_to_the_last_byte, make),
		cmocka_unit_test_setup(what_began_too_early_does_not_count, make),
		cmocka_unit_test_setup(a_short_send_goes_on_where_it_stopped, make),
		cmocka_unit_test_setup(a_wrong_byte_is_told_with_its_offset, make),
		cmocka_unit_test_setup(bytes_never_sent_are_a_fault, make),
		cmocka_unit_test_setup(abandoned_messages_are_counted_and_the_next_begins_afresh, make),
		cmocka_unit_test_setup(a_stream_runs_its_window_ahead, make),
		cmocka_unit_test_setup(room_for_stamps_is_a_power_of_two, make),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
