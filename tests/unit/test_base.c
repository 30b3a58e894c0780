/* SPDX-License-Identifier: ISC */
/* test_base.c - pool, rate limit, clock, hash, escapes and log records */
#include <config.h>

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/clock.h"
#include "base/escape.h"
#include "base/log.h"
#include "base/pool.h"
#include "base/log_budget.h"
#include "base/ratelimit.h"
#include "base/siphash.h"

#define OBJECT 112
#define OBJECTS 3000

/* Objects keep their contents while others are allocated and freed. */
static void pool_objects_do_not_overlap(void **state)
{
	static unsigned char *objects[OBJECTS];
	struct pool pool;
	uint32_t random = 1;

	(void) state;
	memset(objects, 0, sizeof objects);
	pool_init(&pool, OBJECT);
	for (int i = 0; i < 100000; i++) {
		unsigned at;

		random = random * 1664525 + 1013904223;
		at = (random >> 8) % OBJECTS;
		if (!objects[at]) {
			objects[at] = pool_alloc(&pool);
			assert_non_null(objects[at]);
			memset(objects[at], (int) (at & 0xff), OBJECT);
			continue;
		}
		for (int j = 0; j < OBJECT; j++)
			assert_int_equal(objects[at][j], at & 0xff);
		pool_free(&pool, objects[at]);
		objects[at] = NULL;
	}
	for (unsigned at = 0; at < OBJECTS; at++)
		pool_free(&pool, objects[at]);
	/* all chunks were freed but one, which is kept for the next object */
	assert_false(list_empty(&pool.chunks));
	assert_ptr_equal(pool.chunks.next, pool.chunks.prev);
	pool_destroy(&pool);
	assert_true(list_empty(&pool.chunks));
}

static unsigned lines_taken(struct log_budget *budget, uint32_t source, unsigned lines, int64_t now)
{
	unsigned taken = 0;

	for (unsigned i = 0; i < lines; i++)
		taken += log_budget_take(budget, &source, sizeof source, now);
	return taken;
}

static void log_budget_is_shared(void **state)
{
	static struct log_budget budget = { .share = 10, .all = 25, .interval = USEC_PER_SEC };

	(void) state;
	/* each source has its share, until the total is used up */
	assert_int_equal(lines_taken(&budget, 1, 1000, 5 * USEC_PER_SEC), 10);
	assert_int_equal(lines_taken(&budget, 2, 4, 5 * USEC_PER_SEC + 1), 4);
	assert_int_equal(lines_taken(&budget, 3, 1000, 6 * USEC_PER_SEC - 1), 10);
	assert_int_equal(lines_taken(&budget, 4, 1000, 6 * USEC_PER_SEC - 1), 1);
	/* all shares are available again in the next interval */
	assert_int_equal(lines_taken(&budget, 1, 1000, 6 * USEC_PER_SEC), 10);
	assert_int_equal(lines_taken(&budget, 5, 1, 6 * USEC_PER_SEC), 1);
}

static void log_budget_remembers_sources_without_lines(void **state)
{
	static struct log_budget budget = { .share = 10, .all = UINT32_MAX, .interval = USEC_PER_SEC };
	unsigned again = 0;

	(void) state;
	assert_int_equal(lines_taken(&budget, 0, 1000, 1), 10);
	/* many other sources do not displace the source that has used its share */
	for (uint32_t source = 1; source < 20000; source++)
		assert_int_equal(lines_taken(&budget, source, 1, 1), 1);
	again = lines_taken(&budget, 0, 1000, 1);
	assert_int_equal(again, 0);
}

static void ratelimit_lets_a_burst_through_and_counts_the_rest(void **state)
{
	struct ratelimit limit = { 0 };
	unsigned passed = 0;

	(void) state;
	for (int i = 0; i < 100; i++)
		passed += ratelimit_allow(&limit, 1000 + i, USEC_PER_SEC, 10);
	assert_int_equal(passed, 10);
	assert_int_equal(ratelimit_take_suppressed(&limit), 90);
	assert_int_equal(ratelimit_take_suppressed(&limit), 0);
	assert_true(ratelimit_allow(&limit, 1000 + USEC_PER_SEC, USEC_PER_SEC, 10));
}

static void poll_timeouts_are_rounded_up(void **state)
{
	(void) state;
	assert_int_equal(clock_poll_timeout(INT64_MAX, 5), -1);
	assert_int_equal(clock_poll_timeout(5, 5), 0);
	assert_int_equal(clock_poll_timeout(4, 5), 0);
	assert_int_equal(clock_poll_timeout(6, 5), 1);
	assert_int_equal(clock_poll_timeout(1005, 5), 1);
	assert_int_equal(clock_poll_timeout(1006, 5), 2);
	assert_int_equal(clock_poll_timeout(INT64_MAX - 1, 0), INT32_MAX);
}

static void control_characters_are_escaped(void **state)
{
	static const struct {
		const char *text, *escaped;
	} texts[] = {
		{ "", "" },
		{ "plain, caf\xc3\xa9 \xe2\x82\xac \xf0\x9f\x98\x80",
		  "plain, caf\xc3\xa9 \xe2\x82\xac \xf0\x9f\x98\x80" },
		{ "a\nMAINPID=1", "a\\x0AMAINPID=1" },
		{ "\x1b[2J\r\t\x7f", "\\x1B[2J\\x0D\\x09\\x7F" },
		{ "\xc2\x9b", "\\xC2\\x9B" },          /* C1 */
		{ "\xc0\x8a", "\\xC0\\x8A" },          /* a newline, overlong */
		{ "\xed\xa0\x80", "\\xED\\xA0\\x80" }, /* a surrogate */
		{ "\xf4\x90\x80\x80", "\\xF4\\x90\\x80\\x80" },
		{ "\xe2\x82", "\\xE2\\x82" },
		{ "\xff\\", "\\xFF\\" },
	};
	char out[64];

	(void) state;
	for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
		assert_int_equal(escape_controls(out, sizeof out, texts[i].text, strlen(texts[i].text)),
		                 strlen(texts[i].escaped));
		assert_string_equal(out, texts[i].escaped);
	}
	/* characters that do not fit completely are omitted */
	assert_int_equal(escape_controls(out, 5, "a\n", 2), 1);
	assert_int_equal(escape_controls(out, 6, "a\n", 2), 5);
	assert_int_equal(escape_controls(out, 3, "\xe2\x82\xac", 3), 0);
	assert_int_equal(escape_controls(out, 1, "a", 1), 0);
}

