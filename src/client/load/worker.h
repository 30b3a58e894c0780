/* worker.h - one thread of a load run: its connections, its clock, its counts
 *
 * A run is: open the connections; ramp and warm-up; measure; drain, in which nothing new is begun and what is
 * under way comes back, so that in the end the bytes sent and received agree. The coordinator (load.c) sets the times
 * and wakes the workers at each; an engine (load_epoll.c, load_uring.c, load_udp.c) moves the bytes and calls, from
 * its own thread, the functions here. Times are ticks of ticks.h.
 *
 * A tally is written by its worker alone and may be read by any thread while it grows.
 */
#ifndef ECHOD_CLIENT_WORKER_H
#define ECHOD_CLIENT_WORKER_H

#include <pthread.h>
#include <stdatomic.h>

#include "client/load/conn.h"
#include "client/options.h"
#include "client/nsec.h"

#define LOAD_WORKER_FAULT_MAX 256

/* What a run is, the same for all workers. Read-only once they run, but for what is atomic. */
struct load_run {
	const struct client_options *options;
	const struct target *target;
	const struct load_engine *engine;
	struct addr to;            /* the address that answered */
	size_t buffer;             /* bytes an engine receives at once, at most */
	uint64_t window;           /* bytes a stream may be ahead */
	int report;                /* eventfd: a worker has news for the coordinator */
	_Atomic unsigned opened;   /* workers that have their connections, or failed to */
	_Atomic unsigned finished; /* workers that are done */
	_Atomic bool go;           /* false at the wake-up after opening: go home */
	_Atomic uint64_t begin;
	_Atomic uint64_t measure_from;
	_Atomic uint64_t measure_to; /* brought forward by Ctrl-C */
	_Atomic uint64_t drain_to;
};

struct load_counters {
	_Atomic uint64_t echoes;   /* while measuring */
	_Atomic uint64_t bytes;    /* echoed while measuring */
	_Atomic uint64_t sent;     /* bytes, over the whole run */
	_Atomic uint64_t received; /* bytes, over the whole run */
	_Atomic uint64_t errors;   /* connections lost or not made */
	_Atomic uint64_t lost;     /* messages that never came back */
	_Atomic uint64_t
		mismatches; /* connections on which a wrong byte came back; over UDP, such datagrams */
	_Atomic uint64_t duplicates;  /* UDP: answers that came again, or too late */
	_Atomic uint64_t connections; /* made */
};

static inline void counter_add(_Atomic uint64_t *count, uint64_t more)
{
	/* One writer: no locked instruction is needed. */
	atomic_store_explicit(count, atomic_load_explicit(count, memory_order_relaxed) + more,
			      memory_order_relaxed);
}

static inline uint64_t counter_get(const _Atomic uint64_t *count)
{
	return atomic_load_explicit(count, memory_order_relaxed);
}

enum load_phase { LOAD_PHASE_WARM, LOAD_PHASE_MEASURE, LOAD_PHASE_DRAIN, LOAD_PHASE_OVER };

struct load_worker {
	struct load_run *run;
	pthread_t thread;
	unsigned number;
	int wake; /* eventfd: look at the clock */
	struct load_conn *conns;
	unsigned count;
	uint64_t *stamps;

	enum load_phase phase;
	uint64_t now;               /* of this turn */
	unsigned active;            /* connections[0 .. active) take part */
	unsigned undrained;         /* in LOAD_PHASE_DRAIN: connections something is still owed to */
	unsigned alive;             /* connections that are not dead */
	struct histogram *measured; /* &histogram while what comes back counts, else NULL */
	uint64_t since;             /* messages begun before that do not count */

	/* Open loop: tick k of this worker is at begin + k * interval, for connection k modulo count. */
	double interval; /* 0: closed loop */
	uint64_t tick;   /* the next one */

	/* Flows whose next try must wait (connect mode): each for the same time, so in order. */
	uint32_t *backoff_conns;
	uint64_t *backoff_until;
	unsigned backoff_first, backoff_count;

	struct load_counters counters;
	struct histogram histogram;
	uint64_t cpu, cpu_from;            /* nanoseconds of processor used while measuring */
	uint64_t delay, delay_from;        /* nanoseconds waited for a processor while measuring */
	uint64_t unsent;                   /* messages that were due and not begun when the measuring ended */
	char fault[LOAD_WORKER_FAULT_MAX]; /* the first thing that went wrong */
	void *engine;                      /* the engine's own */
};

struct load_engine {
	const char *name;
	/* Whether it can run here: 0, or -errno with the reason in `why`. */
	int (*probe)(char *why, size_t size);
	/* Drive the worker's connections until LOAD_PHASE_OVER. Returns 0 or -errno. */
	int (*run)(struct load_worker *worker);
};

extern const struct load_engine engine_epoll, engine_uring, engine_udp;

/* Make a worker with `count` connections, the first of which is connection number `first`. Returns 0 or -errno. */
int load_worker_init(struct load_worker *worker, struct load_run *run, unsigned number, unsigned first,
		     unsigned count);
void load_worker_clear(struct load_worker *worker);

/* The thread of the worker that is its argument. */
void *load_worker_thread(void *argument);

/* Tell that something went wrong; the first is kept for the report. */
void load_worker_fault(struct load_worker *worker, const struct load_conn *conn, const char *what, int error);

/* --- for engines -------------------------------------------------------------------------------------------- */

/* Read the clock, pass from phase to phase, find who is due. Calls `push` for each connection that may have become able to send.
 * Returns when to be woken next, or NSEC_NEVER. */
uint64_t load_worker_turn(struct load_worker *worker,
			  void (*kick)(struct load_worker *worker, struct load_conn *conn));

/* Begin on `connection` what may be begun now. */
void load_worker_refill(struct load_worker *worker, struct load_conn *conn);

/* `length` bytes came back on `connection`. Returns 0, or -EBADMSG where one was wrong (told and counted). */
int load_worker_received(struct load_worker *worker, struct load_conn *conn, const void *bytes,
			 size_t length);

/* `length` bytes were handed over. */
static inline void load_worker_sent(struct load_worker *worker, struct load_conn *conn, size_t length)
{
	load_conn_sent(conn, length, worker->now);
	counter_add(&worker->counters.sent, length);
}

/* In the drain: note that nothing is owed to `connection` any more, if so. */
void load_worker_check_drained(struct load_worker *worker, struct load_conn *conn);

/* The connection of `connection` is lost, and what was under way with it; for good, but in connect mode. `what` says why, or is NULL
 * where load_worker_received() has. The engine closes it. */
void load_worker_lost(struct load_worker *worker, struct load_conn *conn, const char *what, int error);

/* Connect mode: try again on `connection` after a while. */
void load_worker_backoff(struct load_worker *worker, struct load_conn *conn);

#endif
