/* SPDX-License-Identifier: ISC */
#include <config.h>

#include "base/clock.h"

#include <errno.h>
#include <limits.h>
#include <time.h>

static int64_t clock_read(clockid_t id)
{
	struct timespec ts;

	clock_gettime(id, &ts);
	return (int64_t) ts.tv_sec * USEC_PER_SEC + ts.tv_nsec / 1000;
}

int64_t clock_usec(void)
{
	return clock_read(CLOCK_MONOTONIC);
}

int64_t clock_coarse_usec(void)
{
	return clock_read(CLOCK_MONOTONIC_COARSE);
}

int clock_poll_timeout(int64_t deadline, int64_t now)
{
	int64_t usec, msec;

	if (deadline == INT64_MAX)
		return -1;
	if (deadline <= now)
		return 0;
	usec = deadline - now;
	msec = usec / USEC_PER_MSEC + (usec % USEC_PER_MSEC != 0);
	return msec > INT_MAX ? INT_MAX : (int) msec;
}

bool clock_poll_retry(int error)
{
	const struct timespec moment = { .tv_nsec = 10 * 1000 * USEC_PER_MSEC };

	if (error == ENOMEM)
		(void) nanosleep(&moment, NULL);
	return error == EINTR || error == ENOMEM;
}
