/* SPDX-License-Identifier: ISC */
/* worker.c - see worker.h */
#include <config.h>

#include "client/load/worker.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "client/load/connect.h"

#define BACKOFF (NSEC_PER_SEC / 100)

typedef void kick_function(struct load_worker *worker, struct load_conn *conn);

int load_worker_init(struct load_worker *worker, struct load_run *run, unsigned first, unsigned count)
{
	const struct client_options *options = run->options;
	size_t each = load_conn_stamps_needed(run->depth);

	*worker = (struct load_worker) { .run = run, .count = count, .alive = count };
	worker->wake = eventfd(0, EFD_CLOEXEC);
	worker->conns = calloc(count, sizeof *worker->conns);
	worker->stamps = calloc(count * each, sizeof *worker->stamps);
	worker->backoff_conns = calloc(count, sizeof *worker->backoff_conns);
	worker->backoff_until = calloc(count, sizeof *worker->backoff_until);
	if (worker->wake < 0)
		return -errno;
	if (!worker->conns || !worker->stamps || !worker->backoff_conns || !worker->backoff_until)
		return -ENOMEM;
	for (unsigned i = 0; i < count; i++)
		load_conn_init(&worker->conns[i], first + i, (uint32_t) options->size, run->depth,
			       worker->stamps + i * each);
	if (options->rate > 0)
		worker->interval = 1e9 * options->connections / ((double) options->rate * count);
	histogram_clear(&worker->histogram);
	if (options->report == 0)
		return 0;
	worker->recent = malloc(sizeof *worker->recent);
	if (!worker->recent)
		return -ENOMEM;
	histogram_clear(worker->recent);
	return 0;
}

void load_worker_clear(struct load_worker *worker)
{
	for (unsigned i = 0; worker->conns && i < worker->count; i++)
		if (worker->conns[i].fd >= 0)
			close(worker->conns[i].fd);
	free(worker->conns);
	free(worker->stamps);
	free(worker->backoff_conns);
	free(worker->backoff_until);
	free(worker->recent);
	if (worker->wake >= 0)
		close(worker->wake);
}

/* --- the thread --------------------------------------------------------------------------------------- */

/* Open all connections; none in connect mode. Returns 0, or -errno with the error recorded. */
static int conns_open(struct load_worker *worker)
{
	const struct load_run *run = worker->run;
	const char *what;
	char text[LOAD_WORKER_FAULT_MAX];
	int error = 0, *fds;
	unsigned open;

	if (run->options->mode == LOAD_CONNECT)
		return 0;
	fds = malloc(worker->count * sizeof *fds);
	if (!fds)
		return -ENOMEM;
	for (unsigned i = 0; i < worker->count; i++)
		fds[i] = worker->conns[i].fd;
	open = connect_many(fds, worker->count, &run->options->sockopts, &run->to, worker->wake, &error,
			    &what);
	for (unsigned i = 0; i < worker->count; i++) {
		worker->conns[i].fd = fds[i];
		worker->conns[i].state = fds[i] >= 0 ? LOAD_CONN_OPEN : LOAD_CONN_CLOSED;
	}
	free(fds);
	counter_add(&worker->counters.connections, open);
	if (error == 0)
		return 0;
	snprintf(text, sizeof text, "only %u of %u connections could be opened: %s%s: %s", open,
		 worker->count, what ? "cannot " : "", what ? what : "connect",
		 what ? strerror(error) : target_connect_error(error));
	load_worker_fault(worker, NULL, text, 0);
	return -error;
}

static void coordinator_wake(struct load_run *run)
{
	uint64_t one = 1;

	if (write(run->report, &one, sizeof one) < 0)
		return; /* the counter is at its maximum: the coordinator is awake */
}

/* With interval reports: add the recent latencies, because `interval` has ended. */
static void recent_collect(struct load_worker *worker, unsigned interval)
{
	struct load_run *run = worker->run;

	if (!worker->recent)
		return;
	pthread_mutex_lock(&run->lock);
	histogram_merge(&run->latency, worker->recent);
	pthread_mutex_unlock(&run->lock);
	histogram_merge(&worker->histogram, worker->recent);
	histogram_clear(worker->recent);
	atomic_store(&worker->interval_seen, interval);
	coordinator_wake(run);
}

