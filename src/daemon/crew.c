/* SPDX-License-Identifier: ISC */
#include <config.h>

#include "daemon/crew.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/plural.h"
#include "base/probe.h"
#include "base/sandbox.h"
#include "daemon/daemonize.h"
#include "echo/udp_ratelimit.h"
#include "models/accept/accept_token.h"
#include "models/datagram.h"
#include "models/fault.h"

/* Pause before a failed worker process is replaced, doubled for each failure in a row up to a maximum. A
 * process that has run for RESTART_PAUSE_MAX resets the count of failures. */
#define RESTART_PAUSE_MIN (100 * USEC_PER_MSEC)
#define RESTART_PAUSE_MAX (10 * USEC_PER_SEC)

/* Time between the drain-timeout of a stopping crew and SIGKILL. */
#define KILL_GRACE (2 * USEC_PER_SEC)

/* Maximum size to which the descriptor table of a process with threads is grown at once: half a megabyte of
 * kernel memory. */
#define TABLE_MAX 65536

static void close_fd(int fd)
{
	if (fd >= 0)
		close(fd);
}

/* Free memory only: descriptors, processes and the scoreboard are not touched. */
static void crew_free_memory(struct crew *crew)
{
	free(crew->processes);
	free(crew->orphans);
	sandbox_filter_free(crew->stream_filter);
	sandbox_filter_free(crew->datagram_filter);
	free(crew->sockets.items);
	conf_free(crew->conf);
	free(crew);
}

/* --- in the child ---------------------------------------------------------------------- */

/* Fill `*worker` for worker `index`, which runs in process `process`. */
static void worker_fill(struct worker *worker, const struct crew *crew, unsigned process, unsigned index)
{
	static struct log_limits log_limits;
	const struct crew_context *context = crew->context;
	const struct scoreboard_shared *view = scoreboard_view(context->scoreboard);
	const struct conf *conf = crew->conf;
	unsigned number = (unsigned) crew->number;

	*worker = (struct worker) {
		.conf = conf,
		.model = crew->model,
		.index = index,
		.workers = crew->limits.workers,
		.scoreboard = context->scoreboard,
		.crew = number,
		.log_limits = &log_limits,
		.slot = scoreboard_slot(context->scoreboard, number, index),
		.first_child = crew->first_child,
		.stop_request = &view->stop_request[number],
		.listeners = crew->sockets.items,
		.listener_count = crew->streams,
		.stop_fd = crew->stop_out,
		.ready_fd = crew->ready_in,
		.wakeup_fd = context->wakeup,
		.inbox_fd = context->inbox,
		.outbox_fd = context->outbox,
		.capacity = crew->limits.capacity,
		.pipes = crew->limits.pipes,
		.heartbeat_usec = context->heartbeat_usec,
		.next_heartbeat = context->heartbeat_usec == INT64_MAX ? INT64_MAX : 0,
		.admission = {
			.shared = &view->admission,
			.own = process < crew->serving
			       ? scoreboard_admission(context->scoreboard, number, process) : NULL,
			.group = number,
			.index = process,
			.allow = &conf->allow,
			.deny = &conf->deny,
			.max_connections = crew->limits.max_connections,
			.max_per_source = conf->max_per_source,
		},
	};
}

struct thread {
	pthread_t id;
	struct worker worker;
	int result;
};

static void *thread_main(void *argument)
{
	struct thread *thread = argument;
	struct worker *worker = &thread->worker;

	log_identify(worker->model->name, (int) worker->index);
	thread->result = worker->model->run(worker);
	if (thread->result == 0)
		return NULL;
	/* end the process: the supervisor logs that and replaces it */
	log_event(LOG_ERR, EVENT_WORKER_FAILED, "Worker %u failed: %s", worker->index,
	          strerror(-thread->result));
	_exit(1);
}

/* Make the workers of the process, before it is confined; threads_run() frees them. Returns 0 or -errno,
 * after which the process must end. */
