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
#include "echo/stats.h"
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

struct worker {
	const struct conf *conf;
	const struct model *model;
	unsigned index;                /* in the crew, from 0: ECHOD_WORKER= */
	unsigned workers;              /* what `workers` comes to, 0 resolved */

	struct stats_board *board;     /* shared memory */
	struct stats_slot *slot;       /* this worker's, on the board */
	struct stats_slot *spare;      /* `workers` more slots, for bodies that spawn; else NULL */
	struct stats_orders *orders;   /* shared memory: why stop_fd became readable */
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

	int64_t beat_usec;             /* show life at least this often; INT64_MAX: need not */
	int64_t next_beat;
	struct stats_tally tally;
	struct idle idle;
};

/* Tell the crew that this worker now accepts. Once. */
void worker_ready(struct worker *worker);

/* Have another worker that waits for connections look at all listeners and the queue: this one may have been woken for
 * a connection that it does not take. */
void worker_wake_other(const struct worker *worker);

/* Show life, at time `now`: to be called once a turn of the body's loop. */
static inline void worker_beat(struct worker *worker, int64_t now)
{
	if (now >= worker->next_beat) {
		fault_hang(worker->index);
		stats_beat(worker->slot);
		worker->next_beat = now + worker->beat_usec;
	}
}

/* After an event of `fd`, which was watched for `interest` (enum watch_interest), has been handled: count it if nothing was
 * done, that is if tally.work is still what it was `before`, and the descriptor stays ready. */
void worker_check_work(struct worker *worker, uint64_t before, int fd, unsigned interest);

/* What to do now that stop_fd is readable. Does not return if the supervisor is dead: then
 * nobody is left to work for, and the process ends at once. */
enum stats_stop worker_stop_order(const struct worker *worker);

/* Whether a draining worker may go on at time `now`: the supervisor may have changed its mind since the order came. */
static inline bool worker_may_drain(const struct worker *worker, int64_t now)
{
	return now < atomic_load(&worker->orders->drain_until);
}

/* A child of this process that has ended, and its wait(2) status; 0: none has. */
pid_t worker_reap(int *status);

/* Whether a process with this wait(2) status was neither killed nor failed. */
bool worker_ended_well(int status);

/* The worker of this slot, in process `pid`, has ended with wait(2) status `status`, and the caller has reaped
 * that: free the slot, give back what it held. Returns the connections that were lost. Nothing happens where the
 * slot is not that process's any more. */
uint32_t worker_lost(struct stats_board *board, struct admission_shared *admission, struct stats_slot *slot, pid_t pid,
                     int status);

/* Log the end of a worker process with `lost` connections, unless it ended as it should. */
void worker_tell_lost(pid_t pid, int status, uint32_t lost);

/* The number of the worker's slot on the board: its name as an owner of admissions. */
uint32_t worker_slot_number(const struct worker *worker, const struct stats_slot *slot);

#endif