#define HEAD "PRIORITY=4\0MESSAGE_ID=519c19606d584b0cbc0d46b5c68564ab\0SYSLOG_IDENTIFIER=echod\0"

static int read_record(const char *bytes, size_t size, struct log_record *record, const char **message)
{
	char *copy = malloc(size ? size : 1); /* a sanitizer detects reads beyond its end */
	int r;

	assert_non_null(copy);
	memcpy(copy, bytes, size);
	r = log_record_read(record, copy, size, message);
	free(copy);
	return r;
}

static void records_of_workers_are_checked(void **state)
{
	static const struct {
		const char *bytes;
		size_t size;
	} wrong[] = {
#define WRONG(text) { text, sizeof text }
		{ "", 0 },
		{ HEAD "MESSAGE=x", sizeof HEAD "MESSAGE=x" - 1 }, /* without the NUL */
		WRONG(HEAD "MESSAGE"),
		WRONG("SYSLOG_IDENTIFIER=echod\0MESSAGE=x"),
		WRONG(HEAD "ECHOD_PEER=x"),
		WRONG(HEAD "MESSAGE=x\0MESSAGE=y"),
		WRONG(HEAD "PRIORITY=3\0MESSAGE=x"),
		WRONG(HEAD "=y\0MESSAGE=x"),
		WRONG(HEAD "_PID=1\0MESSAGE=x"),
		WRONG(HEAD "ECHOD_=1\0MESSAGE=x"),
		WRONG(HEAD "ECHOD_\n=1\0MESSAGE=x"),
		WRONG(HEAD "OBJECT_PID=1\0MESSAGE=x"),
		WRONG("PRIORITY=0\0MESSAGE_ID=519c19606d584b0cbc0d46b5c68564ab\0SYSLOG_IDENTIFIER="
		      "echod\0MESSAGE=x"),
		WRONG("PRIORITY=44\0MESSAGE_ID=519c19606d584b0cbc0d46b5c68564ab\0SYSLOG_IDENTIFIER="
		      "echod\0MESSAGE=x"),
		WRONG("PRIORITY=4\0MESSAGE_ID=519c19606d584b0cbc0d46b5c68564ac\0SYSLOG_IDENTIFIER="
		      "echod\0MESSAGE=x"),
		WRONG("PRIORITY=4\0MESSAGE_ID=519c19606d584b0cbc0d46b5c68564ab\0SYSLOG_IDENTIFIER="
		      "sshd\0MESSAGE=x"),
#undef WRONG
	};
	static const char right[] = HEAD "ECHOD_PEER=192.0.2.1:7\0MESSAGE=one\nMAINPID=1";
	struct log_record record;
	const char *message;

	(void) state;
	for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++)
		assert_int_equal(read_record(wrong[i].bytes, wrong[i].size, &record, &message), -EBADMSG);
	assert_int_equal(read_record(right, sizeof right, &record, &message), 0);
	assert_int_equal(record.priority, LOG_WARNING);
	assert_string_equal(message, "one\\x0AMAINPID=1");
}

/* The test values of the paper, appendix A, and of its reference code: messages 00, 01, 02, ... of each
 * length. */
static void siphash_agrees_with_its_paper(void **state)
{
	static const struct {
		size_t size;
		uint64_t hash;
	} values[] = {
		{ 0, UINT64_C(0x726fdb47dd0e0e31) },
		{ 1, UINT64_C(0x74f839c593dc67fd) },
		{ 7, UINT64_C(0xab0200f58b01d137) },
		{ 8, UINT64_C(0x93f5f5799a932462) },
		{ 15, UINT64_C(0xa129ca6149be45e5) },
		{ 16, UINT64_C(0x3f2acc7f57c29bdb) },
	};
	const struct siphash_key key = { UINT64_C(0x0706050403020100), UINT64_C(0x0f0e0d0c0b0a0908) };
	struct siphash_key one, other;
	unsigned char message[16];

	(void) state;
	for (size_t i = 0; i < sizeof message; i++)
		message[i] = (unsigned char) i;
	for (size_t i = 0; i < sizeof values / sizeof values[0]; i++)
		assert_true(siphash(&key, message, values[i].size) == values[i].hash);
	assert_int_equal(siphash_key_make(&one), 0);
	assert_int_equal(siphash_key_make(&other), 0);
	assert_memory_not_equal(&one, &other, sizeof one);
	assert_true(siphash(&one, message, 8) != siphash(&other, message, 8));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(control_characters_are_escaped),
		cmocka_unit_test(records_of_workers_are_checked),
		cmocka_unit_test(siphash_agrees_with_its_paper),
		cmocka_unit_test(pool_objects_do_not_overlap),
		cmocka_unit_test(log_budget_is_shared),
		cmocka_unit_test(log_budget_remembers_sources_without_lines),
		cmocka_unit_test(ratelimit_lets_a_burst_through_and_counts_the_rest),
		cmocka_unit_test(poll_timeouts_are_rounded_up),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
