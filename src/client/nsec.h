/* ticks.h - the monotonic clock in nanoseconds, and the way there and back
 *
 * Any thread. Zero never is a time that was read, so it can stand for "none".
 */
#ifndef ECHOD_CLIENT_TICKS_H
#define ECHOD_CLIENT_TICKS_H

#include <stdint.h>
#include <time.h>

#define TICKS_SECOND UINT64_C(1000000000)
#define TICKS_NEVER UINT64_MAX

static inline uint64_t ticks_now(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t) now.tv_sec * TICKS_SECOND + (uint64_t) now.tv_nsec;
}

static inline uint64_t ticks_from_seconds(double seconds)
{
	return (uint64_t) (seconds * 1e9 + 0.5);
}

static inline double ticks_to_seconds(uint64_t ticks)
{
	return (double) ticks / 1e9;
}

/* How long to wait from `now` until `then`, as ppoll(2) and its like take it; TICKS_NEVER gives NULL. */
static inline struct timespec *ticks_wait(struct timespec *wait, uint64_t now, uint64_t then)
{
	uint64_t left = then > now ? then - now : 0;

	if (then == TICKS_NEVER)
		return NULL;
	wait->tv_sec = (time_t) (left / TICKS_SECOND);
	wait->tv_nsec = (long) (left % TICKS_SECOND);
	return wait;
}

#endif
