/* SPDX-License-Identifier: ISC */
/* worker.h - a thread of a load run with its connections, clock and counters
 *
 * A run has these phases: open the connections; ramp and warm-up; measure; drain, in which no message is
 * started and outstanding answers are received, so that finally the bytes sent and received are equal. The
 * coordinator (load.c) sets the times and wakes the workers at each of them. An engine (engine_*.c)
 * transfers the bytes and calls the functions below from the thread of its worker. Times are nanoseconds of
 * nsec.h.
 */
#ifndef ECHOD_CLIENT_LOAD_WORKER_H
#define ECHOD_CLIENT_LOAD_WORKER_H

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>

#include "client/load/conn.h"
#include "client/nsec.h"
#include "client/options.h"

#define LOAD_WORKER_FAULT_MAX 256

/* A run; shared by all workers. Read-only while they run, except for atomic members. */
struct load_run {
	const struct client_options *options;
	const struct target *target;
	const struct load_engine *engine;
	struct addr to;            /* the address that answered */
	size_t buffer;             /* maximum bytes that an engine receives at once */
	uint64_t window;           /* maximum bytes outstanding on a stream */
	uint32_t depth;            /* maximum messages outstanding on a connection; 0: a stream */
	int report;                /* eventfd: a worker notifies the coordinator */
	_Atomic unsigned opened;   /* workers that have opened their connections, or failed */
	_Atomic unsigned finished; /* workers that have ended */
	_Atomic bool go; /* set before the wake-up that starts the run; still false then means: exit */
	_Atomic uint64_t begin;
	_Atomic uint64_t measure_from;
	_Atomic uint64_t measure_to; /* brought forward after an interrupt */
	_Atomic uint64_t drain_to;

	/* Interval reports (--report): the coordinator increments `interval` and wakes the workers; each
	 * adds what it has measured since to `latency` and sets its `interval_seen`. */
	_Atomic unsigned interval;
	pthread_mutex_t lock;     /* protects `latency` */
	struct histogram latency; /* of the interval */
};

/* Written by one worker only; may be read by any thread at any time. */
struct load_counters {
	_Atomic uint64_t echoes;      /* during measurement */
	_Atomic uint64_t bytes;       /* that came back, during measurement */
	_Atomic uint64_t sent;        /* bytes during the whole run */
	_Atomic uint64_t received;    /* bytes during the whole run */
	_Atomic uint64_t errors;      /* connections that failed or broke */
	_Atomic uint64_t lost;        /* messages without an answer */
	_Atomic uint64_t mismatches;  /* connections with a wrong byte; over UDP: datagrams */
	_Atomic uint64_t duplicates;  /* UDP: answers that came twice or too late */
	_Atomic uint64_t connections; /* established */
	_Atomic uint64_t port_waits;  /* connect mode: times that no local port was free */
};

static inline void counter_add(_Atomic uint64_t *count, uint64_t more)
{
	/* With a single writer no locked instruction is needed. */
	atomic_store_explicit(count, atomic_load_explicit(count, memory_order_relaxed) + more,
			      memory_order_relaxed);
}

static inline uint64_t counter_get(const _Atomic uint64_t *count)
{
	return atomic_load_explicit(count, memory_order_relaxed);
}

enum load_phase { LOAD_PHASE_WARMUP, LOAD_PHASE_MEASURE, LOAD_PHASE_DRAIN, LOAD_PHASE_OVER };

struct load_worker {
	struct load_run *run;
	pthread_t thread;
	int wake; /* eventfd: read the clock again */
	struct load_conn *conns;
	unsigned count;
	struct load_stamp *stamps;

	enum load_phase phase;
	uint64_t now;               /* time of this turn */
	unsigned active;            /* connections [0, active) take part (--ramp) */
	unsigned undrained;         /* in LOAD_PHASE_DRAIN: connections with outstanding or due messages */
	unsigned alive;             /* connections that are not dead */
	struct histogram *measured; /* where latencies are counted now; NULL: nowhere */
	uint64_t since;             /* messages started before that are not counted */