static int threads_make(struct thread **result, const struct crew *crew, const struct crew_process *process)
{
	struct thread *threads = calloc(process->threads, sizeof *threads);
	struct accept_token *token = NULL;
	int r = 0;

	*result = threads;
	if (!threads)
		return -ENOMEM;
	if (crew->model->zero == MODEL_ZERO_PROCESSORS && process->threads > 1)
		r = accept_token_make(&token, process->threads);
	for (unsigned i = 0; i < process->threads && r == 0; i++) {
		worker_fill(&threads[i].worker, crew, (unsigned) (process - crew->processes),
		            process->index + i);
		threads[i].worker.token = token;
		if (crew->model->prepare)
			r = crew->model->prepare(&threads[i].worker);
	}
	return r;
}

/* Run the first worker of the process in this thread, the others in threads of their own. */
static int threads_run(struct thread *threads, const struct crew_process *process)
{
	struct accept_token *token = threads[0].worker.token;

	for (unsigned i = 1; i < process->threads; i++) {
		int r = -pthread_create(&threads[i].id, NULL, thread_main, &threads[i]);

		if (r < 0)
			return r;
	}
	thread_main(&threads[0]);
	for (unsigned i = 1; i < process->threads; i++)
		pthread_join(threads[i].id, NULL);
	accept_token_free(token);
	free(threads);
	return 0;
}

/* Whether datagrams of one flow may be in the queues of both sockets: they are the same socket, or both have
 * the same port, and a reload replaces a wildcard address by a single one or vice versa. */
static bool is_predecessor(const struct crew *crew, const struct crew_process *process,
                           const struct crew *other, const struct crew_process *reader)
{
	const struct addr *addr = &process->socket->addr;

	if (reader->pid <= 0 || !reader->socket)
		return false;
	if (reader->socket->fd == process->socket->fd)
		return true;
	return other != crew && addr->sa.sa_family != AF_UNIX &&
	       addr_port(addr) == addr_port(&reader->socket->addr);
}

/* The descriptors that are at end of file when the readers before this one have ended; stored at `fds` unless
 * it is NULL. Returns their number. */
static size_t find_predecessors(const struct crew *crew, const struct crew_process *process, int *fds)
{
	size_t count = 0;

	for (const struct list *at = crew->others->next; at != crew->others; at = at->next) {
		const struct crew *other = LIST_ENTRY(at, struct crew, link);

		for (unsigned i = 0; i < other->process_count; i++) {
			if (!is_predecessor(crew, process, other, &other->processes[i]))
				continue;
			if (fds)
				fds[count] = other->processes[i].ended;
			count++;
		}
	}
	return count;
}

/* Close all descriptors that this process does not need: a reader has only its own socket, other workers have
 * only stream sockets. */
static int close_others(const struct crew *crew, const struct crew_process *process, int alive)
{
	size_t predecessors = process->socket ? find_predecessors(crew, process, NULL) : 0;
	int *keep = calloc(crew->streams + predecessors + 8, sizeof *keep);
	size_t count = 0;

	if (!keep)
		return -ENOMEM;
	keep[count++] = crew->stop_out;
	keep[count++] = crew->ready_in;
	keep[count++] = crew->context->log_relay;
	if (process->socket) {
		keep[count++] = process->socket->fd;
		keep[count++] = process->udp_ratelimit;
		keep[count++] = alive;
		count += find_predecessors(crew, process, &keep[count]);
	} else {
		for (size_t i = 0; i < crew->streams; i++)
			keep[count++] = crew->sockets.items[i].fd;
		keep[count++] = crew->context->inbox;
		keep[count++] = crew->context->outbox;
		keep[count++] = crew->context->wakeup;
		keep[count++] = admission_slot_fd(&scoreboard_view(crew->context->scoreboard)->admission);
	}
	daemonize_close_others(keep, (unsigned) count);
	free(keep);
	return 0;
}

