/* SPDX-License-Identifier: ISC */
/* test_conf_memory.c - reading echod.conf while allocations, libconfuse or read(2) fail
 *
 * The linker (--wrap) sends these calls of the program, but not those of libraries, to the functions below.
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
#include <sys/mman.h>
#include <sys/types.h>
#include <unistd.h>

#include <cmocka.h>

#include <confuse.h>

#include "conf/conf.h"
#include "models/model.h"

static const struct conf_overrides no_overrides = CONF_OVERRIDES_NONE;

/* Number of allocations until one fails, which is included; 0: none fails. */
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
WRAPPED(int, __vasprintf_chk, (char **text, int flag, const char *format, va_list args),
        (text, flag, format, args), -1)
WRAPPED(FILE *, open_memstream, (char **text, size_t *size), (text, size), NULL)
WRAPPED(cfg_t *, cfg_init, (cfg_opt_t * options, cfg_flag_t flags), (options, flags), NULL)

/* Called instead of cfg_parse_buf(), if it is not NULL. */
static int (*confuse_result)(cfg_t *cfg, const char *text);

int __real_cfg_parse_buf(cfg_t *cfg, const char *text);
int __wrap_cfg_parse_buf(cfg_t *cfg, const char *text);
int __wrap_cfg_parse_buf(cfg_t *cfg, const char *text)
{
	return confuse_result ? confuse_result(cfg, text) : __real_cfg_parse_buf(cfg, text);
}

/* The first call of read(2) fails with this error, if it is not 0. The other calls read one byte each; their
 * buffer must be the rest of the one of the call before. */
static int read_error;
static size_t read_space;

ssize_t __real_read(int fd, void *buffer, size_t size);
ssize_t __wrap_read(int fd, void *buffer, size_t size);
ssize_t __wrap___read_chk(int fd, void *buffer, size_t size, size_t space);

ssize_t __wrap_read(int fd, void *buffer, size_t size)
{
	ssize_t n;

	errno = read_error;
	read_error = 0;
	if (errno != 0)
		return -1;
	assert_true(read_space == 0 || read_space == size);
	n = __real_read(fd, buffer, size < 1 ? size : 1);
	read_space = size - (size_t) n;
	return n;
}

ssize_t __wrap___read_chk(int fd, void *buffer, size_t size, size_t space)
{
	assert_true(size <= space);
	return __wrap_read(fd, buffer, size);
}

static const char valid[] = "model = \"poll\"\n"
			    "listen = { \"127.0.0.1\", \"[::1]:9\", \"unix:/run/e.sock\" }\n"
			    "deny = { \"192.0.2.0/24\", \"2001:db8::/32\" }\n"
			    "user = \"root\"\n";
static const char invalid[] = "prot = 9\nmodel = \"pol\"\nworkers = x\n"
			      "listen = { \"127.0.0.1\", \"127.0.0.1\" }\n";

/* Read `text`, where allocation `number` fails. Returns whether that allocation was made. */
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
	if (failed)
		assert_string_equal(errors.items[errors.count - 1].text, "F: not enough memory to read it");
	else
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

/* ---- libconfuse ---- */

static int reports_a_reason(cfg_t *cfg, const char *text)
{
	assert_int_equal(__real_cfg_parse_buf(cfg, text), CFG_SUCCESS);
	cfg->line = 2;
	cfg_error(cfg, "no %s", "reason");
	return CFG_PARSE_ERROR;
}

static int reports_nothing_to_read(cfg_t *cfg, const char *text)
{
	(void) text;
	cfg->line = 1;
	cfg_error(cfg, "%s", "");
	return CFG_PARSE_ERROR;
}

static int reports_without_memory(cfg_t *cfg, const char *text)
{
	(void) text;
	failing = 1;
	cfg_error(cfg, "no reason");
	errno = 0; /* as functions that libconfuse calls next may do */
	return CFG_PARSE_ERROR;
}

static int fails_silently(cfg_t *cfg, const char *text)
{
	assert_int_equal(__real_cfg_parse_buf(cfg, text), CFG_SUCCESS);
	return CFG_FILE_ERROR;
}

static int has_no_memory(cfg_t *cfg, const char *text)
{
	(void) cfg;
	(void) text;
	errno = ENOMEM;
	return CFG_FILE_ERROR;
}

static int reads_nothing(cfg_t *cfg, const char *text)
{
	(void) cfg;
	(void) text;
	return CFG_SUCCESS;
}

static int is_never_called(const struct conf *conf, struct diagnostics *diag)
{
	(void) conf;
	(void) diag;
	fail_msg("values that were not read are checked");
	return 0;
}

/* Where the syntax check has found no error, one of libconfuse is the only message, and no value is used. */
static void errors_of_libconfuse_are_reported(void **state)
{
	static const struct {
		int (*result)(cfg_t *cfg, const char *text);
		int r;
		const char *message;
	} cases[] = {
		{ reports_a_reason, -EINVAL, "F:2: libconfuse: no reason" },
		{ reports_nothing_to_read, -EINVAL, "F:1: libconfuse: " },
		{ reports_without_memory, -ENOMEM, "F: not enough memory to read it" },
		{ fails_silently, -EINVAL, "F: libconfuse: the file cannot be read to its end" },
		{ has_no_memory, -ENOMEM, "F: not enough memory to read it" },
		{ reads_nothing, -EINVAL, "F: libconfuse: the file cannot be read to its end" },
	};
	static const char text[] = "\nport = x";

	(void) state;
	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
		struct diagnostics errors = { 0 };
		struct conf *conf;
		int r;

		confuse_result = cases[i].result;
		r = conf_read_text(&conf, "F", text, strlen(text), &no_overrides, model_names,
		                   is_never_called, &errors);
		confuse_result = NULL;
		assert_null(conf);
		assert_int_equal(r, cases[i].r);
		assert_int_equal(errors.count, 1);
		assert_string_equal(errors.items[0].text, cases[i].message);
		diag_clear(&errors);
	}
}

/* ---- read(2) ---- */

/* Read a file in which the port is 9. */
static int read_file(struct diagnostics *errors)
{
	static const char text[] = "port = 9\n";
	int fd = memfd_create("conf", MFD_CLOEXEC), r;
	struct conf *conf;
	char path[64];

	assert_int_equal(write(fd, text, strlen(text)), strlen(text));
	snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
	read_space = 0;
	r = conf_read(&conf, path, &no_overrides, model_names, NULL, errors);
	assert_int_equal(r == 0, conf && conf->port == 9);
	conf_free(conf);
	close(fd);
	return r;
}

static void reading_goes_on_after_a_signal(void **state)
{
	struct diagnostics errors = { 0 };

	(void) state;
	read_error = EINTR;
	assert_int_equal(read_file(&errors), 0);
	assert_int_equal(errors.count, 0);
	read_error = EIO;
	assert_int_equal(read_file(&errors), -EIO);
	assert_int_equal(errors.count, 1);
	assert_non_null(strstr(errors.items[0].text, "cannot be read: Input/output error"));
	diag_clear(&errors);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(each_allocation_may_fail),
		cmocka_unit_test(a_comparison_without_memory_finds_no_change),
		cmocka_unit_test(errors_of_libconfuse_are_reported),
		cmocka_unit_test(reading_goes_on_after_a_signal),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
