/* SPDX-License-Identifier: ISC */
/* test_probes.c - match answers with probes, count the results */
#include <config.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <string.h>

#include "client/pattern.h"
#include "client/ping/probes.h"

#define SIZE 56
#define KEY 0xC0FFEE11

static struct probes probes;
static struct probe_match match;
static uint8_t bytes[2 * SIZE];

static int make(void **state)
{
	(void) state;
	pattern_make();
	return probes_init(&probes, SIZE, KEY, 1);
}

static int clear(void **state)
{
	(void) state;
	probes_clear(&probes);
	return 0;
}

/* Send `count` probes, number n at 1000 * n. */
static void send(unsigned count)
{
	for (unsigned i = 0; i < count; i++)
		probes_send(&probes, (probes.sent + 1) * 1000);
}

static void answer(uint64_t seq, uint64_t now)
{
	probes_fill(&probes, seq, bytes);
	probes_match(&probes, bytes, SIZE, now, &match);
}

static void an_answer_is_matched(void **state)
{
	(void) state;
	send(3);
	answer(2, 2500);
	assert_int_equal(match.verdict, VERDICT_ANSWER);
	assert_int_equal(match.seq, 2);
	assert_int_equal(match.rtt, 500);
	assert_false(match.reordered);
	assert_int_equal(probes.received, 1);
	assert_int_equal(probes_underway(&probes, -1), 2);
	assert_int_equal(probes_oldest(&probes), 1);
}

static void a_second_answer_is_a_duplicate(void **state)
{
	(void) state;
	send(1);
	answer(1, 1100);
	answer(1, 1200);
	assert_int_equal(match.verdict, VERDICT_DUPLICATE);
	assert_int_equal(match.rtt, 200);
	assert_int_equal(probes.received, 1);
	assert_int_equal(probes.duplicates, 1);
	assert_int_equal(probes.rtt.count, 1);
}

static void an_overtaken_answer_is_reordered(void **state)
{
	(void) state;
	send(4);
	answer(3, 5000);
	answer(1, 5000);
	assert_true(match.reordered);
	answer(4, 5000);
	assert_false(match.reordered);
	answer(2, 5000);
	assert_true(match.reordered);
	answer(2, 5000); /* counts as a duplicate only */
	assert_int_equal(probes.reordered, 2);
}

static void an_answer_after_the_time_out_is_late(void **state)
{
	(void) state;
	send(2);
	probes_give_up(&probes, 1, PROBE_OVERDUE);
	assert_int_equal(probes_oldest(&probes), 2);
	answer(1, 9000);
	assert_int_equal(match.verdict, VERDICT_ANSWER);
	assert_true(match.late);
	assert_int_equal(probes.late, 1);
	assert_int_equal(probes.received, 1);
}

static void each_wrong_byte_is_reported_with_its_offset(void **state)
{
	(void) state;
	for (size_t at = 0; at < SIZE; at++) {
		send(1);
		probes_fill(&probes, probes.sent, bytes);
		bytes[at] ^= 0x80;
		probes_match(&probes, bytes, SIZE, 1, &match);
		assert_int_equal(match.verdict, VERDICT_DIFFERS);
		assert_int_equal(match.seq, probes.sent);
		assert_int_equal(match.at, at);
		assert_int_equal(match.wanted ^ match.got, 0x80);
	}
	assert_int_equal(probes.differing, SIZE);
	assert_int_equal(probes.received, 0);
}

static void a_wrong_length_is_reported(void **state)
{
	(void) state;
	send(1);
	probes_fill(&probes, 1, bytes);
	probes_match(&probes, bytes, SIZE - 20, 1, &match);
	assert_int_equal(match.verdict, VERDICT_DIFFERS);
	assert_int_equal(match.at, SIZE - 20);
	assert_int_equal(match.got, -1);
	send(1);
	probes_fill(&probes, 2, bytes);
	probes_match(&probes, bytes, SIZE + 1, 1, &match);
	assert_int_equal(match.verdict, VERDICT_DIFFERS);
	assert_int_equal(match.at, SIZE);
	assert_int_equal(match.wanted, -1);
}

static void an_answer_without_a_probe_is_a_stray(void **state)
{
	struct probes another;

	(void) state;
	send(5);
	memset(bytes, 0, SIZE);
	probes_match(&probes, bytes, SIZE, 1, &match);
	assert_int_equal(match.verdict, VERDICT_STRAY);
	probes_match(&probes, bytes, 0, 1, &match);
	assert_int_equal(match.verdict, VERDICT_STRAY);
	/* A probe of another run, with the same number. */
	assert_int_equal(probes_init(&another, SIZE, KEY + 77777, 1), 0);
	probes_fill(&another, 3, bytes);
	probes_clear(&another);
	probes_match(&probes, bytes, SIZE, 1, &match);
	assert_int_equal(match.verdict, VERDICT_STRAY);
	/* A probe that was not sent. */
	probes_fill(&probes, 6, bytes);
	probes_match(&probes, bytes, SIZE, 1, &match);
	assert_int_equal(match.verdict, VERDICT_STRAY);
	assert_int_equal(probes.strays, 4);
}

static void numbers_go_beyond_the_window(void **state)
{
	(void) state;
	send(PROBES_WINDOW + 10);
	answer(PROBES_WINDOW + 10, (PROBES_WINDOW + 10) * 1000 + 5);
	assert_int_equal(match.verdict, VERDICT_ANSWER);
	assert_int_equal(match.rtt, 5);
	answer(11, 1);
	assert_int_equal(match.verdict, VERDICT_ANSWER);
	answer(10, 1); /* no longer in the window */
	assert_int_equal(match.verdict, VERDICT_STRAY);
	assert_int_equal(probes_oldest(&probes), 12);
}