static int run_reader(const struct crew *crew, const struct crew_process *process)
{
	size_t count = find_predecessors(crew, process, NULL);
	int *predecessors = calloc(count + 1, sizeof *predecessors);
	struct worker worker;
	int r;

	if (!predecessors)
		return -ENOMEM;
	(void) find_predecessors(crew, process, predecessors);
	worker_fill(&worker, crew, (unsigned) (process - crew->processes), process->index);
	worker.listeners = crew->sockets.items + crew->streams;
	worker.listener_count = crew->sockets.count - crew->streams;
	worker.inbox_fd = worker.outbox_fd = -1;
	log_identify(crew->model->name, (int) process->index);
	r = datagram_run(&worker, process->socket, process->udp_ratelimit, predecessors, count);
	free(predecessors);
	return r;
}

/* The kernel doubles the descriptor table of a process when it is full; where threads share the table, each
 * time waits for an RCU grace period: five waits of 10 to 30 ms while a thousand connections arrive. Make it
 * grow while there is one thread. */
static void table_grow(const struct crew *crew)
{
	unsigned max_fds = crew->limits.max_connections;
	struct rlimit limit;
	int fd;

	if (getrlimit(RLIMIT_NOFILE, &limit) < 0)
		return;
	if (max_fds > TABLE_MAX)
		max_fds = TABLE_MAX;
	if (max_fds > limit.rlim_cur)
		max_fds = (unsigned) limit.rlim_cur;
	fd = fcntl(crew->stop_out, F_DUPFD_CLOEXEC, (int) max_fds - 1);
	if (fd >= 0)
		close(fd);
}

/* The system calls (SANDBOX_*) of processes that serve connections. */
static unsigned stream_uses(const struct crew *crew)
{
	bool threads = crew->model->crew == MODEL_THREADS && crew->limits.workers > 1;

	return SANDBOX_STREAMS | crew->model->uses | (threads ? (unsigned) SANDBOX_THREADS : 0);
}

/* Enter the sandbox. From here on the process opens no sockets. */
static int confine(const struct crew *crew, const struct crew_process *process)
{
	int r;

	addr_use_socket(crew->context->log_relay);
	r = sandbox_enter(process->socket ? crew->datagram_filter : crew->stream_filter);
	if (r < 0)
		log_event(LOG_ERR, EVENT_WORKER_FAILED, "Cannot sandbox a worker process: %s", strerror(-r));
	else
		fault_try_forbidden(process->socket ? (unsigned) SANDBOX_DATAGRAMS : stream_uses(crew));
	return r;
}

static void __attribute__((noreturn))
process_main(struct crew *crew, const struct crew_process *process, int alive)
{
	struct stats_slot *slot =
		scoreboard_slot(crew->context->scoreboard, (unsigned) crew->number, process->index);
	struct thread *threads = NULL;
	int r;

	scoreboard_enter(crew->context->scoreboard, (unsigned) crew->number,
	                 (unsigned) (process - crew->processes));
	daemonize_inherit();
	r = close_others(crew, process, alive);
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	log_relay_to(crew->context->log_relay, crew->conf->log_level, &slot->counters[STAT_LOG_LOST]);
	log_identify(crew->model->name, -1);
	if (crew->model->crew != MODEL_PROCESSES && !process->socket)
		table_grow(crew);
	if (r == 0 && !process->socket)
		r = threads_make(&threads, crew, process);
	if (r == 0)
		r = confine(crew, process);
	if (r == 0)
		r = process->socket ? run_reader(crew, process) : threads_run(threads, process);
	if (r < 0)
		log_event(LOG_ERR, EVENT_WORKER_FAILED, "Worker process failed: %s", strerror(-r));
	/* not exit(): handlers and buffers belong to the supervisor */
	crew_free_memory(crew);
	_exit(r < 0 ? 1 : 0);
}

/* --- in the supervisor ----------------------------------------------------------------- */

