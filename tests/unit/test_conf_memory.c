/* SPDX-License-Identifier: ISC */
/* test_conf_memory.c - echod.conf on a host without memory: each allocation fails once
 *
 * The linker (--wrap) sends the allocations of the program, but not of libraries, to the functions below.
 */
#include <config.h>

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "conf/conf.h"
#include "models/model.h"

static const struct conf_overrides no_overrides = CONF_OVERRIDES_NONE;

/* The number of the next allocation that fails, from 1; 0: none. */
static unsigned failing;

static bool fails(void)
{
	if (failing == 0 || --failing > 0)
		return false;
	errno = ENOMEM;
	return true;
}

#define WRAPPED(type, name, parameters, arguments, failure) \
	type __real_##name parameters; \
	type __wrap_##name parameters; \
	type __wrap_##name parameters \
	{ \
		return fails() ? failure : __real_##name arguments; \
	}

WRAPPED(void *, malloc, (size_t size), (size), NULL)
WRAPPED(void *, calloc, (size_t count, size_t size), (count, size), NULL)
WRAPPED(void *, reallocarray, (void *memory, size_t count, size_t size), (memory, count, size), NULL)
WRAPPED(char *, strdup, (const char *text), (text), NULL)
WRAPPED(int, vasprintf, (char **text, const char *format, va_list args), (text, format, args), -1)
WRAPPED(FILE *, open_memstream, (char **text, size_t *size), (text, size), NULL)

static const char valid[] = "model = \"poll\"\n"
			    "listen = { \"127.0.0.1\", \"[::1]:9\", \"unix:/run/e.sock\" }\n"
			    "deny = { \"192.0.2.0/24\", \"2001:db8::/32\" }\n"
			    "user = \"root\"\n";
static const char invalid[] = "prot = 9\nmodel = \"pol\"\nworkers = x\n"
			      "listen = { \"127.0.0.1\", \"127.0.0.1\" }\n";

/* Read `text` with the `number`th allocation failing. Returns whether there were as many. */
static bool read_without_memory(const char *text, unsigned number, int expected,
                                const struct conf_overrides *overrides)
{
	struct diagnostics errors = { 0 };
	struct conf *conf;
	bool failed;
	int r;

	failing = number;
	r = conf_read_text(&conf, "F", text, strlen(text), overrides, model_names, NULL, &errors);
	failed = failing == 0;
	failing = 0;
	if (failed && r != -ENOMEM)
		fail_msg("allocation %u: %d", number, r);
	if (!failed)
		assert_int_equal(r, expected);
	assert_int_equal(r == 0, conf != NULL);
	diag_clear(&errors);
	conf_free(conf);
	return failed;
}

static unsigned fail_each(const char *text, int expected, const struct conf_overrides *overrides)
{
	unsigned number = 1;

	while (read_without_memory(text, number, expected, overrides))
		number++;
	return number - 1;
}

static void each_allocation_may_fail(void **state)
{
	const struct conf_overrides overrides = { .model = "epoll", .workers = 3, .port = -1 };

	(void) state;
	assert_in_range(fail_each(valid, 0, &no_overrides), 10, 1000);
	assert_in_range(fail_each(valid, 0, &overrides), 10, 1000);
	assert_in_range(fail_each(invalid, -EINVAL, &no_overrides), 10, 1000);
}

/* A change that cannot be compared is not reported. */
static void a_comparison_without_memory_finds_no_change(void **state)
{
	struct diagnostics errors = { 0 };
	struct conf *one, *other;

	(void) state;
	(void) conf_read_text(&one, "F", valid, strlen(valid), &no_overrides, model_names, NULL, &errors);
	(void) conf_read_text(&other, "F", "", 0, &no_overrides, model_names, NULL, &errors);
	assert_non_null(one);
	assert_non_null(other);
	for (unsigned number = 1; number <= 3; number++) {
		failing = number;
		assert_int_equal(conf_needs_restart(one, other, CONF_USER), number == 3);
		assert_int_equal(failing, number == 3);
		failing = 0;
	}
	conf_free(one);
	conf_free(other);
	diag_clear(&errors);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(each_allocation_may_fail),
		cmocka_unit_test(a_comparison_without_memory_finds_no_change),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
