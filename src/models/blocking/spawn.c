/* SPDX-License-Identifier: ISC */
/* spawn.c - the body of process and thread: an acceptor that creates a process or a thread for each
 * connection
 *
 * Each of them has a slot on the scoreboard, which the acceptor reserves before it accepts. When `workers` of
 * them run, or when none can be created, the acceptor does not watch the listeners, and keeps the one
 * connection that it may have accepted already until it can be served.
 *
 * Child processes do not count their connections for admission.h. Their parent counts them: the kernel
 * reports when a child has ended, and the exit status whether it handed its connection over. So a child
 * cannot change counts that other processes rely on. If the parent is killed, the supervisor counts its
 * children, and the next acceptor their sources.
 */
#include <config.h>

#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "models/blocking/acceptor.h"
#include "models/blocking/serve.h"
#include "models/fault.h"
#include "models/model.h"

/* Maximum time to wait for the end of a child process whose connection has ended. It ends at once, but where
 * many processes compete for the processors, not within half a second. */
#define END_WAIT_USEC (2 * USEC_PER_SEC)

/* Enough for serve() and a log record; only used pages cost memory. */
#define STACK_SIZE (256U << 10)

/* A child process, in the private memory of its parent. */
struct child {
	pid_t pid;                      /* 0: none */
	struct peer peer;               /* peer of the connection */
	bool counted;                   /* for its source; not before a PROXY protocol header has named it */
	bool overdue;                   /* it did not end within END_WAIT_USEC after its connection */
	bool orphan;                    /* a child of a killed predecessor, whose source counts here */
	uint64_t counters[STATS_COUNT]; /* of its slot, when the previous child with this slot ended */
};

/* Counts the threads that have ended. The acceptor sets ENDS_WAKE while it waits for a free slot or for the
 * last thread; only then does a thread write to the eventfd, which costs both of them system calls and wakes
 * the acceptor. */
struct thread_ends {
	atomic_uint count;  /* of threads that ended since the last threads_collect(), and the flag
	                     * ENDS_WAKE */
	int fd;             /* eventfd(2) */
	bool wake;          /* whether ENDS_WAKE is set; only the acceptor uses this and the next field */
	uint64_t unwritten; /* number of threads that ended with ENDS_WAKE set and whose write was not read */
};

#define ENDS_WAKE (1U << 31)

struct spawner {
	struct worker *worker;
	struct acceptor acceptor;
	unsigned running;   /* number of children or threads not yet collected */
	unsigned orphans;   /* number of children with `orphan` */
	unsigned next_slot; /* no lower slot is free */
	int slot;           /* reserved for the next connection; -1: none is free */
	int ended;          /* signalfd(2), or `ends.fd`: readable when children have ended */
	bool full;          /* `workers` children run, including those of a killed predecessor */
	bool pending;       /* `new_conn` is not served yet */
	struct new_conn new_conn;
	/* for connections that this process serves itself; for processes: each child begins with a copy, and
	 * needs no memory of its own */
	struct session_io io;
	pthread_attr_t attr;                   /* for threads */
	struct thread_ends ends;               /* for threads */
	struct child *children;                /* for processes: `workers` entries */
	int64_t started;                       /* clock_usec() */
	int (*start)(struct spawner *spawner); /* serve `new_conn` in `slot` */
	/* Note which children have ended. `ready`: the descriptor `ended` is readable. `wake`: when the next
	 * child ends, the descriptor must become readable. */
	void (*collect)(struct spawner *spawner, bool ready, bool wake);
	/* of struct accept_state */
	bool (*collect_source)(struct accept_state *accept, const struct peer *peer);
};

static struct stats_slot *child_slot(const struct worker *worker, unsigned number)
{
	return scoreboard_slot(worker->scoreboard, worker->crew, worker->first_child + number);
}

/* Whether the slot belongs to a child of a killed predecessor. */
static bool is_orphan(const struct spawner *spawner, unsigned number)
{
	const struct worker *worker = spawner->worker;

	return atomic_load(&scoreboard_view(worker->scoreboard)->orphans[worker->crew][number]);
}

/* Whether the slot is unused by children of this process and of a killed predecessor. */
static bool slot_is_free(const struct spawner *spawner, unsigned number)
{
	const struct worker *worker = spawner->worker;

	if (!spawner->children)
		return number >= atomic_load(&worker->slot->children) ||
		       atomic_load(&child_slot(worker, number)->state) == SLOT_FREE;
	return spawner->children[number].pid == 0 && !spawner->children[number].orphan &&
	       !is_orphan(spawner, number);
}

