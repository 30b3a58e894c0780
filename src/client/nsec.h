/* ticks.h - the monotonic clock in nanoseconds, and the way there and back
 *
 * Any thread. Zero never is a time that was read, so it can stand for "none".
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

static inline uint64_t nsec_from_seconds(double seconds)
{
	return (uint64_t) (seconds * 1e9 + 0.5);
}

static inline double nsec_to_seconds(uint64_t ticks)
{
	return (double) ticks / 1e9;
}

/* How long to wait from `now` until `then`, as ppoll(2) and its like take it; NSEC_NEVER gives NULL. */
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
