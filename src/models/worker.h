/* SPDX-License-Identifier: ISC */
/* worker.h - what the body of a model gets to work with
 *
 * A worker is one thread of a crew process, or the process itself. The crew fills a struct
 * worker in for each and calls the model's run() in it. Nothing here is shared between
 * threads but what is said to be in shared memory.
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

/* The numbers of a crew: model_limits(). */
struct model_limits {
	unsigned workers;         /* `workers`, 0 resolved */
	unsigned max_connections; /* over all workers; never 0 */
	unsigned capacity;        /* most connections of one process, whatever max-connections says; more handed-over
	                           * connections wait */
	unsigned pipes;           /* most pipes of one worker */
};

/* Log lines of a process that are limited in number; private to it. */
struct log_limits {
	struct ratelimit exhausted;   /* descriptors or memory ran out */
	struct ratelimit limit;       /* max-connections reached */
};

/* Exit status of a process that handed its one connection over. */
#define WORKER_HANDED_OVER 3

struct worker {
	const struct conf *conf;
	const struct model *model;
	unsigned index;                /* in the crew, from 0: ECHOD_WORKER= */
	unsigned workers;              /* what `workers` comes to, 0 resolved */

	const struct scoreboard *scoreboard; /* private; NULL in the supervisor */
	unsigned crew;                 /* number of the crew there */
	struct log_limits *log_limits; /* private */
	struct stats_slot *slot;       /* this worker's; shared memory that its process writes */
	unsigned first_child;          /* index of the first worker that it makes itself, `workers` at most */
	const struct stop_request *stop_request; /* shared memory that the supervisor writes: why stop_fd became readable */
	struct admission admission;
	uint32_t capacity;             /* most connections its process can hold */
	unsigned pipes;                /* most pipes this worker may have */

	const struct listener *listeners; /* stream and datagram ones */
	size_t listener_count;
	struct accept_token *token;    /* of the event loops of the process; NULL: there is only one, or none */
	int wakeup_fd;                 /* an eventfd of all workers, see acceptor.h */
	int stop_fd;                   /* readable (EOF) once the worker must stop */
	int ready_fd;                  /* one byte is written here when the worker accepts */
	int inbox_fd;                  /* connections handed over by a predecessor; -1: none */
	int outbox_fd;                 /* where to hand connections over; -1: nowhere */

	int64_t heartbeat_usec;             /* show life at least this often; INT64_MAX: need not */
	int64_t next_beat;
	struct local_stats local_stats;
	struct idle idle;
};

/* Tell the crew that this worker now accepts. Once. */
void worker_ready(struct worker *worker);

/* Have another worker that waits for connections look at all listeners and the queue: this one may have been woken for
 * a connection that it does not take. */
void worker_wake_other(const struct worker *worker);

/* Show life, at time `now`: to be called once in each iteration of the body. */
static inline void worker_beat(struct worker *worker, int64_t now)
{
	if (now >= worker->next_beat) {
		fault_hang(worker->index);
		fault_hostile(worker->index);
		stats_beat(worker->slot);
		worker->next_beat = now + worker->heartbeat_usec;
	}
}

/* After an event of `fd`, which was watched for `interest` (enum watch_interest), has been handled: count it if nothing was
 * done, that is if local_stats.work is still what it was `before`, and the descriptor stays ready. */
void worker_check_work(struct worker *worker, uint64_t before, int fd, unsigned interest);

/* What to do now that stop_fd is readable. Does not return if the supervisor is dead: then
 * nobody is left to work for, and the process ends at once. */
enum stats_stop worker_stop_requested(const struct worker *worker);

/* Whether a draining worker may go on at time `now`: the supervisor may have changed its mind since the order came. */
static inline bool worker_may_drain(const struct worker *worker, int64_t now)
{
	return now < atomic_load(&worker->stop_request->drain_until);
}

/* A child of this process that has ended, and its wait(2) status; 0: none has. */
pid_t worker_reap(int *status);

/* Whether a process with this wait(2) status was neither killed nor failed. */
bool worker_ended_well(int status);

/* Log the end of a worker process with `lost` connections, unless it ended as it should. */
void worker_tell_lost(pid_t pid, int status, uint32_t lost);

#endif
