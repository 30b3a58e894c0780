/* spawn.c - the body of process and thread: one acceptor, which makes a process or a thread
 * for each connection
 *
 * Each of them has a slot of its own on the board. At `workers` of them, or when none can be
 * made, the acceptor leaves the listeners alone and keeps the one connection it may have
 * accepted already until somebody can serve it.
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
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "models/entrance.h"
#include "models/model.h"
#include "models/serve.h"

/* Enough for serve() and a log record; only what is touched costs memory. */
#define STACK_SIZE (256U << 10)

struct spawner {
	struct worker *worker;
	struct entrance entrance;
	unsigned running;       /* of ours; not yet joined or reaped */
	unsigned next_slot;     /* none below is free */
	int ended;              /* descriptor that is readable when some have ended */
	bool full;              /* as many run as may */
	bool pending;           /* `arrival` still waits for somebody to serve it */
	struct arrival arrival;
	pthread_attr_t attr;    /* threads only */
	int (*start)(struct spawner *spawner, struct stats_slot *slot);
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

		if (atomic_load(&slot->state) == SLOT_FREE) {
			stats_slot_use(worker->board, worker_slot_number(worker, slot));
			return slot;
		}
	}
	return NULL;
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
	atomic_store(&worker->slot->state, SLOT_READY);
	if (serve_turn_open(&turn, worker) < 0) {
		struct session session;

		session_open(&session, arrival, worker);
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
	(void) stats_slot_retire(start->worker.board, start->worker.slot);
	if (write(start->ended, &one, sizeof one) < 0)
		log_event(LOG_ERR, EVENT_INTERNAL, "eventfd: %s", strerror(errno));
	free(start);
	return NULL;
}

static int thread_start(struct spawner *spawner, struct stats_slot *slot)
{
	struct thread_start *start = malloc(sizeof *start);
	pthread_t thread;
	int r;

	if (!start)
		return -ENOMEM;
	worker_derive(&start->worker, spawner->worker, slot);
	start->arrival = spawner->arrival;
	start->ended = spawner->ended;
	atomic_store(&slot->pid, getpid());
	stats_slot_begin(slot);
	r = pthread_create(&thread, &spawner->attr, thread_main, start);
	if (r != 0) {
		(void) stats_slot_retire(spawner->worker->board, slot);
		free(start);
	}
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

static void __attribute__((noreturn)) process_main(struct spawner *spawner, struct stats_slot *slot)
{
	const struct worker *acceptor = spawner->worker;
	struct worker worker;

	/* what stays open here would keep listeners and the acceptor's own descriptors alive */
	entrance_close(&spawner->entrance);
	close(spawner->ended);
	close(acceptor->ready_fd);
	for (size_t i = 0; i < acceptor->listener_count; i++)
		close(acceptor->listeners[i].fd);
	worker_derive(&worker, acceptor, slot);
	worker.admission.owner = worker_slot_number(acceptor, slot);
	serve_derived(&worker, &spawner->arrival);
	_exit(0);
}

static int process_start(struct spawner *spawner, struct stats_slot *slot)
{
	struct admission *admission = &spawner->worker->admission, heir = *admission;
	pid_t pid;

	heir.owner = worker_slot_number(spawner->worker, slot);
	admission_pass(admission, heir.owner, &spawner->arrival.peer);
	stats_slot_begin(slot);
	pid = fork();
	if (pid == 0)
		process_main(spawner, slot);
	if (pid < 0) {
		int error = errno;

		admission_pass(&heir, admission->owner, &spawner->arrival.peer);
		atomic_store(&slot->state, SLOT_FREE);
		return -error;
	}
	atomic_store(&slot->pid, pid);
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
		worker_lost(worker->board, worker->admission.shared, slot, status);
		return;
	}
}

static void processes_collect(struct spawner *spawner)
{
	struct signalfd_siginfo info;
	int status;
	pid_t pid;

	while (read(spawner->ended, &info, sizeof info) == sizeof info)
		;
	while ((pid = waitpid(-1, &status, WNOHANG)) > 0)
		process_ended(spawner, pid, status);
	spawner->next_slot = 0;
}

/* --- the acceptor ---------------------------------------------------------------------- */

static void start_pending(struct spawner *spawner)
{
	struct stats_slot *slot = slot_find(spawner);
	int r = slot ? spawner->start(spawner, slot) : -EAGAIN;

	spawner->pending = r < 0;
	if (r == 0)
		spawner->running++;
	else
		intake_failed(&spawner->entrance.intake, -r);
}

/* Where `workers` follows from max-connections, the latter is never asked for a place too many:
 * that all are taken shows here. */
static void look_whether_full(struct spawner *spawner)
{
	const struct worker *worker = spawner->worker;
	bool full = spawner->running >= worker->workers;

	if (full && !spawner->full && worker->workers >= worker->admission.max_connections)
		intake_limit_reached(&spawner->entrance.intake);
	spawner->full = full;
}

static int spawner_turn(struct spawner *spawner)
{
	struct entrance *entrance = &spawner->entrance;
	int r;

	look_whether_full(spawner);
	entrance_busy(entrance, spawner->pending || spawner->full);
	r = entrance_wait(entrance, &spawner->arrival);
	if (r < 0)
		return r;
	if (r == 1)
		spawner->pending = true;
	spawner->collect(spawner);
	if (spawner->pending && entrance->intake.retry_at == INT64_MAX && !entrance->stopping)
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
	r = entrance_open(&spawner->entrance, spawner->worker, spawner->ended);
	if (r == 0)
		worker_ready(spawner->worker);
	while (r == 0 && !spawner->entrance.stopping)
		r = spawner_turn(spawner);
	entrance_close(&spawner->entrance);
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
	struct spawner spawner = { .worker = worker, .start = process_start, .collect = processes_collect };
	sigset_t children;

	sigemptyset(&children);
	sigaddset(&children, SIGCHLD);
	spawner.ended = signalfd(-1, &children, SFD_CLOEXEC | SFD_NONBLOCK);
	return spawner_run(&spawner);
}