/* Pass the table of udp-rate of a socket from reader to reader, or make it. */
static int find_udp_ratelimit(const struct crew *crew, const struct listener *socket)
{
	for (const struct list *at = crew->others->next; at != crew->others; at = at->next) {
		const struct crew *other = LIST_ENTRY(at, struct crew, link);

		for (unsigned i = 0; i < other->process_count; i++) {
			const struct crew_process *reader = &other->processes[i];
			int fd;

			if (!reader->socket || reader->socket->fd != socket->fd || reader->udp_ratelimit < 0)
				continue;
			fd = fcntl(reader->udp_ratelimit, F_DUPFD_CLOEXEC, 0);
			return fd < 0 ? -errno : fd;
		}
	}
	return udp_ratelimit_make();
}

/* Before a reader is forked: prepare its table of udp-rate, and a pipe whose writing end `*alive` only the
 * new process keeps. */
static int reader_prepare(const struct crew *crew, struct crew_process *process, int *alive)
{
	int ends[2], r;

	if (process->udp_ratelimit < 0) {
		r = find_udp_ratelimit(crew, process->socket);
		if (r < 0)
			return r;
		process->udp_ratelimit = r;
	}
	if (pipe2(ends, O_CLOEXEC) < 0)
		return -errno;
	close_fd(process->ended);
	process->ended = ends[0];
	*alive = ends[1];
	return 0;
}

static int process_start(struct crew *crew, struct crew_process *process)
{
	unsigned number = (unsigned) (process - crew->processes);
	int alive = -1, r;
	pid_t pid;

	process->restart_at = INT64_MAX;
	process->started = clock_usec();
	r = process->socket ? reader_prepare(crew, process, &alive) : 0;
	if (r < 0)
		return r;
	scoreboard_process_start(crew->context->scoreboard, (unsigned) crew->number, number);
	pid = fork();
	if (pid == 0)
		process_main(crew, process, alive);
	r = pid < 0 ? -errno : 0;
	close_fd(alive);
	if (r == 0) {
		process->pid = pid;
		worker_trace_process(process->index, pid);
	} else {
		(void) scoreboard_process_end(crew->context->scoreboard, (unsigned) crew->number, number);
	}
	return r;
}

/* Maximum number of connections of one process, including those of its children. */
static uint32_t process_capacity(const struct crew *crew)
{
	switch (crew->model->crew) {
	case MODEL_PROCESSES:
		return 1;
	case MODEL_SPAWN:
		return crew->limits.workers + 1;
	default:
		return crew->limits.capacity;
	}
}

/* Reserve slots on the scoreboard. */
static int scoreboard_reserve(struct crew *crew)
{
	const struct scoreboard_layout layout = {
		.processes = crew->serving,
		.threads = crew->processes[0].threads,
		.readers = crew->process_count - crew->serving,
		.children = crew->model->crew == MODEL_SPAWN ? crew->limits.workers : 0,
		.child_processes = crew->model->child_processes,
		.capacity = process_capacity(crew),
		.max_connections = crew->limits.max_connections,
		.worker_capacity = crew->model->zero == MODEL_ZERO_PROCESSORS ? crew->limits.capacity : 1,
		.sources = crew->conf->max_per_source > 0,
	};

	crew->number = scoreboard_crew_open(crew->context->scoreboard, &layout);
	return crew->number < 0 ? crew->number : 0;
}

/* Assign workers to processes. */
static int assign_workers(struct crew *crew)
{
	unsigned serving = crew->model->crew == MODEL_PROCESSES ? crew->limits.workers : 1;
	unsigned threads = crew->model->crew == MODEL_THREADS ? crew->limits.workers : 1;
	unsigned readers = (unsigned) (crew->sockets.count - crew->streams);

	crew->serving = serving;
	crew->process_count = serving + readers;
	crew->processes = calloc(crew->process_count, sizeof *crew->processes);
	if (!crew->processes)
		return -ENOMEM;
	for (unsigned i = 0; i < serving; i++)
		crew->processes[i] = (struct crew_process) {
			.index = i * threads, .threads = threads, .ended = -1, .udp_ratelimit = -1
		};
	for (unsigned i = 0; i < readers; i++)
		crew->processes[serving + i] = (struct crew_process) {
			.index = serving * threads + i,
			.threads = 1,
			.socket = &crew->sockets.items[crew->streams + i],
			.ended = -1,
			.udp_ratelimit = -1,
		};
	crew->first_child = serving * threads + readers;
	return 0;
}

