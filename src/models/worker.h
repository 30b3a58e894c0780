/* SPDX-License-Identifier: ISC */
/* worker.h - the context in which the body of a model runs
 *
 * A worker is one thread of a crew process, or the process itself. The crew fills in a struct worker for each
 * and calls the model's run() with it. Threads share only what is marked as shared memory.
 */
#ifndef ECHOD_MODELS_WORKER_H
#define ECHOD_MODELS_WORKER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/idle.h"
#include "conf/conf.h"
#include "base/ratelimit.h"
#include "echo/scoreboard.h"
#include "models/fault.h"
#include "net/admission.h"
#include "net/listener.h"

struct accept_token;
struct model;

/* Limits of a crew, from model_limits(). */
struct model_limits {
	unsigned workers;         /* `workers`, with 0 resolved */
	unsigned max_connections; /* over all workers; never 0 */
	unsigned capacity;        /* maximum number of connections of one process, independent of
	                           * max-connections; further handed-over connections wait in the queue */
	unsigned pipes;           /* maximum number of pipes of one worker */
};

/* Limits of log lines, private to a process. */
struct log_limits {
	struct ratelimit exhausted;   /* descriptors or memory ran out */
	struct ratelimit limit;       /* max-connections reached */
};

/* Exit status of a process that has handed over its only connection. */
#define WORKER_HANDED_OVER 3

struct worker {
	const struct conf *conf;
	const struct model *model;
	unsigned index;                /* in the crew, from 0: ECHOD_WORKER= */
	unsigned workers;              /* `workers`, with 0 resolved */

	const struct scoreboard *scoreboard; /* private; NULL in the supervisor */
	unsigned crew;                 /* number of the crew on the scoreboard */
	struct log_limits *log_limits; /* private */
	struct stats_slot *slot;       /* of this worker; shared memory that its process writes */
	unsigned first_child;          /* index of the first worker that it creates itself; it creates at
	                                * most `workers` */
	const struct stop_request *stop_request; /* shared memory that the supervisor writes: why stop_fd
	                                          * became readable */
	struct admission admission;
	uint32_t capacity;             /* maximum number of connections of its process */
	unsigned pipes;                /* maximum number of pipes of this worker */

	const struct listener *listeners; /* stream and datagram sockets */
	size_t listener_count;
	struct accept_token *token;    /* shared by the event loops of the process; NULL: there is only one
	                                * loop, or none */
	int wakeup_fd;                 /* eventfd shared by all workers, see acceptor.h */
	int stop_fd;                   /* readable (EOF) once the worker must stop */
	int ready_fd;                  /* one byte is written here when the worker is ready */
	int inbox_fd;                  /* receives connections handed over by a predecessor; -1: none */
	int outbox_fd;                 /* sends connections to be handed over; -1: none */

	bool stop_seen;                /* the stop request was traced */

	int64_t heartbeat_usec; /* maximum interval between heartbeats; INT64_MAX: no heartbeats */
	int64_t next_heartbeat;
	struct local_stats local_stats;
	struct idle idle;
	void *prepared;                     /* made by the prepare() of the model, freed by its run() */
};

/* Report to the crew that this worker is ready. Call it once. */
void worker_ready(struct worker *worker);

/* Trace a new state of this worker, "started", "ready", "stopping" or "ended": a probe and a line at level
 * debug. */
void worker_trace(const struct worker *worker, const char *state);

/* Trace that this worker has seen the stop request, once. */
void worker_trace_stop(struct worker *worker);

/* Trace the start of a process for worker `index` and, in model threads, the following ones. */
void worker_trace_process(unsigned index, pid_t pid);

/* The name of a stop request for traces. */
const char *worker_stop_name(enum stats_stop how);

/* Make another waiting worker check all listeners and the queue, because this one may have consumed the
 * wake-up for a connection that it does not take. */
void worker_wake_other(const struct worker *worker);

/* Increase the heartbeat if it is due at time `now`. Call it once in each iteration of the body. */
static inline void worker_heartbeat(struct worker *worker, int64_t now)
{
	if (now >= worker->next_heartbeat) {
		fault_hang(worker->index);
		fault_hostile(worker->index);
		stats_heartbeat(worker->slot);
		worker->next_heartbeat = now + worker->heartbeat_usec;
	}
}

/* After an event of `fd`, which was watched for `interest` (enum watch_interest), was handled: count an idle
 * wake-up if nothing was done (local_stats.work is still `before`) and the descriptor stays ready. */
void worker_check_work(struct worker *worker, uint64_t before, int fd, unsigned interest);

/* The stop request, after stop_fd became readable. Does not return if the supervisor is dead: the process
 * exits at once. */
enum stats_stop worker_stop_requested(const struct worker *worker);

/* Whether a draining worker may go on at time `now`. The supervisor may have changed the deadline since the
 * request. */
static inline bool worker_may_drain(const struct worker *worker, int64_t now)
{
	return now < atomic_load(&worker->stop_request->drain_until);
}

/* Reap a child of this process. Returns its process id and sets `*status` (wait(2)), or returns 0 if no child
 * has ended. */
pid_t worker_reap(int *status);

/* Whether a process with this wait(2) status was neither killed nor failed. */
bool worker_exit_is_clean(int status);

/* Log the end of a worker process with `lost` connections, unless it ended normally. */
void worker_log_end(pid_t pid, int status, uint32_t lost);

#endif
