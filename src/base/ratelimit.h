/* SPDX-License-Identifier: ISC */
/* ratelimit.h - at most so many events in so long, with a count of the rest
 *
 * May lie in shared memory and be used by many processes and threads at once: every field is
 * a lock-free atomic, and a race costs at most a few events more than `burst`.
 */
#ifndef ECHOD_BASE_RATELIMIT_H
#define ECHOD_BASE_RATELIMIT_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

struct ratelimit {
	_Atomic int64_t window;     /* start of the current interval, microseconds */
	_Atomic uint32_t used;      /* events let through in it */
	_Atomic uint64_t left_out;  /* events refused since ratelimit_take_left_out() */
};

/* Whether one more event may pass at time `now`: at most `burst` in any `interval`
 * microseconds that starts with an event. Refused ones are counted. */
bool ratelimit_allow(struct ratelimit *limit, int64_t now, int64_t interval, uint32_t burst);

/* The number refused since the last call. */
uint64_t ratelimit_take_left_out(struct ratelimit *limit);

#endif
