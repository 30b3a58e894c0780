/* spawn.c - the body of process and thread: one acceptor, which makes a process or a thread
 * for each connection
 *
 * Each of them has a slot of its own on the board, which the acceptor sets aside before it accepts.
 * At `workers` of them, or when none can be made, the acceptor leaves the listeners alone and keeps
 * the one connection it may have accepted already until somebody can serve it.
 *
 * Acceptor and children may be killed at any moment. So what is accepted is counted as that slot's
 * from the start, and the slot says all the time whose end gives it back: the acceptor's until the
 * child or the acceptor, whoever is first, has put the child there. A child that finds its slot given
 * back already leaves at once.
 */
#include <config.h>

#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "models/acceptor.h"
#include "models/model.h"
#include "models/serve.h"

/* Enough for serve() and a log record; only what is touched costs memory. */
#define STACK_SIZE (256U << 10)

struct spawner {
	struct worker *worker;
	struct acceptor acceptor;
	unsigned running;       /* of ours; not yet joined or reaped */
	unsigned next_slot;     /* none below is free */
	struct stats_slot *slot; /* for the next connection; NULL: none is free */
	int ended;              /* descriptor that is readable when some have ended */
	bool full;              /* as many run as may, those that a killed predecessor left behind included */
	bool processes;         /* each answers for the place and the source of its connection */
	bool pending;           /* `arrival` still waits for somebody to serve it */
	struct arrival arrival;
	pthread_attr_t attr;    /* threads only */
	int (*start)(struct spawner *spawner); /* serve `arrival` in `slot` */
	void (*collect)(struct spawner *spawner);
};

/* A slot nobody uses, or NULL. Those of a predecessor that was killed may still be taken by
 * its orphans. */
static struct stats_slot *slot_find(struct spawner *spawner)
{
	struct worker *worker = spawner->worker;

	/* the lowest one, so that no more of the board is used than needed */
	while (spawner->next_slot < worker->workers) {
		struct stats_slot *slot = &worker->spare[spawner->next_slot++];

		if (atomic_load(&slot->state) == SLOT_FREE)
			return slot;
	}
	return NULL;
}

/* Have a slot for the next connection, if one is free. */
static void slot_set_aside(struct spawner *spawner)
{
	struct worker *worker = spawner->worker;

	if (spawner->slot || spawner->running >= worker->workers)
		return;
	spawner->slot = slot_find(spawner);
	if (!spawner->slot)
		return;
	stats_slot_use(worker->board, worker_slot_number(worker, spawner->slot));
	atomic_store(&spawner->slot->pid, getpid());
	atomic_store(&spawner->slot->state, SLOT_STARTING);
	if (spawner->processes)
		worker->admission.owner = worker_slot_number(worker, spawner->slot);
}

/* The slot is another's now. */
static void slot_let_go(struct spawner *spawner)
{
	spawner->slot = NULL;
	spawner->worker->admission.owner = worker_slot_number(spawner->worker, spawner->worker->slot);
}

static void live_move(struct stats_slot *from, struct stats_slot *to)
{
	atomic_fetch_sub(&from->live, 1);
	atomic_fetch_add(&to->live, 1);
}

/* The worker that serves in `slot`: a copy of the acceptor with its own place on the board. To be
 * made by the acceptor's own thread, which is writing to what is copied. */
static void worker_derive(struct worker *derived, const struct worker *worker, struct stats_slot *slot)
{
	*derived = *worker;
	derived->slot = slot;
	derived->spare = NULL;
	derived->index = worker->index + 1 + (unsigned) (slot - worker->spare);
	derived->tally = (struct stats_tally) { 0 };
}

/* The life of a derived worker, in its own process or thread. */
static void serve_derived(struct worker *worker, const struct arrival *arrival)
{
	struct turn turn;

	log_identify(worker->model->name, (int) worker->index);
	stats_slot_ready(worker->slot);
	if (serve_turn_open(&turn, worker) < 0) {
		struct session session;

		session_open(&session, arrival);
		conn_error(&session.conn, ENOMEM);
		session_close(&session, worker);
		return;
	}
	serve(worker, &turn, arrival);
	turn_close(&turn);
}

/* --- threads --------------------------------------------------------------------------- */

struct thread_start {
	struct worker worker;
	struct arrival arrival;
	int ended;
};

static void *thread_main(void *argument)
{
	struct thread_start *start = argument;
	uint64_t one = 1;

	serve_derived(&start->worker, &start->arrival);
	(void) stats_slot_free(start->worker.slot);
	if (write(start->ended, &one, sizeof one) < 0)
		log_event(LOG_ERR, EVENT_INTERNAL, "eventfd: %s", strerror(errno));
	free(start);
	return NULL;
}

static int thread_start(struct spawner *spawner)
{
	struct thread_start *start = malloc(sizeof *start);
	pthread_t thread;
	int r;

	if (!start)
		return -ENOMEM;
	worker_derive(&start->worker, spawner->worker, spawner->slot);
	start->arrival = spawner->arrival;
	start->ended = spawner->ended;
	r = pthread_create(&thread, &spawner->attr, thread_main, start);
	if (r != 0)
		free(start);
	return -r;
}

static void threads_collect(struct spawner *spawner)
{
	uint64_t count;

	if (read(spawner->ended, &count, sizeof count) == sizeof count)
		spawner->running -= (unsigned) count;
	spawner->next_slot = 0;
}

/* --- processes ------------------------------------------------------------------------- */

/* Put the child `pid` of the acceptor `parent` where the latter's pid is. False where somebody has
 * found the acceptor dead and given the slot back. */
static bool slot_enter(struct stats_slot *slot, pid_t parent, pid_t pid)
{
	int32_t seen = parent;

	return atomic_compare_exchange_strong(&slot->pid, &seen, pid) || seen == pid;
}

