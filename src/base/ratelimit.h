/* SPDX-License-Identifier: ISC */
/* ratelimit.h - a maximum number of events in an interval, and a count of suppressed events
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
	_Atomic uint32_t used;      /* events allowed in it */
	_Atomic uint64_t suppressed; /* events refused since ratelimit_take_suppressed() */
};

/* Whether an event at time `now` is allowed: at most `burst` in any `interval` microseconds that starts with
 * an event. Refused events are counted. */
bool ratelimit_allow(struct ratelimit *limit, int64_t now, int64_t interval, uint32_t burst);

/* Returns the number of events refused since the last call. */
uint64_t ratelimit_take_suppressed(struct ratelimit *limit);

#endif