/* Reserve a slot for the next connection if one is free: the lowest one, so that no more memory is used than
 * needed. */
static void slot_reserve(struct spawner *spawner)
{
	struct worker *worker = spawner->worker;
	struct stats_slot *slot;
	unsigned number;

	if (spawner->slot >= 0 || spawner->running >= worker->workers)
		return;
	while (spawner->next_slot < worker->workers && !slot_is_free(spawner, spawner->next_slot))
		spawner->next_slot++;
	if (spawner->next_slot == worker->workers)
		return;
	number = spawner->next_slot++;
	slot = child_slot(worker, number);
	if (number >= atomic_load(&worker->slot->children)) {
		memset(slot, 0, sizeof *slot);
		atomic_store(&worker->slot->children, number + 1);
	}
	atomic_store(&slot->state, SLOT_STARTING);
	spawner->slot = (int) number;
}

static void live_move(struct stats_slot *from, struct stats_slot *to)
{
	atomic_fetch_sub(&from->live, 1);
	atomic_fetch_add(&to->live, 1);
}

/* Make a copy of the acceptor's worker for the reserved slot; `derived` may be the original in a child
 * process. Must run in the acceptor's thread, which writes to the original. */
static void worker_derive(struct worker *derived, const struct spawner *spawner)
{
	const struct worker *worker = spawner->worker;

	*derived = *worker;
	derived->slot = child_slot(worker, (unsigned) spawner->slot);
	derived->index = worker->first_child + (unsigned) spawner->slot;
	derived->local_stats = (struct local_stats) { 0 };
}

/* Run a derived worker in its own process or thread. Returns whether its connection was handed over. */
static bool serve_derived(struct worker *worker, struct session_io *io, const struct new_conn *new_conn)
{
	bool handed_over;

	log_identify(worker->model->name, (int) worker->index);
	stats_slot_ready(worker->slot);
	worker_trace(worker, "started");
	handed_over = serve(worker, io, new_conn);
	worker_trace(worker, "ended");
	return handed_over;
}

/* --- threads --------------------------------------------------------------------------- */

struct thread_start {
	struct worker worker;
	struct new_conn new_conn;
	struct thread_ends *ends;
};

/* The memory that a thread needs is missing: end its connection. */
static void thread_failed(struct thread_start *start)
{
	struct session session;

	session_open(&session, &start->new_conn);
	conn_error(&session.conn, ENOMEM);
	session_close(&session, &start->worker);
}

static void *thread_main(void *argument)
{
	struct thread_start *start = argument;
	struct session_io io;
	uint64_t one = 1;

	if (serve_io_open(&io, &start->worker) < 0) {
		thread_failed(start);
	} else {
		(void) serve_derived(&start->worker, &io, &start->new_conn);
		session_io_close(&io);
	}
	stats_slot_free(start->worker.slot);
	/* without ENDS_WAKE, this is the last access to `ends`; with it, the acceptor waits for the write */
	if (atomic_fetch_add(&start->ends->count, 1) & ENDS_WAKE &&
	    write(start->ends->fd, &one, sizeof one) < 0)
		log_event(LOG_ERR, EVENT_INTERNAL, "Cannot write to eventfd: %s", strerror(errno));
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
	worker_derive(&start->worker, spawner);
	start->new_conn = spawner->new_conn;
	start->ends = &spawner->ends;
	r = pthread_create(&thread, &spawner->attr, thread_main, start);
	if (r != 0)
		free(start);
	return -r;
}

static void threads_collect(struct spawner *spawner, bool ready, bool wake)
{
	struct thread_ends *ends = &spawner->ends;
	unsigned ended;
	uint64_t written = 0;

	/* read first: then the count includes every thread that wrote */
	if (ready && read(ends->fd, &written, sizeof written) < 0)
		written = 0;
	ended = atomic_exchange(&ends->count, wake ? ENDS_WAKE : 0) & ~ENDS_WAKE;
	ends->unwritten += ends->wake ? ended : 0;
	ends->unwritten -= written;
	ends->wake = wake;
	spawner->running -= ended;
	if (ended > 0)
		spawner->next_slot = 0;
}

/* --- processes ------------------------------------------------------------------------- */

/* Write this process's id to its slot, unless the parent has done so. If the parent was killed right after
 * fork(2), the supervisor may find the slot without an id: it then frees the slot, and this process must end,
 * because its connection is no longer counted. `orphan`: wait for that, in tests. */
