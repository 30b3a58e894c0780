/* SPDX-License-Identifier: ISC */
/* nsec.h - monotonic time in nanoseconds
 *
 * Any thread. 0 is never a time of the clock, so that it can mean "none".
 */
#ifndef ECHOD_CLIENT_NSEC_H
#define ECHOD_CLIENT_NSEC_H

#include <stdint.h>
#include <time.h>

#define NSEC_PER_SEC UINT64_C(1000000000)
#define NSEC_NEVER UINT64_MAX

static inline uint64_t nsec_now(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t) now.tv_sec * NSEC_PER_SEC + (uint64_t) now.tv_nsec;
}

static inline double nsec_to_seconds(uint64_t nsec)
{
	return (double) nsec / 1e9;
}

static inline uint64_t nsec_earlier(uint64_t a, uint64_t b)
{
	return a < b ? a : b;
}

/* The time from `now` until `then` in the form that ppoll(2) takes. Returns `wait`; NULL for NSEC_NEVER. */
static inline struct timespec *nsec_timespec(struct timespec *wait, uint64_t now, uint64_t then)
{
	uint64_t left = then > now ? then - now : 0;

	if (then == NSEC_NEVER)
		return NULL;
	wait->tv_sec = (time_t) (left / NSEC_PER_SEC);
	wait->tv_nsec = (long) (left % NSEC_PER_SEC);
	return wait;
}

#endif
