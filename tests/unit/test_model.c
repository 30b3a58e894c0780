/* SPDX-License-Identifier: ISC */
/* test_model.c - limits of a model, which follow from the configuration and the host */
#include <config.h>

#include <errno.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/select.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cmocka.h>

#include "echo/scoreboard.h"
#include "models/model.h"

static rlim_t nofile;
static size_t processors;

/* These functions replace those of libc. Sanitizers call them before they are initialized, so the functions
 * are not instrumented. */
__attribute__((no_sanitize("thread")))
int getrlimit(__rlimit_resource_t resource, struct rlimit *limit)
{
	/* sanitizers read RLIMIT_STACK */
	if (resource != RLIMIT_NOFILE)
		return (int) syscall(SYS_prlimit64, 0, resource, NULL, limit);
	*limit = (struct rlimit) { .rlim_cur = 1024, .rlim_max = nofile };
	return 0;
}

__attribute__((no_sanitize("thread")))
int sched_getaffinity(pid_t pid, size_t size, cpu_set_t *set)
{
	if (processors == 0) /* called by a sanitizer, not by a test */
		return (int) syscall(SYS_sched_getaffinity, pid, size, set) < 0 ? -1 : 0;
	if (size * 8 < processors) {
		errno = EINVAL;
		return -1;
	}
	CPU_ZERO_S(size, set);
	for (size_t i = 0; i < processors; i++)
		CPU_SET_S(i, size, set);
	return 0;
}

static struct model_limits limits_of(const char *name, unsigned workers, unsigned max_connections)
{
	struct conf conf = { .workers = workers, .max_connections = max_connections, .listen_count = 1 };
	struct model_limits limits;

	memset(&limits, 0xff, sizeof limits);
	model_limits(&limits, model_find(name), &conf, 2);
	return limits;
}

/* With every limit and number of processors, a process has descriptors for all of its connections. */
static void default_limits_fit_the_process(void **state)
{
	static const rlim_t limits[] = { 256, 1024, 4096, 20000, 524288, 1U << 30, RLIM_INFINITY };
	static const size_t counts[] = { 1, 2, 64, 1024, 4096 };

	(void) state;
	for (size_t l = 0; l < sizeof limits / sizeof limits[0]; l++)
		for (size_t c = 0; c < sizeof counts / sizeof counts[0]; c++)
			for (const char *const *name = model_names; *name; name++) {
				struct model_limits is;
				uint64_t needs;

				nofile = limits[l];
				processors = counts[c];
				is = limits_of(*name, 0, 0);
				assert_in_range(is.workers, 1, CONF_WORKERS_MAX);
				assert_in_range(is.max_connections, 1, CONF_CONNECTIONS_MAX);
				assert_in_range(is.capacity, 1, CONF_CONNECTIONS_MAX);
				if (model_find(*name)->zero != MODEL_ZERO_PROCESSORS)
					continue;
				assert_true(is.workers <= counts[c]);
				needs = (uint64_t) is.workers * (3 + 2 * is.pipes) + is.max_connections;
				assert_true(needs <= nofile);
				assert_true(strcmp(*name, "select") != 0 || needs <= FD_SETSIZE);
				/* enough descriptors remain for connections */
				assert_true(is.max_connections >= is.workers);
				assert_true(nofile < 1024 || is.max_connections >= 400);
			}
}

static void more_than_1024_processors_are_used(void **state)
{
	(void) state;
	nofile = 524288;
	processors = 2000;
	assert_int_equal(limits_of("epoll", 0, 0).workers, 2000);
}

static void configured_limits_are_not_changed(void **state)
{
	(void) state;
	nofile = 256;
	processors = 2;
	assert_int_equal(limits_of("epoll", 0, 5000000).max_connections, 5000000);
	assert_int_equal(limits_of("epoll", 300, 0).workers, 300);
	assert_int_equal(limits_of("process", 0, SCOREBOARD_WORKERS_MAX - 1).workers,
	                 SCOREBOARD_WORKERS_MAX - 1);
	assert_int_equal(limits_of("thread", 7, 524288).workers, 7);
	assert_int_equal(limits_of("prefork", SCOREBOARD_WORKERS_MAX, 0).workers, SCOREBOARD_WORKERS_MAX);
}

static int check(const char *name, unsigned workers, unsigned max_connections)
{
	char path[] = "file", model[16];
	struct conf conf = { .path = path,
		             .model = model,
		             .workers = workers,
		             .max_connections = max_connections,
		             .listen_count = 1 };
	struct diagnostics errors = { 0 };
	int r;

	snprintf(model, sizeof model, "%s", name);
	r = model_check(&conf, &errors);
	assert_true((r == 0) == (errors.count == 0));
	diag_clear(&errors);
	return r;
}

/* Bounds of echod, which do not depend on RLIMIT_NOFILE. */
static void limits_that_no_crew_can_have_are_rejected(void **state)
{
	(void) state;
	processors = 2000;
	for (nofile = 256; nofile < 1U << 30; nofile *= 16) {
		assert_int_equal(check("process", 0, SCOREBOARD_WORKERS_MAX), 0);
		assert_int_equal(check("process", 0, SCOREBOARD_WORKERS_MAX + 1), -EINVAL);
		assert_int_equal(check("thread", 0, 524288), -EINVAL);
		assert_int_equal(check("thread", 8, 524288), 0);
		assert_int_equal(check("epoll", 0, 524288), 0);
		assert_int_equal(check("select", 0, 0), 0);
		assert_int_equal(check("select", 0, 1000), -EINVAL);
		assert_int_equal(check("select", 600, 0), -EINVAL);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(default_limits_fit_the_process),
		cmocka_unit_test(more_than_1024_processors_are_used),
		cmocka_unit_test(configured_limits_are_not_changed),
		cmocka_unit_test(limits_that_no_crew_can_have_are_rejected),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