static void process_register(const struct spawner *spawner, bool orphan)
{
	struct stats_slot *slot = child_slot(spawner->worker, (unsigned) spawner->slot);
	int32_t found = STATS_PID_UNKNOWN;

	while (orphan && atomic_load(&slot->pid) == STATS_PID_UNKNOWN)
		sched_yield();
	if (!atomic_compare_exchange_strong(&slot->pid, &found, getpid()) && found != getpid())
		_exit(0);
}

/* The child writes to as little memory as possible, and frees none: each page is copied at the first write,
 * which costs more than most system calls. */
static void __attribute__((noreturn)) process_main(struct spawner *spawner, bool orphan)
{
	struct worker *worker = spawner->worker;

	process_register(spawner, orphan);
	/* the parent counts for this process */
	worker->admission.own = NULL;
	/* open descriptors would keep listeners and the acceptor's descriptors in use */
	acceptor_close_forked(&spawner->acceptor);
	close(spawner->ended);
	close(worker->ready_fd);
	for (size_t i = 0; i < worker->listener_count; i++)
		close(worker->listeners[i].fd);
	worker_derive(worker, spawner);
	scoreboard_enter_child(worker->scoreboard, worker->crew, (unsigned) spawner->slot);
	log_count_lost(&worker->slot->counters[STAT_LOG_LOST]);
	_exit(serve_derived(worker, &spawner->io, &spawner->new_conn) ? WORKER_HANDED_OVER : 0);
}

static int process_start(struct spawner *spawner)
{
	struct child *child = &spawner->children[spawner->slot];
	struct stats_slot *slot = child_slot(spawner->worker, (unsigned) spawner->slot);
	bool orphan = fault_file("ECHOD_FAULT_ORPHAN", 0);
	int32_t unknown = STATS_PID_UNKNOWN;
	pid_t pid;

	child->peer = spawner->new_conn.peer;
	child->counted = !spawner->new_conn.conn.header;
	child->overdue = false;
	slot->peer = child->counted ? child->peer : (struct peer) { .family = AF_UNSPEC };
	atomic_store(&slot->pid, STATS_PID_UNKNOWN);
	pid = fork();
	if (pid == 0)
		process_main(spawner, orphan);
	if (orphan)
		_exit(1);
	if (pid < 0)
		return -errno;
	child->pid = pid;
	(void) atomic_compare_exchange_strong(&slot->pid, &unknown, pid);
	close(spawner->new_conn.fd);
	conn_clear(&spawner->new_conn.conn);
	return 0;
}

/* Check the counters of an ended child, which may have written any value to its slot. Implausible ones are
 * reset to their values before that child. */
static void check_counters(const struct spawner *spawner, struct child *child, struct stats_slot *slot)
{
	bool plausible = scoreboard_is_plausible(slot, spawner->started, clock_usec());

	for (enum stats_counter i = 0; i < STATS_COUNT; i++) {
		if (plausible)
			child->counters[i] = atomic_load(&slot->counters[i]);
		else
			atomic_store(&slot->counters[i], child->counters[i]);
	}
}

/* Whether an ended child has written a line about its connection, as far as its slot shows: there is none at
 * level info where no byte was received. */
static bool has_logged(const struct child *child, const struct stats_slot *slot)
{
	return log_wants(LOG_DEBUG) ||
	       atomic_load(&slot->counters[STAT_RECEIVED]) != child->counters[STAT_RECEIVED];
}

static void process_ended(struct spawner *spawner, pid_t pid, int status)
{
	struct worker *worker = spawner->worker;
	unsigned number = 0, children = atomic_load(&worker->slot->children);
	struct stats_slot *slot;
	struct child *child;
	uint32_t lost;

	while (number < children && spawner->children[number].pid != pid)
		number++;
	if (number == children)
		return;
	child = &spawner->children[number];
	slot = child_slot(worker, number);
	lost = atomic_load(&slot->live) > 0;
	if (child->counted && has_logged(child, slot))
		session_charge_line(&child->peer);
	check_counters(spawner, &spawner->children[number], slot);
	stats_slot_free(slot);
	if (!worker_exit_is_clean(status))
		stats_add(worker->slot, STAT_ENDED_ERROR, lost);
	worker_log_end(pid, status, lost);
	if (WIFEXITED(status) && WEXITSTATUS(status) == WORKER_HANDED_OVER) {
		admission_enqueue(&worker->admission, child->counted ? &child->peer : NULL);
	} else {
		if (child->counted)
			admission_leave(&worker->admission, &child->peer);
		admission_slot_release(&worker->admission);
	}
	spawner->children[number].pid = 0;
	spawner->running--;
}

/* Count the sources of children of a killed predecessor. They are in slots that these children may have
 * written to since: a child can only misrepresent its own source. */