void *load_worker_thread(void *argument)
{
	struct load_worker *worker = argument;
	struct load_run *run = worker->run;
	uint64_t wakeups;
	int r;

	/* The default timer slack of 50 us would delay the messages of an open loop. */
	prctl(PR_SET_TIMERSLACK, 1, 0, 0, 0);
	r = conns_open(worker);
	atomic_fetch_add(&run->opened, 1);
	coordinator_wake(run);
	if (read(worker->wake, &wakeups, sizeof wakeups) == (ssize_t) sizeof wakeups && atomic_load(&run->go)
	    && r == 0) {
		fcntl(worker->wake, F_SETFL, O_NONBLOCK);
		worker->now = atomic_load(&run->begin);
		r = run->engine->run(worker);
		if (r < 0)
			load_worker_fault(worker, NULL, run->engine->name, -r);
	}
	recent_collect(worker, UINT_MAX);
	atomic_fetch_add(&run->finished, 1);
	coordinator_wake(run);
	return NULL;
}

void load_worker_fault(struct load_worker *worker, const struct load_conn *conn, const char *what, int error)
{
	int used = 0;

	if (worker->fault[0] != '\0')
		return;
	if (conn)
		used = snprintf(worker->fault, sizeof worker->fault, "connection %u: ", conn->index + 1);
	snprintf(worker->fault + used, sizeof worker->fault - (size_t) used, "%s%s%s", what,
		 error != 0 ? ": " : "", error != 0 ? strerror(error) : "");
}

/* --- phases ------------------------------------------------------------------------------------------- */

/* Processor time used by this thread, and time it waited for a processor, in nanoseconds. */
static void usage_read(uint64_t *cpu, uint64_t *delay)
{
	struct timespec used;
	char text[80], *waited = NULL;
	FILE *file;

	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &used);
	*cpu = (uint64_t) used.tv_sec * NSEC_PER_SEC + (uint64_t) used.tv_nsec;
	*delay = 0;
	file = fopen("/proc/thread-self/schedstat", "re");
	if (!file)
		return;
	/* The second number is the time waited. */
	if (fgets(text, sizeof text, file) != NULL)
		waited = strchr(text, ' ');
	if (waited)
		*delay = strtoull(waited, NULL, 10);
	fclose(file);
}

static void measure_begin(struct load_worker *worker)
{
	worker->phase = LOAD_PHASE_MEASURE;
	worker->measured = worker->recent ? worker->recent : &worker->histogram;
	worker->since = worker->interval > 0
			      ? atomic_load_explicit(&worker->run->measure_from, memory_order_relaxed)
			      : 0;
	usage_read(&worker->cpu_from, &worker->delay_from);
}

static void measure_end(struct load_worker *worker)
{
	uint64_t cpu, delay;

	usage_read(&cpu, &delay);
	worker->cpu = cpu - worker->cpu_from;
	worker->delay = delay - worker->delay_from;
	/* A closed loop counts what comes back during measurement. An open loop counts what was due during
	 * measurement, also if it comes back later, so that a server that stalls at the end is noticed. */
	if (worker->interval == 0)
		worker->measured = NULL;
}

static uint64_t tick_time(const struct load_worker *worker, uint64_t tick)
{
	uint64_t begin = atomic_load_explicit(&worker->run->begin, memory_order_relaxed);

	return begin + (uint64_t) ((double) tick * worker->interval);
}

static bool due_in_measurement(const struct load_worker *worker, uint64_t tick)
{
	return tick_time(worker, tick)
	    >= atomic_load_explicit(&worker->run->measure_from, memory_order_relaxed);
}

/* The messages that are due on `conn` will not be served. */
static void due_drop(struct load_worker *worker, struct load_conn *conn)
{
	for (; conn->due > 0; conn->due--, conn->due_tick += worker->count)
		worker->unserved += due_in_measurement(worker, conn->due_tick);
}

/* From now on no message becomes due. */
static void drain_begin(struct load_worker *worker)
{
	worker->phase = LOAD_PHASE_DRAIN;
	worker->undrained = worker->alive;
	for (unsigned i = 0; i < worker->count; i++) {
		struct load_conn *conn = &worker->conns[i];

		if (conn->depth == 0)
			conn->granted = conn->sent;
		load_worker_check_drained(worker, conn);
	}
}

/* Messages without an answer are lost now, and messages that are due are not served. */
static void drain_give_up(struct load_worker *worker)
{
	uint64_t lost = 0;
	bool missing = false;

	for (unsigned i = 0; i < worker->count; i++) {
		struct load_conn *conn = &worker->conns[i];

		if (conn->dead)
			continue;
		missing |= conn->sent != conn->received; /* a stream loses bytes, not messages */
		lost += load_conn_abandon(conn);
		due_drop(worker, conn);
	}
	counter_add(&worker->counters.lost, lost);
	if (lost > 0 || missing)
		load_worker_fault(worker, NULL,
				  "outstanding messages did not come back within the timeout at the end", 0);
	worker->undrained = 0;
}

