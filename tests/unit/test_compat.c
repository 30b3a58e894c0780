/* SPDX-License-Identifier: ISC */
/* test_compat.c - the replacements for functions that an older libc or kernel lacks */
#include <config.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <fcntl.h>
#include <sys/eventfd.h>

/* Test the replacement, on hosts that do not need it, too. */
#undef HAVE_EPOLL_PWAIT2
#include "base/compat.h"

static void epoll_wait_returns_the_events_that_are_ready(void **state)
{
	struct epoll_event event = { .events = EPOLLIN, .data.u32 = 7 }, events[2];
	const struct timespec minute = { .tv_sec = 60 };
	int epoll = epoll_create1(EPOLL_CLOEXEC), ready = eventfd(1, EFD_CLOEXEC),
	    idle = eventfd(0, EFD_CLOEXEC);

	(void) state;
	assert_int_equal(epoll_ctl(epoll, EPOLL_CTL_ADD, idle, &event), 0);
	event.data.u32 = 8;
	assert_int_equal(epoll_ctl(epoll, EPOLL_CTL_ADD, ready, &event), 0);
	assert_int_equal(compat_epoll_wait(epoll, events, 2, &minute), 1);
	assert_int_equal(events[0].data.u32, 8);
	assert_int_equal(compat_epoll_wait(epoll, events, 2, NULL), 1);
	close(idle);
	close(ready);
	close(epoll);
}

static void epoll_wait_ends_with_its_timeout(void **state)
{
	const struct timespec none = { 0 }, short_time = { .tv_nsec = 1000 };
	struct epoll_event events[1];
	int epoll = epoll_create1(EPOLL_CLOEXEC);

	(void) state;
	assert_int_equal(compat_epoll_wait(epoll, events, 1, &none), 0);
	assert_int_equal(compat_epoll_wait(epoll, events, 1, &short_time), 0);
	close(epoll);
}

static void close_range_closes_its_range_alone(void **state)
{
	int fd = eventfd(0, EFD_CLOEXEC), first = fcntl(fd, F_DUPFD, 100),
	    second = fcntl(fd, F_DUPFD, first + 1);

	(void) state;
	assert_true(first >= 100 && second > first);
	assert_int_equal(compat_close_range((unsigned) first, (unsigned) first), 0);
	assert_int_equal(fcntl(first, F_GETFD), -1);
	assert_int_not_equal(fcntl(second, F_GETFD), -1);
	close(second);
	close(fd);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(epoll_wait_returns_the_events_that_are_ready),
		cmocka_unit_test(epoll_wait_ends_with_its_timeout),
		cmocka_unit_test(close_range_closes_its_range_alone),
	};

	return cmocka_run_group_tests_name("compat", tests, NULL, NULL);
}
