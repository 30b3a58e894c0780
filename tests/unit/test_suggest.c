/* SPDX-License-Identifier: ISC */
/* test_suggest.c - nearest names, lists of names, quoted text */
#include <config.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/suggest.h"
#include "base/quote.h"

static const char *const models[] = { "iterative", "process", "prefork", "thread", "prethread",
	                              "select", "poll", "epoll", "io_uring", NULL };

static void finds_the_nearest_name(void **state)
{
	static const char *const pairs[][2] = {
		{ "epol", "epoll" }, { "eppoll", "epoll" }, { "epoll", "epoll" }, { "EPOLL", "epoll" },
		{ "threads", "thread" }, { "prefrok", "prefork" }, { "iouring", "io_uring" },
		{ "io-uring", "io_uring" }, { "pre-thread", "prethread" }, { "pol", "poll" },
		{ "slect", "select" }, { "proccess", "process" }, { "itertaive", "iterative" },
	};

	(void) state;
	for (size_t i = 0; i < sizeof(pairs) / sizeof(pairs[0]); i++) {
		const char *nearest = suggest_nearest(pairs[i][0], models);

		assert_non_null(nearest);
		assert_string_equal(nearest, pairs[i][1]);
	}
}

static void finds_nothing_where_no_name_is_near(void **state)
{
	static const char *const strangers[] = { "", "x", "apache", "1234", "kqueue-and-friends" };
	static const char *const none[] = { NULL };
	char longest[1000];

	(void) state;
	for (size_t i = 0; i < sizeof(strangers) / sizeof(strangers[0]); i++)
		assert_null(suggest_nearest(strangers[i], models));
	assert_null(suggest_nearest("epoll", none));
	memset(longest, 'e', sizeof(longest) - 1);
	longest[sizeof(longest) - 1] = '\0';
	assert_null(suggest_nearest(longest, models));
}

/* The first of several names at equal distance is found, so that messages are always the same. */
static void finds_the_first_of_several_nearest_names(void **state)
{
	static const char *const known[] = { "aab", "aac", NULL };

	(void) state;
	assert_string_equal(suggest_nearest("aad", known), "aab");
}

static void a_transposition_is_one_edit(void **state)
{
	static const char *const known[] = { "abxy", "badc", NULL };

	(void) state;
	assert_string_equal(suggest_nearest("abdc", known), "badc");
}

static void joins_lists(void **state)
{
	static const char *const one[] = { "tcp", NULL }, *const two[] = { "tcp", "udp", NULL };
	static const char *const three[] = { "a", "b", "c", NULL }, *const none[] = { NULL };
	char text[32];

	(void) state;
	assert_string_equal(suggest_join(text, sizeof(text), none), "");
	assert_string_equal(suggest_join(text, sizeof(text), one), "tcp");
	assert_string_equal(suggest_join(text, sizeof(text), two), "tcp or udp");
	assert_string_equal(suggest_join(text, sizeof(text), three), "a, b or c");
	assert_string_equal(suggest_join(text, 6, three), "a, b ");
	assert_string_equal(suggest_join(text, 1, three), "");
}

static void quotes_text(void **state)
{
	char out[QUOTE_MAX], big[4096];

	(void) state;
	assert_string_equal(quote_string(out, ""), "\"\"");
	assert_string_equal(quote_string(out, "plain text"), "\"plain text\"");
	assert_string_equal(quote_string(out, "a\"b\\c"), "\"a\\\"b\\\\c\"");
	assert_string_equal(quote(out, "a\0\x1b[2J\n\xff", 8), "\"a\\x00\\x1B[2J\\x0A\\xFF\"");

	/* Text of any bytes fits after it was shortened, and has no control characters. */
	for (int c = 0; c < 256; c++) {
		size_t length;

		memset(big, c, sizeof(big));
		quote(out, big, sizeof(big));
		length = strlen(out);
		assert_in_range(length, 60, QUOTE_MAX - 1);
		assert_string_equal(out + length - 4, "...\"");
		for (size_t i = 0; i < length; i++)
			assert_in_range(out[i], ' ', '~');
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(finds_the_nearest_name),
		cmocka_unit_test(finds_nothing_where_no_name_is_near),
		cmocka_unit_test(finds_the_first_of_several_nearest_names),
		cmocka_unit_test(a_transposition_is_one_edit),
		cmocka_unit_test(joins_lists),
		cmocka_unit_test(quotes_text),
	};

	return cmocka_run_group_tests_name("names", tests, NULL, NULL);
}