/* Each probe is counted once, as received, corrupted or lost, also when it is no longer in the window. */
static void a_probe_is_corrupted_until_it_is_answered(void **state)
{
	(void) state;
	send(2);
	for (int twice = 0; twice < 2; twice++) {
		probes_fill(&probes, 1, bytes);
		bytes[20] ^= 1;
		probes_match(&probes, bytes, SIZE, 1, &match);
	}
	assert_int_equal(probes.differing, 2);
	assert_int_equal(probes.corrupted, 1);
	probes_fill(&probes, 2, bytes);
	bytes[20] ^= 1;
	probes_match(&probes, bytes, SIZE, 1, &match);
	assert_int_equal(probes.corrupted, 2);
	answer(2, 1);
	assert_int_equal(probes.corrupted, 1);
	assert_int_equal(probes.received, 1);
	send(PROBES_WINDOW);
	assert_int_equal(probes.corrupted, 1);
}

static void streams_are_matched_in_order(void **state)
{
	(void) state;
	send(2);
	probes_fill(&probes, 1, bytes);
	probes_match_stream(&probes, 1, bytes, 1010, &match);
	assert_int_equal(match.verdict, VERDICT_ANSWER);
	assert_int_equal(match.rtt, 10);
	probes_match_stream(&probes, 2, bytes, 2010, &match);
	assert_int_equal(match.verdict, VERDICT_DIFFERS);
	assert_int_equal(match.seq, 2);
}

/* Round-trip times 100, 130, lost, 150, 150. */
static void jitter_is_between_consecutive_answers(void **state)
{
	(void) state;
	send(5);
	answer(1, 1100);
	answer(2, 2130);
	answer(4, 4150);
	answer(5, 5150);
	assert_int_equal(probes.jitter.count, 2);
	assert_int_equal(probes.jitter.max, 30);
	assert_int_equal(probes.jitter.min, 0);
	/* Answer 3 comes late: it has a predecessor and a successor. */
	answer(3, 3120);
	assert_int_equal(probes.jitter.count, 4);
	assert_int_equal((int) probes.jitter.sum, 30 + 0 + 10 + 30);
}

static void flows_are_counted_separately(void **state)
{
	struct probes flows;

	(void) state;
	assert_int_equal(probes_init(&flows, SIZE, KEY, 3), 0);
	for (unsigned i = 1; i <= 7; i++)
		probes_send(&flows, i * 1000);
	assert_int_equal(probes_flow_of(&flows, 1), 0);
	assert_int_equal(probes_flow_of(&flows, 6), 2);
	/* Answers of different flows are not reordered, and add no jitter. */
	for (uint64_t seq = 3; seq > 0; seq--) {
		probes_fill(&flows, seq, bytes);
		probes_match(&flows, bytes, SIZE, seq * 1000 + seq * 10, &match);
		assert_false(match.reordered);
	}
	assert_int_equal(flows.jitter.count, 0);
	/* 4 and 7 are of one flow. */
	probes_fill(&flows, 7, bytes);
	probes_match(&flows, bytes, SIZE, 7500, &match);
	probes_fill(&flows, 4, bytes);
	probes_match(&flows, bytes, SIZE, 7600, &match);
	assert_true(match.reordered);
	assert_int_equal(flows.jitter.count, 2); /* 1 and 4, 4 and 7 */
	assert_int_equal(flows.flows[0].sent, 3);
	assert_int_equal(flows.flows[0].received, 3);
	assert_int_equal(flows.flows[1].sent, 2);
	assert_int_equal(flows.flows[1].received, 1);
	assert_int_equal(probes_underway(&flows, 1), 1);
	assert_int_equal(probes_underway(&flows, -1), 2);
	probes_clear(&flows);
}

static void a_probe_is_identified_by_its_beginning(void **state)
{
	(void) state;
	send(3);
	probes_fill(&probes, 2, bytes);
	assert_int_equal(probes_identify(&probes, bytes, SIZE), 2);
	assert_int_equal(probes_identify(&probes, bytes, 28), 2);
	assert_int_equal(probes_identify(&probes, bytes, 3), 0);
	bytes[20] ^= 1;
	assert_int_equal(probes_identify(&probes, bytes, 28), 0);
	probes_fill(&probes, 4, bytes);
	assert_int_equal(probes_identify(&probes, bytes, SIZE), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(an_answer_is_matched, make, clear),
		cmocka_unit_test_setup_teardown(a_second_answer_is_a_duplicate, make, clear),
		cmocka_unit_test_setup_teardown(an_overtaken_answer_is_reordered, make, clear),
		cmocka_unit_test_setup_teardown(an_answer_after_the_time_out_is_late, make, clear),
		cmocka_unit_test_setup_teardown(each_wrong_byte_is_reported_with_its_offset, make, clear),
		cmocka_unit_test_setup_teardown(a_wrong_length_is_reported, make, clear),
		cmocka_unit_test_setup_teardown(an_answer_without_a_probe_is_a_stray, make, clear),
		cmocka_unit_test_setup_teardown(numbers_go_beyond_the_window, make, clear),
		cmocka_unit_test_setup_teardown(a_probe_is_corrupted_until_it_is_answered, make, clear),
		cmocka_unit_test_setup_teardown(streams_are_matched_in_order, make, clear),
		cmocka_unit_test_setup_teardown(jitter_is_between_consecutive_answers, make, clear),
		cmocka_unit_test_setup_teardown(flows_are_counted_separately, make, clear),
		cmocka_unit_test_setup_teardown(a_probe_is_identified_by_its_beginning, make, clear),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