static int open_pipes(struct crew *crew)
{
	int stop[2], ready[2];

	if (pipe2(stop, O_CLOEXEC | O_NONBLOCK) < 0)
		return -errno;
	crew->stop_out = stop[0];
	crew->stop_in = stop[1];
	if (pipe2(ready, O_CLOEXEC | O_NONBLOCK) < 0)
		return -errno;
	crew->ready_out = ready[0];
	crew->ready_in = ready[1];
	return 0;
}

/* Copy the sockets, stream sockets first. */
static int copy_sockets(struct crew *crew, const struct sockets *sockets)
{
	static const enum listener_kind kinds[] = { LISTENER_STREAM, LISTENER_DATAGRAM };
	struct listener *items = calloc(sockets->count + 1, sizeof *items);

	if (!items)
		return -ENOMEM;
	crew->sockets.items = items;
	for (size_t k = 0; k < sizeof kinds / sizeof kinds[0]; k++)
		for (size_t i = 0; i < sockets->count; i++)
			if (sockets->items[i].kind == kinds[k])
				items[crew->sockets.count++] = sockets->items[i];
	while (crew->streams < crew->sockets.count && items[crew->streams].kind == LISTENER_STREAM)
		crew->streams++;
	return 0;
}

static int make_filters(struct crew *crew)
{
	int r = sandbox_filter_make(&crew->stream_filter, stream_uses(crew));

	if (r == 0 && crew->streams < crew->sockets.count)
		r = sandbox_filter_make(&crew->datagram_filter, SANDBOX_DATAGRAMS);
	return r;
}

int crew_start(struct crew **result, struct conf *conf, const struct sockets *sockets,
               const struct crew_context *context, const struct list *others)
{
	struct crew *crew = calloc(1, sizeof *crew);
	bool any_started = false;
	int r;

	if (!crew) {
		conf_free(conf);
		return -ENOMEM;
	}
	list_init(&crew->link);
	crew->stop_in = crew->stop_out = crew->ready_in = crew->ready_out = crew->number = -1;
	crew->conf = conf;
	crew->context = context;
	crew->others = others;
	crew->model = model_find(conf->model);
	model_limits(&crew->limits, crew->model, conf, sockets->count);
	r = copy_sockets(crew, sockets);
	if (r == 0)
		r = assign_workers(crew);
	if (r == 0)
		r = scoreboard_reserve(crew);
	if (r == 0)
		r = open_pipes(crew);
	if (r == 0)
		r = make_filters(crew);
	for (unsigned i = 0; r == 0 && i < crew->process_count; i++) {
		r = process_start(crew, &crew->processes[i]);
		any_started |= r == 0;
	}
	if (r < 0)
		log_event(LOG_ERR, EVENT_START_FAILED, "Cannot start %u worker%s of model %s: %s",
		          crew->limits.workers, plural(crew->limits.workers), crew->model->name,
		          r == -EBUSY ? "too many earlier crews are still draining connections"
		                      : strerror(-r));
	/* running processes may have accepted connections, which must not be lost */
	crew->failed = r < 0;
	if (r == 0 || any_started) {
		*result = crew;
		return 0;
	}
	crew_free(crew);
	return r;
}

unsigned crew_note_ready(struct crew *crew)
{
	char bytes[4096];
	/* only a wake-up: crew_ready() checks the workers */
	ssize_t n = read(crew->ready_out, bytes, sizeof bytes);

	return n > 0 ? (unsigned) n : 0;
}

bool crew_ready(struct crew *crew)
{
	if (!crew->failed && !crew->was_ready)
		crew->was_ready = scoreboard_crew_ready(crew->context->scoreboard, (unsigned) crew->number);
	return !crew->failed && crew->was_ready;
}