static void phase_advance(struct load_worker *worker)
{
	struct load_run *run = worker->run;
	bool ends;

	if (worker->phase == LOAD_PHASE_WARMUP
	    && worker->now >= atomic_load_explicit(&run->measure_from, memory_order_relaxed))
		measure_begin(worker);
	ends = worker->now >= atomic_load_explicit(&run->measure_to, memory_order_relaxed);
	if (worker->phase <= LOAD_PHASE_MEASURE && (ends || worker->alive == 0)) {
		if (worker->phase == LOAD_PHASE_MEASURE)
			measure_end(worker);
		drain_begin(worker);
	}
	if (worker->phase == LOAD_PHASE_DRAIN && worker->undrained > 0
	    && worker->now >= atomic_load_explicit(&run->drain_to, memory_order_relaxed))
		drain_give_up(worker);
	if (worker->phase == LOAD_PHASE_DRAIN && worker->undrained == 0)
		worker->phase = LOAD_PHASE_OVER;
}

void load_worker_check_drained(struct load_worker *worker, struct load_conn *conn)
{
	if (worker->phase != LOAD_PHASE_DRAIN || conn->drained || conn->dead || conn->due > 0
	    || conn->granted != conn->received)
		return;
	conn->drained = true;
	worker->undrained--;
}

/* --- starting messages -------------------------------------------------------------------------------- */

void load_worker_refill(struct load_worker *worker, struct load_conn *conn)
{
	if (!conn->active || conn->dead || worker->phase == LOAD_PHASE_OVER)
		return;
	/* In a closed loop, waiting for a local port is not latency of the server. */
	if (conn->no_port && worker->interval == 0)
		load_conn_restart(conn, worker->now);
	conn->no_port = false;
	for (; conn->due > 0 && load_conn_has_room(conn); conn->due--) {
		load_conn_start(conn, tick_time(worker, conn->due_tick));
		conn->due_tick += worker->count;
	}
	if (worker->interval > 0 || worker->phase >= LOAD_PHASE_DRAIN)
		return;
	if (conn->depth == 0)
		load_conn_grant(conn, worker->run->window);
	else
		while (load_conn_has_room(conn))
			load_conn_start(conn, worker->now);
}

/* Activate the connections whose time has come (--ramp). Returns when the next one is to be activated. */
static uint64_t ramp_advance(struct load_worker *worker, kick_function *kick)
{
	const struct client_options *options = worker->run->options;
	uint64_t begin = atomic_load_explicit(&worker->run->begin, memory_order_relaxed);

	while (worker->active < worker->count) {
		uint64_t when = begin + (uint64_t) ((double) options->ramp * worker->active / worker->count);
		struct load_conn *conn = &worker->conns[worker->active];

		if (when > worker->now)
			return when;
		worker->active++;
		conn->active = true;
		if (worker->interval == 0 && !conn->dead)
			kick(worker, conn);
	}
	return NSEC_NEVER;
}

/* Register the messages that have become due; none after the end of the measurement. Returns when the next
 * one is due. */
static uint64_t ticks_advance(struct load_worker *worker, kick_function *kick)
{
	uint64_t end = atomic_load_explicit(&worker->run->measure_to, memory_order_relaxed);

	for (;; worker->tick++) {
		struct load_conn *conn = &worker->conns[worker->tick % worker->count];
		uint64_t when = tick_time(worker, worker->tick);

		if (when >= end)
			return NSEC_NEVER;
		if (when > worker->now)
			return when;
		if (!conn->active)
			continue;
		worker->due += due_in_measurement(worker, worker->tick);
		if (conn->due++ == 0)
			conn->due_tick = worker->tick;
		if (conn->dead)
			due_drop(worker, conn);
		else
			kick(worker, conn);
	}
}

/* Kick the connections whose backoff is over. Returns when the next one's is. */
static uint64_t backoff_advance(struct load_worker *worker, kick_function *kick)
{
	/* Only the entries that are in the queue now, because `kick` may append one. */
	for (unsigned n = worker->backoff_count; n > 0; n--) {
		unsigned first = worker->backoff_first;

		if (worker->backoff_until[first] > worker->now)
			return worker->backoff_until[first];
		worker->backoff_first = (first + 1) % worker->count;
		worker->backoff_count--;
		kick(worker, &worker->conns[worker->backoff_conns[first]]);
	}
	return worker->backoff_count > 0 ? worker->backoff_until[worker->backoff_first] : NSEC_NEVER;
}

