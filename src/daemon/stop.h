/* SPDX-License-Identifier: ISC */
/* stop.h - the end of the service: connections are drained, or kept for the next process
 *
 * Supervisor only.
 */
#ifndef ECHOD_DAEMON_STOP_H
#define ECHOD_DAEMON_STOP_H

#include <stdbool.h>
#include <stdint.h>

#include "daemon/supervisor_state.h"

/* Begin to stop, as the service manager wants it: drain, or keep connections in the descriptor store. Also
 * while the first crew is started. */
void stop_begin(struct supervisor *supervisor);

/* End without waiting. At a restart, the next process still gets the connections that are in the queue by
 * now. */
void stop_now(struct supervisor *supervisor);

/* Begin a stop under the configuration of `crew`. The store has room for `queues` more queues where
 * connections are kept. */
void stop_prepare(struct supervisor *supervisor, struct crew *crew, unsigned queues);

/* Store connections that workers have put into the queue. */
void stop_take_queued(struct supervisor *supervisor);

/* Workers wait while too many descriptors are in flight; those in the store never arrive. Check for that. */
void stop_check_flight(struct supervisor *supervisor, int64_t now);

/* Drain connections that neither a worker nor the store takes, a limited number at a time. Returns when to
 * call again (clock_usec()); INT64_MAX: none are left. */
int64_t stop_drain(struct supervisor *supervisor, int64_t now);

/* If draining makes progress, ask the service manager to wait until the end of the drain. Not in small steps,
 * because a client that reads slowly may take nothing for longer than a step. To be called at `extend_at`. */
void stop_extend_timeout(struct supervisor *supervisor, int64_t now);

/* Whether the process can exit. `drain_at` is the result of stop_drain(). */
bool stop_is_over(struct supervisor *supervisor, int64_t drain_at);

/* Log connections that could not be handed over in a reload or restart. */
void stop_log_drained(struct supervisor *supervisor);

/* Close connections that could not be drained in time, and the descriptor store unless connections are kept.
 */
void stop_finish(struct supervisor *supervisor);

#endif