static void process_failed(struct crew *crew, struct crew_process *process)
{
	int64_t now = clock_usec(), pause = RESTART_PAUSE_MIN;

	if (now - process->started >= RESTART_PAUSE_MAX)
		process->failures = 0;
	for (unsigned i = 0; i < process->failures && pause < RESTART_PAUSE_MAX; i++)
		pause *= 2;
	process->failures++;
	process->restart_at = now + (pause < RESTART_PAUSE_MAX ? pause : RESTART_PAUSE_MAX);
	if (!crew->was_ready)
		crew->failed = true;
}

/* Log and count the end of a process that was serving `lost` connections. */
static void count_lost(struct crew *crew, pid_t pid, int status, uint32_t lost)
{
	if (!worker_exit_is_clean(status))
		stats_add(scoreboard_own_slot(crew->context->scoreboard), STAT_ENDED_ERROR, lost);
	worker_log_end(pid, status, lost);
}

static bool is_known(const struct crew *crew, pid_t pid)
{
	for (unsigned i = 0; i < crew->process_count; i++)
		if (crew->processes[i].pid == pid)
			return true;
	for (size_t i = 0; i < crew->orphan_count; i++)
		if (crew->orphans[i].pid == pid)
			return true;
	return false;
}

/* Whether `pid`, which a child's slot claims, is a child of this process and not known otherwise. */
static bool adopt_orphan(void *context, unsigned child, pid_t pid)
{
	struct crew *crew = context;
	siginfo_t info;

	for (const struct list *at = crew->others->next; at != crew->others; at = at->next)
		if (is_known(LIST_ENTRY(at, struct crew, link), pid))
			return false;
	if (is_known(crew, pid) || waitid(P_PID, (id_t) pid, &info, WEXITED | WNOHANG | WNOWAIT) < 0)
		return false;
	if (crew->orphan_count % 64 == 0) {
		struct crew_orphan *orphans =
			realloc(crew->orphans, (crew->orphan_count + 64) * sizeof *orphans);

		if (!orphans) {
			/* its slot becomes free */
			kill(pid, SIGKILL);
			return false;
		}
		crew->orphans = orphans;
	}
	crew->orphans[crew->orphan_count++] = (struct crew_orphan) { .pid = pid, .child = child };
	if (crew->killed)
		kill(pid, SIGKILL);
	return true;
}

static bool orphan_reaped(struct crew *crew, pid_t pid, int status)
{
	bool handed_over = WIFEXITED(status) && WEXITSTATUS(status) == WORKER_HANDED_OVER;
	size_t i = 0;
	uint32_t lost;

	while (i < crew->orphan_count && crew->orphans[i].pid != pid)
		i++;
	if (i == crew->orphan_count)
		return false;
	lost = scoreboard_orphan_end(crew->context->scoreboard, (unsigned) crew->number,
	                             crew->orphans[i].child,
	                             handed_over ? SCOREBOARD_HANDED_OVER : SCOREBOARD_CLOSED);
	count_lost(crew, pid, status, lost);
	crew->orphans[i] = crew->orphans[--crew->orphan_count];
	/* the successor of its parent may wait for its slot */
	if (crew->processes[0].pid > 0)
		kill(crew->processes[0].pid, SIGCHLD);
	return true;
}

bool crew_reaped(struct crew *crew, pid_t pid, int status)
{
	uint32_t lost;

	for (unsigned i = 0; i < crew->process_count; i++) {
		struct crew_process *process = &crew->processes[i];

		if (process->pid != pid)
			continue;
		process->pid = 0;
		lost = 0;
		/* connections of orphans are counted before the counts of their parent are dropped */
		if (i == 0)
			lost = scoreboard_find_orphans(crew->context->scoreboard, (unsigned) crew->number,
			                               adopt_orphan, crew);
		lost += scoreboard_process_end(crew->context->scoreboard, (unsigned) crew->number, i);
		count_lost(crew, pid, status, lost);
		if (!crew->stopping)
			process_failed(crew, process);
		return true;
	}
	return orphan_reaped(crew, pid, status);
}

