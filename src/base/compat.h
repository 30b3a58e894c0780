/* SPDX-License-Identifier: ISC */
/* compat.h - system calls that an older libc or kernel lacks
 *
 * echod works with glibc 2.31 and Linux 5.9. Each function here says what it replaces there. Any thread.
 */
#ifndef ECHOD_BASE_COMPAT_H
#define ECHOD_BASE_COMPAT_H

#include <errno.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

/* As close_range(2) without flags (Linux 5.9), for which glibc has a function since 2.34. */
static inline int compat_close_range(unsigned first, unsigned last)
{
	return (int) syscall(__NR_close_range, first, last, 0);
}

/* As epoll_pwait2(2) without a signal mask. Where glibc (before 2.35) or the kernel (before 5.11) lacks it,
 * ppoll(2) waits, since epoll_wait(2) takes only milliseconds. `timeout` may be NULL: no limit. */
static inline int compat_epoll_wait(int epoll, struct epoll_event events[], int most,
                                    const struct timespec *timeout)
{
	struct pollfd fd = { .fd = epoll, .events = POLLIN };
	int n;

#ifdef HAVE_EPOLL_PWAIT2
	n = epoll_pwait2(epoll, events, most, timeout, NULL);
	if (n >= 0 || errno != ENOSYS)
		return n;
#endif
	n = ppoll(&fd, 1, timeout, NULL);
	return n > 0 ? epoll_wait(epoll, events, most, 0) : n;
}

#endif
