/* meter.h - at most so many datagrams a second to each network
 *
 * A network is an IPv4 /24 or an IPv6 /48; all unix senders count as one. The meter lies in
 * memory that all workers share and needs no set-up but zeros. Each cell is the token bucket
 * of the networks whose hash leads to it, as the one number by which the generic cell rate
 * algorithm does it (ITU-T I.371): the time at which the bucket will be full again. A bucket
 * holds one second's worth.
 *
 * Nothing is ever evicted, so no network gets more than its rate by making others known;
 * networks that share a cell (one pair in METER_CELLS) share one rate, so nobody gets more
 * and they get less. Lock-free and exact: one compare-and-swap decides. Any worker, any thread.
 */
#ifndef ECHOD_ECHO_METER_H
#define ECHOD_ECHO_METER_H

#include <stdatomic.h>
#include <stdint.h>

#include "net/addr.h"

#define METER_CELLS (1U << 18)

struct meter {
	_Atomic int64_t cells[METER_CELLS]; /* nanoseconds of CLOCK_MONOTONIC */
};

/* How many of `count` datagrams from `source` (its IPv4-mapped address unmapped) may be
 * answered at time `now` (clock_usec()), where `rate` datagrams a second may be; 0: no limit.
 * Those are used up. */
unsigned meter_take(struct meter *meter, unsigned rate, const struct addr *source, int64_t now, unsigned count);

#endif