static void orphans_adopt(struct spawner *spawner)
{
	struct worker *worker = spawner->worker;

	for (unsigned i = 0; i < worker->workers && i < atomic_load(&worker->slot->children); i++) {
		struct child *child = &spawner->children[i];

		child->peer = child_slot(worker, i)->peer;
		child->orphan = is_orphan(spawner, i) && child->peer.family != AF_UNSPEC;
		if (!child->orphan)
			continue;
		spawner->orphans++;
		admission_add_source(&worker->admission, &child->peer);
	}
}

/* Give back the sources of those that the supervisor has reaped. */
static void orphans_collect(struct spawner *spawner)
{
	for (unsigned i = 0; spawner->orphans > 0 && i < spawner->worker->workers; i++) {
		struct child *child = &spawner->children[i];

		if (!child->orphan || is_orphan(spawner, i))
			continue;
		child->orphan = false;
		spawner->orphans--;
		admission_leave(&spawner->worker->admission, &child->peer);
	}
}

static void processes_collect(struct spawner *spawner, bool ready, bool wake)
{
	struct signalfd_siginfo info;
	int status;
	pid_t pid;

	(void) wake; /* the end of a process always does */
	spawner->next_slot = 0; /* the supervisor frees the slots of a killed predecessor's children at any
	                         * time */
	orphans_collect(spawner);
	if (!ready)
		return;
	/* one read is enough: a second SIGCHLD is not queued behind a pending one */
	if (read(spawner->ended, &info, sizeof info) < 0)
		info.ssi_signo = 0;
	/* bounded, because a child can create further children of this process by clone(2) with
	 * CLONE_PARENT */
	for (unsigned left = spawner->running; left > 0 && (pid = worker_reap(&status)) > 0; left--)
		process_ended(spawner, pid, status);
}

/* A child that serves the source of `peer`, that has announced the end of its connection, and that runs
 * still. NULL: there is none. */
static struct child *child_ending(const struct spawner *spawner, const struct peer *peer)
{
	for (unsigned i = 0; i < atomic_load(&spawner->worker->slot->children); i++) {
		struct child *child = &spawner->children[i];

		if ((child->pid != 0 || child->orphan) && !child->overdue &&
		    admission_same_source(&child->peer, peer) &&
		    atomic_load(&child_slot(spawner->worker, i)->live) == 0)
			return child;
	}
	return NULL;
}

/* A client that has seen the end of its connection may connect again before the child process has ended. So
 * before a client is refused for its source, wait for such children: a child announces in its slot that it
 * closes its connection. A child is not trusted: its source is given back when the kernel reports its end,
 * and a child that does not end is waited for only once. */
static bool processes_collect_source(struct accept_state *accept, const struct peer *peer)
{
	struct spawner *spawner = LIST_ENTRY(accept, struct spawner, acceptor.accept);
	struct pollfd ended = { .fd = spawner->ended, .events = POLLIN };
	int64_t now = clock_usec(), until = now + END_WAIT_USEC;
	unsigned before = spawner->running + spawner->orphans;
	struct child *child;

	processes_collect(spawner, true, false);
	while ((child = child_ending(spawner, peer))) {
		child->overdue = now >= until;
		(void) poll(&ended, 1, child->overdue ? 0 : clock_poll_timeout(until, now));
		processes_collect(spawner, true, false);
		now = clock_usec();
	}
	return spawner->running + spawner->orphans < before;
}

/* --- the acceptor ---------------------------------------------------------------------- */

/* Serve the pending connection, if there is one and it can be served now. Returns whether it was started. */
static bool start_pending(struct spawner *spawner)
{
	struct stats_slot *slot;
	int r;

	/* not `retry_at`: a connection from the queue has a slot, also while the acceptor waits for another
	 * one */
	if (!spawner->pending || spawner->slot < 0 || spawner->acceptor.accept.paused ||
	    spawner->acceptor.stopping)
		return false;
	slot = child_slot(spawner->worker, (unsigned) spawner->slot);
	live_move(spawner->worker->slot, slot);
	r = spawner->start(spawner);
	if (r < 0) {
		live_move(slot, spawner->worker->slot);
		accept_error(&spawner->acceptor.accept, -r);
		return false;
	}
	spawner->pending = false;
	spawner->running++;
	spawner->slot = -1;
	return true;
}

/* Check for a free slot. Where `workers` is derived from max-connections, this check, not accept_take_slot(),
 * finds the limit. */