static void __attribute__((noreturn)) process_main(struct spawner *spawner, pid_t parent)
{
	const struct worker *acceptor = spawner->worker;
	struct worker worker;

	if (!slot_enter(spawner->slot, parent, getpid()))
		_exit(0);
	/* what stays open here would keep listeners and the acceptor's own descriptors alive */
	acceptor_close(&spawner->acceptor);
	close(spawner->ended);
	close(acceptor->ready_fd);
	for (size_t i = 0; i < acceptor->listener_count; i++)
		close(acceptor->listeners[i].fd);
	worker_derive(&worker, acceptor, spawner->slot);
	serve_derived(&worker, &spawner->arrival);
	_exit(0);
}

static int process_start(struct spawner *spawner)
{
	pid_t parent = getpid(), pid = fork();

	if (pid == 0)
		process_main(spawner, parent);
	if (pid < 0)
		return -errno;
	(void) slot_enter(spawner->slot, parent, pid);
	close(spawner->arrival.fd);
	conn_clear(&spawner->arrival.conn);
	return 0;
}

static void process_ended(struct spawner *spawner, pid_t pid, int status)
{
	struct worker *worker = spawner->worker;

	spawner->running--;
	for (unsigned i = 0; i < worker->workers; i++) {
		struct stats_slot *slot = &worker->spare[i];

		if (atomic_load_explicit(&slot->pid, memory_order_relaxed) != pid)
			continue;
		worker_tell_lost(pid, status, worker_lost(worker->board, worker->admission.shared, slot, pid, status));
		return;
	}
}

static void processes_collect(struct spawner *spawner)
{
	struct signalfd_siginfo info;
	int status;
	pid_t pid;

	/* one read is enough: a second SIGCHLD is not queued beside a pending one */
	if (read(spawner->ended, &info, sizeof info) < 0)
		info.ssi_signo = 0;
	/* no more than there are: clone(2) with CLONE_PARENT lets a child make children of this process */
	for (unsigned left = spawner->running; left > 0 && (pid = worker_reap(&status)) > 0; left--)
		process_ended(spawner, pid, status);
	spawner->next_slot = 0;
}

/* --- the acceptor ---------------------------------------------------------------------- */

static void start_pending(struct spawner *spawner)
{
	int r;

	live_move(spawner->worker->slot, spawner->slot);
	r = spawner->start(spawner);
	if (r < 0) {
		live_move(spawner->slot, spawner->worker->slot);
		accept_error(&spawner->acceptor.accept, -r);
		return;
	}
	spawner->pending = false;
	spawner->running++;
	slot_let_go(spawner);
}

/* Where `workers` follows from max-connections, the latter is never asked for a place too many:
 * that all are taken shows here. */
static void look_whether_full(struct spawner *spawner)
{
	const struct worker *worker = spawner->worker;
	bool full;

	slot_set_aside(spawner);
	full = !spawner->slot;
	if (full && !spawner->full && worker->workers >= worker->admission.max_connections)
		accept_limit_reached(&spawner->acceptor.accept);
	spawner->full = full;
}

static int spawner_turn(struct spawner *spawner)
{
	struct acceptor *acceptor = &spawner->acceptor;
	int r;

	look_whether_full(spawner);
	acceptor_set_busy(acceptor, spawner->pending || spawner->full);
	r = acceptor_wait(acceptor, &spawner->arrival);
	if (r < 0)
		return r;
	if (r == 1)
		spawner->pending = true;
	spawner->collect(spawner);
	if (spawner->pending && acceptor->accept.retry_at == INT64_MAX && !acceptor->stopping)
		start_pending(spawner);
	return 0;
}

/* The order to stop has come: everybody heard it; wait for the last to end. */
static void spawner_finish(struct spawner *spawner)
{
	struct pollfd ended = { .fd = spawner->ended, .events = POLLIN };
	struct worker *worker = spawner->worker;

	if (spawner->pending)
		serve_derived(worker, &spawner->arrival);
	while (spawner->running > 0) {
		int64_t now = clock_coarse_usec();

		(void) poll(&ended, 1, clock_poll_timeout(worker->next_beat, now));
		worker_beat(worker, clock_coarse_usec());
		spawner->collect(spawner);
	}
}

static int spawner_run(struct spawner *spawner)
{
	int r;

	if (spawner->ended < 0)
		return -errno;
	r = acceptor_open(&spawner->acceptor, spawner->worker, spawner->ended);
	if (r == 0)
		worker_ready(spawner->worker);
	while (r == 0 && !spawner->acceptor.stopping)
		r = spawner_turn(spawner);
	acceptor_close(&spawner->acceptor);
	spawner_finish(spawner);
	close(spawner->ended);
	return r;
}

int spawn_threads_run(struct worker *worker)
{
	struct spawner spawner = { .worker = worker, .start = thread_start, .collect = threads_collect };
	int r = pthread_attr_init(&spawner.attr);

	if (r != 0)
		return -r;
	pthread_attr_setdetachstate(&spawner.attr, PTHREAD_CREATE_DETACHED);
	pthread_attr_setstacksize(&spawner.attr, STACK_SIZE);
	spawner.ended = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	r = spawner_run(&spawner);
	pthread_attr_destroy(&spawner.attr);
	return r;
}

int spawn_processes_run(struct worker *worker)
{
	struct spawner spawner = { .worker = worker, .processes = true, .start = process_start, .collect = processes_collect };
	sigset_t children;

	sigemptyset(&children);
	sigaddset(&children, SIGCHLD);
	spawner.ended = signalfd(-1, &children, SFD_CLOEXEC | SFD_NONBLOCK);
	return spawner_run(&spawner);
}