/* Append to the queue. */
static void backoff_add(struct load_worker *worker, struct load_conn *conn)
{
	unsigned slot = (worker->backoff_first + worker->backoff_count++) % worker->count;

	worker->backoff_conns[slot] = (uint32_t) (conn - worker->conns);
	worker->backoff_until[slot] = worker->now + BACKOFF;
}

void load_worker_backoff(struct load_worker *worker, struct load_conn *conn, int error)
{
	conn->state = LOAD_CONN_CLOSED;
	conn->no_port = error == EADDRNOTAVAIL;
	counter_add(&worker->counters.port_waits, conn->no_port);
	backoff_add(worker, conn);
}

uint64_t load_worker_turn(struct load_worker *worker, kick_function *kick)
{
	uint64_t next = NSEC_NEVER;
	unsigned interval;

	worker->now = nsec_now();
	interval = atomic_load_explicit(&worker->run->interval, memory_order_relaxed);
	if (interval != atomic_load_explicit(&worker->interval_seen, memory_order_relaxed))
		recent_collect(worker, interval);
	if (worker->active < worker->count && worker->phase < LOAD_PHASE_DRAIN)
		next = ramp_advance(worker, kick);
	/* Before the phase changes, so that messages that were due in it are registered. */
	if (worker->interval > 0 && worker->phase < LOAD_PHASE_DRAIN)
		next = nsec_earlier(next, ticks_advance(worker, kick));
	phase_advance(worker);
	if (worker->phase >= LOAD_PHASE_DRAIN)
		next = atomic_load_explicit(&worker->run->drain_to, memory_order_relaxed);
	/* In LOAD_PHASE_DRAIN, too: a connection in backoff may have started a message. */
	if (worker->backoff_count > 0 && worker->phase != LOAD_PHASE_OVER)
		next = nsec_earlier(next, backoff_advance(worker, kick));
	/* A connection that failed just now may have been the last one that was not drained. */
	return worker->phase == LOAD_PHASE_DRAIN && worker->undrained == 0 ? worker->now : next;
}

/* --- receiving ---------------------------------------------------------------------------------------- */

int load_worker_received(struct load_worker *worker, struct load_conn *conn, const void *bytes, size_t length)
{
	uint64_t offset;
	int64_t finished = load_conn_received(conn, bytes, length, worker->since, worker->now,
					      worker->measured, &offset);
	char text[96];

	if (finished < 0) {
		snprintf(text, sizeof text,
			 "the byte at offset %llu of its stream came back different or was never sent",
			 (unsigned long long) offset);
		counter_add(&worker->counters.mismatches, 1);
		load_worker_fault(worker, conn, text, 0);
		return -EBADMSG;
	}
	counter_add(&worker->counters.received, length);
	if (worker->phase == LOAD_PHASE_MEASURE) {
		counter_add(&worker->counters.bytes, length);
		counter_add(&worker->counters.echoes, (uint64_t) finished);
	}
	return 0;
}

void load_worker_answered(struct load_worker *worker, uint64_t start, size_t bytes)
{
	counter_add(&worker->counters.received, bytes);
	if (worker->measured && start >= worker->since)
		histogram_add(worker->measured, worker->now > start ? worker->now - start : 0);
	if (worker->phase == LOAD_PHASE_MEASURE) {
		counter_add(&worker->counters.bytes, bytes);
		counter_add(&worker->counters.echoes, 1);
	}
}

void load_worker_lost(struct load_worker *worker, struct load_conn *conn, const char *what, int error)
{
	if (what) {
		load_worker_fault(worker, conn, what, error);
		counter_add(&worker->counters.errors, 1);
	}
	counter_add(&worker->counters.lost, load_conn_abandon(conn));
	conn->state = LOAD_CONN_CLOSED;
	if (worker->run->options->mode == LOAD_CONNECT) {
		if (worker->phase < LOAD_PHASE_DRAIN || conn->due > 0)
			backoff_add(worker, conn);
		load_worker_check_drained(worker, conn);
		return;
	}
	if (worker->phase == LOAD_PHASE_DRAIN && !conn->drained)
		worker->undrained--;
	conn->dead = true;
	worker->alive--;
	due_drop(worker, conn);
}