int64_t crew_maintain(struct crew *crew, int64_t now)
{
	int64_t next = INT64_MAX;

	if (crew->stopping) {
		next = crew->kill_at;
		if (now >= crew->kill_at) {
			crew_kill(crew);
			next = now + USEC_PER_SEC;
		}
		return crew_gone(crew) ? INT64_MAX : next;
	}
	for (unsigned i = 0; i < crew->process_count; i++) {
		struct crew_process *process = &crew->processes[i];

		if (process->restart_at <= now && !crew->failed) {
			int r = process_start(crew, process);

			if (r < 0)
				process_failed(crew, process);
			else
				log_event(LOG_NOTICE, EVENT_WORKER_DIED, "Restarted worker process %d",
				          (int) process->pid);
		}
		if (process->restart_at < next)
			next = process->restart_at;
	}
	return next;
}

static void trace_stop(const struct crew *crew, enum stats_stop how)
{
	struct log_record record;

	PROBE2(stop_request, crew->number, (int) how);
	if (!log_wants(LOG_DEBUG))
		return;
	log_begin(&record, LOG_DEBUG, EVENT_STOP_REQUESTED);
	log_add(&record, "ECHOD_STOP", "%s", worker_stop_name(how));
	log_end(&record, "Asked %u workers of model \"%s\" to stop (%s)", crew->limits.workers,
	        crew->model->name, worker_stop_name(how));
}

void crew_stop(struct crew *crew, enum stats_stop how, int64_t hand_until, int64_t drain_until)
{
	struct scoreboard_shared *shared = scoreboard_shared(crew->context->scoreboard);
	struct stop_request *stop_request = &shared->stop_request[crew->number];

	if (crew->stopping) {
		if (atomic_load(&stop_request->stop) == STOP_DRAIN)
			how = STOP_DRAIN;
		hand_until = clock_earlier(hand_until, atomic_load(&stop_request->hand_until));
		drain_until = clock_earlier(drain_until, atomic_load(&stop_request->drain_until));
	}
	atomic_store(&stop_request->hand_until, hand_until);
	atomic_store(&stop_request->drain_until, drain_until);
	admission_group_stopping(&shared->admission, (unsigned) crew->number);
	atomic_store(&stop_request->stop, how);
	close_fd(crew->stop_in);
	crew->stop_in = -1;
	crew->stopping = true;
	trace_stop(crew, how);
	crew->kill_at = (drain_until > hand_until ? drain_until : hand_until) + KILL_GRACE;
}

void crew_kill(struct crew *crew)
{
	crew->stopping = true;
	crew->killed = true;
	for (unsigned i = 0; i < crew->process_count; i++)
		if (crew->processes[i].pid > 0)
			kill(crew->processes[i].pid, SIGKILL);
	/* children of the first process become orphans when it is reaped */
	for (size_t i = 0; i < crew->orphan_count; i++)
		kill(crew->orphans[i].pid, SIGKILL);
}

bool crew_gone(const struct crew *crew)
{
	for (unsigned i = 0; i < crew->process_count; i++)
		if (crew->processes[i].pid > 0)
			return false;
	return crew->orphan_count == 0;
}

bool crew_alive(struct crew *crew)
{
	return scoreboard_crew_alive(crew->context->scoreboard, (unsigned) crew->number);
}

void crew_free(struct crew *crew)
{
	if (!crew)
		return;
	if (crew->number >= 0)
		scoreboard_crew_close(crew->context->scoreboard, (unsigned) crew->number);
	for (unsigned i = 0; crew->processes && i < crew->process_count; i++) {
		close_fd(crew->processes[i].ended);
		close_fd(crew->processes[i].udp_ratelimit);
	}
	close_fd(crew->stop_in);
	close_fd(crew->stop_out);
	close_fd(crew->ready_in);
	close_fd(crew->ready_out);
	crew_free_memory(crew);
}
