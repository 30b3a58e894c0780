/* SPDX-License-Identifier: ISC */
/* idle.h - detect wake-ups that lead to nothing
 *
 * A level-triggered wait returns at once for as long as a descriptor is ready. If the handler of its event
 * reads, writes or changes nothing, the thread spins. That is always a defect: this module finds it, so that
 * it can be counted (echod_idle_wakeups_total) and tests can fail on it. One thread for each struct idle.
 */
#ifndef ECHOD_BASE_IDLE_H
#define ECHOD_BASE_IDLE_H

#include <stdbool.h>
#include <stdint.h>

struct idle {
	uint64_t work;  /* the thread's work counter at the last wake-up without effect */
	int fd;         /* its descriptor */
	unsigned count; /* wake-ups without effect for this descriptor, nothing else done in between */
};

/* A wake-up for poll(2) `events` of `fd` had no effect. `work` counts what the thread has done so far (bytes
 * moved, messages and connections taken, states changed), in any unit. Returns 0 where that is harmless: the
 * descriptor is not ready any more, because another thread was faster, or this has happened fewer than 64
 * times in a row; 1 where the wake-up is to be counted. An error that lies in the socket's error queue
 * (POLLERR) and causes such wake-ups is discarded here. */
unsigned idle_check(struct idle *idle, int fd, short events, uint64_t work);

#endif
