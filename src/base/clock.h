/* SPDX-License-Identifier: ISC */
/* clock.h - monotonic time
 *
 * Microseconds of CLOCK_MONOTONIC (clock_gettime(2)): it never jumps and is the same for
 * all processes of one boot, so a time may be passed to another process with a connection.
 * Any thread; cannot fail.
 */
#ifndef ECHOD_BASE_CLOCK_H
#define ECHOD_BASE_CLOCK_H

#include <stdbool.h>
#include <stdint.h>

#define USEC_PER_SEC 1000000
#define USEC_PER_MSEC 1000

/* Now, to the microsecond. */
int64_t clock_usec(void);

/* Now, to the kernel's tick (a few milliseconds), several times cheaper. */
int64_t clock_coarse_usec(void);

/* The earlier of two times. */
static inline int64_t clock_earlier(int64_t a, int64_t b)
{
	return a < b ? a : b;
}

/* Milliseconds from `now` until `deadline` as poll(2) takes them: rounded up, so that the
 * deadline has passed after the wait; 0 when it has passed; -1 for a deadline of INT64_MAX. */
int clock_poll_timeout(int64_t deadline, int64_t now);

/* After a failed poll(2) or select(2): whether to retry. True for EINTR, and for ENOMEM after a sleep of 10
 * ms. */
bool clock_poll_retry(int error);

#endif