	/* Open loop: tick k of this worker is at begin + k * interval; connection k modulo count sends the
	 * message. */
	double interval; /* 0: closed loop */
	uint64_t tick;   /* the next one */

	/* Connect mode: queue of connections that wait before they try again. All wait equally long. */
	uint32_t *backoff_conns;
	uint64_t *backoff_until;
	unsigned backoff_first, backoff_count;

	struct load_counters counters;
	struct histogram histogram; /* all latencies; with interval reports, those of earlier intervals */
	struct histogram *recent;   /* with interval reports: latencies not yet collected; otherwise NULL */
	_Atomic unsigned interval_seen; /* the last interval that was collected; UINT_MAX: it has finished */
	uint64_t cpu, cpu_from;         /* processor time used during measurement */
	uint64_t delay, delay_from;     /* time spent waiting for a processor during measurement */
	/* Open loop: messages that were due during measurement; of these, messages never started. */
	uint64_t due, unserved;
	char fault[LOAD_WORKER_FAULT_MAX]; /* the first error */
	void *engine;                      /* private data of the engine */
};

struct load_engine {
	const char *name;
	/* Whether the engine can run here: 0, or -errno with the reason in `why`. NULL: it always can. */
	int (*probe)(char *why, size_t size);
	/* Serve the connections of the worker until LOAD_PHASE_OVER. Returns 0 or -errno. */
	int (*run)(struct load_worker *worker);
};

extern const struct load_engine engine_epoll, engine_uring, engine_udp;

/* Initialise a worker with `count` connections, of which the first has the number `first`. Returns 0 or
 * -errno; call load_worker_clear() in both cases. */
int load_worker_init(struct load_worker *worker, struct load_run *run, unsigned first, unsigned count);
void load_worker_clear(struct load_worker *worker);

/* Thread function; the argument is the worker. */
void *load_worker_thread(void *argument);

/* Record an error for the report; only the first one is kept. `conn` may be NULL, `error` may be 0. */
void load_worker_fault(struct load_worker *worker, const struct load_conn *conn, const char *what, int error);

/* --- for engines -------------------------------------------------------------------------------------- */

/* Read the clock, change the phase, and start what is due. Calls `kick` for each connection that may be
 * able to send. Returns the time of the next call, or NSEC_NEVER. */
uint64_t load_worker_turn(struct load_worker *worker,
			  void (*kick)(struct load_worker *worker, struct load_conn *conn));

/* Start the messages on `conn` that may be started now. */
void load_worker_refill(struct load_worker *worker, struct load_conn *conn);

/* Bytes came back on `conn`. Returns 0, or -EBADMSG if they are wrong (which is counted and recorded). */
int load_worker_received(struct load_worker *worker, struct load_conn *conn, const void *bytes,
			 size_t length);

/* A message of which `bytes` came back, started at `start`, is complete: count it. For datagrams. */
void load_worker_answered(struct load_worker *worker, uint64_t start, size_t bytes);

/* `length` bytes were passed to the kernel. */
static inline void load_worker_sent(struct load_worker *worker, struct load_conn *conn, size_t length)
{
	load_conn_sent(conn, length, worker->now);
	counter_add(&worker->counters.sent, length);
}

/* In LOAD_PHASE_DRAIN: note if nothing is outstanding or due on `conn`. Otherwise without effect. */
void load_worker_check_drained(struct load_worker *worker, struct load_conn *conn);

/* The connection failed; its outstanding messages are lost. It is used again only in connect mode. `what`
 * is the reason, or NULL if it has been recorded. The engine closes the descriptor. */
void load_worker_lost(struct load_worker *worker, struct load_conn *conn, const char *what, int error);

/* Connect mode: call `kick` for `conn` again after a delay. `error` is the reason: EAGAIN (the backlog of a
 * unix socket is full) or EADDRNOTAVAIL (no local port is free), which is not an error of the server. */
void load_worker_backoff(struct load_worker *worker, struct load_conn *conn, int error);

/* Whether load_worker_backoff() is to be called for that error of connect(2). */
static inline bool load_worker_can_retry(int error)
{
	return error == EAGAIN || error == EADDRNOTAVAIL;
}

#endif