static void update_full(struct spawner *spawner)
{
	const struct worker *worker = spawner->worker;
	bool full;

	spawner->collect(spawner, spawner->acceptor.other_ready, false);
	slot_reserve(spawner);
	if (spawner->slot < 0) {
		/* a thread may have ended before the acceptor requested to be woken */
		spawner->collect(spawner, false, true);
		slot_reserve(spawner);
	}
	full = spawner->slot < 0;
	if (full && !spawner->full && worker->workers >= worker->admission.max_connections)
		accept_limit_reached(&spawner->acceptor.accept);
	spawner->full = full;
}

/* Whether a child waits for space in the queue, to hand its connection back (serve.c). */
static bool any_blocked(const struct spawner *spawner)
{
	const struct worker *worker = spawner->worker;

	for (unsigned i = 0; spawner->children && i < atomic_load(&worker->slot->children); i++)
		if (spawner->children[i].pid != 0 && atomic_load(&child_slot(worker, i)->blocked))
			return true;
	return false;
}

/* From where to take the next connection. While all slots are in use the queue may stay full, and a child
 * that waits for space in it keeps its slot. So take one connection out, which then waits for a slot here. */
static enum accept_scope scope(const struct spawner *spawner)
{
	if (spawner->pending)
		return ACCEPT_NOTHING;
	if (!spawner->full)
		return ACCEPT_ANY;
	return spawner->worker->workers < spawner->worker->capacity && any_blocked(spawner)
	             ? ACCEPT_QUEUE_ONLY
	             : ACCEPT_NOTHING;
}

static int spawner_iterate(struct spawner *spawner)
{
	struct acceptor *acceptor = &spawner->acceptor;
	int r;

	update_full(spawner);
	/* a connection that was taken while no slot was free */
	if (start_pending(spawner))
		return 0;
	acceptor_set_scope(acceptor, scope(spawner));
	r = acceptor_wait(acceptor, &spawner->new_conn);
	if (r < 0)
		return r;
	if (r == 1)
		spawner->pending = true;
	(void) start_pending(spawner);
	return 0;
}

/* After a stop request, which the children receive as well: wait until all have ended. */
static void spawner_finish(struct spawner *spawner)
{
	struct pollfd ended = { .fd = spawner->ended, .events = POLLIN };
	struct worker *worker = spawner->worker;

	if (spawner->pending)
		(void) serve_derived(worker, &spawner->io, &spawner->new_conn);
	spawner->collect(spawner, false, true);
	while (spawner->running > 0 || spawner->ends.unwritten > 0) {
		int64_t now = clock_coarse_usec();
		bool ready = poll(&ended, 1, clock_poll_timeout(worker->next_heartbeat, now)) > 0;

		worker_heartbeat(worker, clock_coarse_usec());
		spawner->collect(spawner, ready, true);
	}
}

static int spawner_run(struct spawner *spawner)
{
	int r;

	if (spawner->ended < 0)
		return -errno;
	r = serve_io_open(&spawner->io, spawner->worker);
	if (r == 0)
		r = acceptor_open(&spawner->acceptor, spawner->worker, spawner->ended);
	spawner->acceptor.accept.collect = spawner->collect_source;
	if (r == 0)
		worker_ready(spawner->worker);
	while (r == 0 && !spawner->acceptor.stopping)
		r = spawner_iterate(spawner);
	acceptor_close(&spawner->acceptor);
	spawner_finish(spawner);
	session_io_close(&spawner->io);
	close(spawner->ended);
	return r;
}

int spawn_threads_run(struct worker *worker)
{
	struct spawner spawner = {
		.worker = worker, .slot = -1, .start = thread_start, .collect = threads_collect
	};
	int r = pthread_attr_init(&spawner.attr);

	if (r != 0)
		return -r;
	pthread_attr_setdetachstate(&spawner.attr, PTHREAD_CREATE_DETACHED);
	pthread_attr_setstacksize(&spawner.attr, STACK_SIZE);
	spawner.ended = spawner.ends.fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	r = spawner_run(&spawner);
	pthread_attr_destroy(&spawner.attr);
	return r;
}

int spawn_processes_run(struct worker *worker)
{
	struct spawner spawner = { .worker = worker,
		                   .slot = -1,
		                   .started = clock_usec(),
		                   .start = process_start,
		                   .collect = processes_collect,
		                   .collect_source = processes_collect_source };
	sigset_t children;
	int r;

	spawner.children = calloc(worker->workers, sizeof *spawner.children);
	if (!spawner.children)
		return -ENOMEM;
	sigemptyset(&children);
	sigaddset(&children, SIGCHLD);
	spawner.ended = signalfd(-1, &children, SFD_CLOEXEC | SFD_NONBLOCK);
	orphans_adopt(&spawner);
	r = spawner_run(&spawner);
	free(spawner.children);
	return r;
}
