/* SPDX-License-Identifier: ISC */
/* test_sim.c - the bodies of the models against a simulated kernel
 *
 * See sim.h. An episode is one daemon: a crew of workers, clients that come and go, some of them through
 * proxies, reloads and restarts with another model, failing calls, and a stop. All its choices follow from
 * its seed. The environment variables SIM_SEED and SIM_EVENTS set the first seed and the number of events of
 * each test; SIM_TEST selects one test.
 */
#include <config.h>

#include "sim.h"

#include <inttypes.h>
#include <limits.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>

#include "conf/conf.h"
#include "echo/scoreboard.h"
#include "models/accept/accept_token.h"
#include "models/model.h"
#include "models/worker.h"

/* Default number of events of each test. All tests take a few seconds. */
#define EVENTS 300000

#define WORKERS_MAX 32
#define LISTENERS 2
#define CREWS_MAX 16
#define QUEUE_MAX 64

/* The longest time that the coarse clock, a batch of events and the scheduling of fibers delay a step. */
#define SLACK (150 * MSEC)

/* Maximum delay of a step at a given time, in addition to a tick of the coarse clock: time-outs of whole
 * milliseconds, two failed calls that are tried again after 10 ms, and other workers that run first. */
#define LATE (25 * MSEC)

/* Resolution of the time of the last activity (models/session.h). */
#define TICK (INT64_C(1) << 18)

/* Interval of the checks of draining connections (body.c, serve.c), and of a worker that waits for space in
 * the queue (handover.c). */
#define DRAIN_TICK (10 * MSEC)
#define SPACE_TICK (50 * MSEC)

/* A worker accepts at least 1/UNEVEN_MAX of its share of the connections. Checked where there were
 * ACCEPTED_MIN or more for each worker. */
#define UNEVEN_MAX 8
#define ACCEPTED_MIN 32

#define HEARTBEAT (500 * MSEC)

/* Maximum time from the moment at which all workers of a crew are ready to the stop of its predecessor. Until
 * then both crews accept. */
#define OVERLAP (100 * MSEC)

/* Time after drain-timeout at which a worker that has not ended is killed (daemon/crew.c). */
#define GRACE (2 * SEC)

/* Maximum number of connections that a loop accepts from one listener in an iteration: a single loop, and one
 * of several (accept.c). */
#define BATCH_ALONE 256
#define BATCH_SHARED 4

struct crew {
	struct list link;
	const struct model *model;
	struct conf conf;
	int number;
	uint32_t id; /* never used again */
	unsigned workers, max_connections, capacity, pipes;
	unsigned ready, running; /* workers that are ready; fibers that have not ended */
	unsigned serving;        /* connections */
	bool stopping;
	int64_t stopped_at, drain_until;
	struct process *processes[WORKERS_MAX];
	int inherited[WORKERS_MAX]; /* descriptors of each process that the supervisor opened */
	unsigned process_count;
	struct worker *worker;
	struct accept_token *token;
	struct log_limits log_limits;
	struct listener listeners[LISTENERS];
	struct file *stop, *ready_file;
	uint32_t heartbeats[WORKERS_MAX];
};

static struct {
	struct scoreboard *scoreboard;
	int slot_fd; /* its number, the same in all processes */
	struct file *slot, *wakeup, *inbox, *outbox, *listeners[LISTENERS];
	struct process *supervisor;
	struct list crews;
	const char *const *models; /* that a reload may choose */
	unsigned model_count;
	unsigned clients, clients_left; /* maximum at a time; number that has not come yet */
	unsigned sources, proxies, max_per_source, idle_timeout, drain_timeout;
	struct cidr_set proxy_networks;
	int64_t pace;
	bool large; /* more connections than a poller reports at once */
	bool often; /* reloads follow each other, and max-connections is low */
	unsigned reloads;
	bool finishing, stopped, restarting;
	int64_t limit_changed_at; /* when a crew was last started or asked to stop */
	int64_t until, finish_by; /* end of new clients; end of all clients */
	uint64_t accepted;        /* when `finish_by` was set */
	bool starting;
	uint32_t crew_ids;
	struct fiber *main;
} all;

/* --- crews ------------------------------------------------------------------------------ */

static bool is_pool(const struct crew *crew)
{
	return crew->model->run == serial_run || crew->model->run == spawn_threads_run;
}

static struct scoreboard_layout layout_of(const struct crew *crew)
{
	bool processes = crew->model->crew == MODEL_PROCESSES, spawns = crew->model->crew == MODEL_SPAWN;

	return (struct scoreboard_layout) {
		.processes = processes ? crew->workers : 1,
		.threads = processes || spawns ? 1 : crew->workers,
		.children = spawns ? crew->workers : 0,
		.capacity = processes ? 1
		          : spawns    ? crew->workers + 1
		                      : crew->capacity,
		.max_connections = crew->max_connections,
		.worker_capacity = crew->model->zero == MODEL_ZERO_PROCESSORS ? crew->capacity : 1,
		.sources = all.max_per_source > 0,
	};
}

static void process_prepare(struct crew *crew, unsigned index)
{
	struct process *process = process_make(crew, crew->model->poller == &poller_select ? 1024 : 1500);
	struct file *files[] = { crew->stop, crew->ready_file, all.wakeup,      all.inbox,
		                 all.outbox, all.listeners[0], all.listeners[1] };
	int fds[sizeof files / sizeof files[0]];

	crew->processes[index] = process;
	if (sim_below(3) == 0 && !all.large)
		process->limit = 24 + 2 * (int) crew->workers + (int) sim_below(60);
	file_ref(all.slot);
	process_open_at(process, all.slot_fd, all.slot);
	for (size_t i = 0; i < sizeof files / sizeof files[0]; i++) {
		file_ref(files[i]);
		fds[i] = process_open(process, files[i]);
	}
	crew->inherited[index] = process->used;
	for (unsigned i = 0; i < LISTENERS; i++)
		crew->listeners[i] = (struct listener) {
			.fd = fds[5 + i],
			.kind = LISTENER_STREAM,
			.addr.sa.sa_family = (sa_family_t) all.listeners[i]->listener.family,
		};
	for (unsigned i = 0; i < crew->workers; i++) {
		struct worker *worker = &crew->worker[i];

		if (crew->process_count > 1 && i != index)
			continue;
		worker->stop_fd = fds[0];
		worker->ready_fd = fds[1];
		worker->wakeup_fd = fds[2];
		worker->inbox_fd = fds[3];
		worker->outbox_fd = fds[4];
	}
}

static void worker_prepare(struct crew *crew, unsigned index)
{
	const struct scoreboard_shared *view = scoreboard_view(all.scoreboard);
	struct worker *worker = &crew->worker[index];
	unsigned number = (unsigned) crew->number, process = crew->process_count > 1 ? index : 0;

	*worker = (struct worker) {
		.conf = &crew->conf,
		.model = crew->model,
		.index = index,
		.workers = crew->workers,
		.scoreboard = all.scoreboard,
		.crew = number,
		.log_limits = &crew->log_limits,
		.slot = scoreboard_slot(all.scoreboard, number, index),
		.first_child = 1,
		.stop_request = &view->stop_request[number],
		.listeners = crew->listeners,
		.listener_count = LISTENERS,
		.capacity = crew->capacity,
		.pipes = crew->pipes,
		.heartbeat_usec = HEARTBEAT,
		.admission = {
			.shared = &view->admission,
			.own = scoreboard_admission(all.scoreboard, number, process),
			.group = number,
			.index = process,
			.allow = &crew->conf.allow,
			.deny = &crew->conf.deny,
			.max_connections = crew->max_connections,
			.max_per_source = all.max_per_source,
		},
	};
}

static void fiber_ended(struct crew *crew)
{
	if (--crew->running == 0)
		sim_at(sim.now, EVENT_OPERATOR, crew, crew->id);
}

static void worker_main(struct fiber *fiber)
{
	struct worker *worker = fiber->argument;
	int r = worker->model->run(worker);

	fiber->steady = false;
	if (r < 0)
		sim_fail("worker %u of model %s fails: %s", worker->index, worker->model->name, strerror(-r));
	if (!fiber->process->crew->stopping)
		sim_fail("worker %u of model %s ends", worker->index, worker->model->name);
	fiber_ended(fiber->process->crew);
}

void thread_began(struct crew *crew)
{
	crew->running++;
}

void thread_ended(struct crew *crew)
{
	fiber_ended(crew);
}

static void crew_limits(struct crew *crew)
{
	crew->pipes = (unsigned) sim_below(4);
	crew->max_connections = all.large ? 700 : (unsigned) sim_spread(1, all.often ? 6 : 60);
	if (crew->model->zero == MODEL_ZERO_PROCESSORS)
		crew->workers = 1 + (unsigned) sim_below(4);
	else if (crew->model->zero == MODEL_ZERO_ONE)
		crew->workers = 1;
	else
		crew->workers = (unsigned) sim_spread(1, WORKERS_MAX);
	crew->capacity = crew->max_connections + (sim_below(2) ? (unsigned) sim_below(20) : 0);
	if (crew->model->crew == MODEL_PROCESSES)
		crew->capacity = 1;
}

/* State of the fiber before identity_change(). */
struct identity {
	struct process *process;
	bool steady, preempting;
};

/* From now on the fiber makes calls of `process`: no other fiber runs, and no fault is injected. */
static struct identity identity_change(struct process *process)
{
	struct fiber *self = fiber_self();
	struct identity before = { self->process, self->steady, sim.preempting };

	self->process = process;
	self->steady = sim.preempting = false;
	return before;
}

static void identity_restore(struct identity before)
{
	fiber_self()->process = before.process;
	fiber_self()->steady = before.steady;
	sim.preempting = before.preempting;
}

static void token_make(struct crew *crew)
{
	struct identity before = identity_change(crew->processes[0]);

	if (crew->model->zero == MODEL_ZERO_PROCESSORS && crew->workers > 1 &&
	    accept_token_make(&crew->token, crew->workers) < 0)
		abort();
	identity_restore(before);
	for (unsigned i = 0; i < crew->workers; i++)
		crew->worker[i].token = crew->token;
}

static void crew_start(void)
{
	struct crew *crew = calloc(1, sizeof *crew);
	struct scoreboard_layout layout;
	struct identity before;

	if (!crew)
		abort();
	crew->id = ++all.crew_ids;
	all.limit_changed_at = sim.now;
	crew->model = model_find(all.models[sim_below(all.model_count)]);
	crew_limits(crew);
	crew->conf = (struct conf) { .idle_timeout = all.idle_timeout,
		                     .drain_timeout = all.drain_timeout,
		                     .buffer_size = (unsigned) sim_spread(512, 1 << 18),
		                     .max_per_source = all.max_per_source,
		                     .proxy_protocol = all.proxy_networks };
	layout = layout_of(crew);
	crew->process_count = layout.processes;
	crew->stop = file_make(FILE_STOP);
	crew->ready_file = file_make(FILE_READY);
	crew->ready_file->crew = crew;
	crew->worker = calloc(crew->workers, sizeof *crew->worker);
	before = identity_change(all.supervisor);
	crew->number = scoreboard_crew_open(all.scoreboard, &layout);
	if (!crew->worker || crew->number < 0)
		abort();
	for (unsigned i = 0; i < crew->process_count; i++)
		scoreboard_process_start(all.scoreboard, (unsigned) crew->number, i);
	identity_restore(before);
	for (unsigned i = 0; i < crew->workers; i++)
		if (i == 0 || crew->model->crew != MODEL_SPAWN)
			worker_prepare(crew, i);
	for (unsigned i = 0; i < crew->process_count; i++)
		process_prepare(crew, i);
	token_make(crew);
	list_append(&all.crews, &crew->link);
	sim_note(crew->model->name, crew->number, crew->workers);
	for (unsigned i = 0; i < (crew->model->crew == MODEL_SPAWN ? 1 : crew->workers); i++, crew->running++)
		(void) fiber_start(crew->processes[crew->process_count > 1 ? i : 0], worker_main,
		                   &crew->worker[i]);
	sim_at(sim.now + 3 * HEARTBEAT, EVENT_HEARTBEAT, crew, crew->id);
}

/* Where a crew at its capacity leaves connections in the queue, accepting pauses as after a failure. */
static void note_full(const struct crew *crew)
{
	if (crew->serving >= crew->capacity && all.inbox->queue.count > 0)
		sim.failed_at = sim.now;
}

void crew_serves(struct crew *crew, struct stream *stream)
{
	if (stream->crew)
		stream->crew->serving--;
	stream->crew = crew;
	if (!crew)
		return;
	crew->serving++;
	note_full(crew);
	stream->taken = sim.now;
	/* a stopping crew may take connections from a backlog or the queue, too */
	stream->stopping = crew->stopping;
	stream->due = 0;
}

static void crew_stop(struct crew *crew, enum stats_stop how)
{
	struct scoreboard_shared *shared = scoreboard_shared(all.scoreboard);
	struct stop_request *request = &shared->stop_request[crew->number];
	struct identity before = identity_change(all.supervisor);

	sim_note("stop of crew", crew->number, (int64_t) how);
	crew->stopping = true;
	crew->stopped_at = all.limit_changed_at = sim.now;
	crew->drain_until = sim.now + (int64_t) all.drain_timeout * SEC;
	atomic_store(&request->hand_until, crew->drain_until);
	atomic_store(&request->drain_until, crew->drain_until);
	admission_group_stopping(&shared->admission, (unsigned) crew->number);
	atomic_store(&request->stop, how);
	identity_restore(before);
	for (struct list *at = streams.next; at != &streams; at = at->next) {
		struct stream *stream = LIST_ENTRY(at, struct stream, link);

		if (stream->crew == crew && stream->file) {
			stream->stopping = true;
			stream->due = stream->delivered;
			/* some clients end their connection while it is drained or handed over */
			if (sim_below(8) == 0)
				stream_hurry(stream);
		}
	}
	crew->stop->stop = true;
	file_wake(crew->stop, POLLHUP);
}

static void check_equal(const char *what, uint64_t daemon, uint64_t is)
{
	if (daemon != is)
		sim_fail("%s: the daemon counts %" PRIu64 ", the simulation %" PRIu64, what, daemon, is);
}

/* The event loops of a process must accept similar numbers of clients. */
static void check_balance(const struct crew *crew)
{
	uint64_t total = 0;

	for (unsigned i = 0; i < crew->workers; i++)
		total += atomic_load(&crew->worker[i].slot->counters[STAT_ACCEPTED]);
	if (total < ACCEPTED_MIN * crew->workers)
		return;
	for (unsigned i = 0; i < crew->workers; i++) {
		uint64_t of_one = atomic_load(&crew->worker[i].slot->counters[STAT_ACCEPTED]);

		if (of_one * crew->workers * UNEVEN_MAX < total)
			sim_fail("worker %u of model %s accepted %" PRIu64 " of %" PRIu64 " connections", i,
			         crew->model->name, of_one, total);
	}
}

static void crew_free(struct crew *crew)
{
	unsigned number = (unsigned) crew->number;
	struct identity before = identity_change(crew->processes[0]);

	accept_token_free(crew->token);
	identity_restore(before);
	if (crew->token)
		check_balance(crew);
	for (unsigned i = 0; i < crew->process_count; i++)
		if (crew->processes[i]->used != crew->inherited[i])
			sim_fail("a process of model %s ends with %d descriptors too many", crew->model->name,
			         crew->processes[i]->used - crew->inherited[i]);
	before = identity_change(all.supervisor);
	for (unsigned i = 0; i < crew->process_count; i++) {
		const struct admission_process *own = scoreboard_admission(all.scoreboard, number, i);

		check_equal("slots of the process", atomic_load(&own->connections), 0);
		check_equal("its workers that wait for one", atomic_load(&own->waiting), 0);
	}
	for (unsigned i = 0; i < crew->process_count; i++) {
		uint32_t lost = scoreboard_process_end(all.scoreboard, number, i);

		if (lost > 0)
			sim_fail("a process of model %s ends and counts %" PRIu32 " live connections",
			         crew->model->name, lost);
		process_free(crew->processes[i]);
	}
	scoreboard_crew_close(all.scoreboard, number);
	identity_restore(before);
	sim_note("end of crew", crew->number, 0);
	file_unref(crew->stop);
	file_unref(crew->ready_file);
	list_remove(&crew->link);
	free(crew->worker);
	free(crew);
	fiber_wake(all.main);
}

/* --- checks ----------------------------------------------------------------------------- */

static void __attribute__((noreturn)) stream_fail(const struct stream *stream, const char *what)
{
	sim_fail("connection %u: %s; %s, sent %" PRIu64 "%s, delivered %" PRIu64 "%s, read %" PRIu64 "%s, "
	         "discarded %" PRIu64 ", echoed %" PRIu64 "%s, acknowledged %" PRIu64 ", got %" PRIu64
	         ", due %" PRIu64 ", idle for %" PRId64 ", reads %d",
	         stream->id, what,
	         stream->listener ? "in the backlog"
	         : !stream->file  ? "closed"
	         : stream->crew   ? "served"
	                          : "in the queue",
	         stream->sent, stream->fin_sent ? " FIN" : "", stream->delivered,
	         stream->fin_delivered ? " FIN" : "", stream->read, stream->fin_seen ? " FIN" : "",
	         stream->discarded, stream->echoed, stream->end_sent ? " FIN" : "", stream->acked,
	         stream->got, stream->due, sim.now - stream->active, (int) stream->reads);
}

unsigned proxies(void)
{
	return all.proxies;
}

int64_t idle_usec(void)
{
	return (int64_t) all.idle_timeout * SEC;
}

void check_idle(struct stream *stream)
{
	int64_t since = stream->active, limit;

	if (!stream->file)
		return;
	if (!stream->crew || stream->crew->stopping) {
		sim_at(sim.now + SEC, EVENT_AUDIT, stream, stream->generation);
		return;
	}
	/* a worker sorts the connections that it has received one tick later */
	limit = since + idle_usec() + TICK + sim.tick + LATE;
	if (stream->taken > stream->since && limit < stream->taken + idle_usec() + 2 * TICK + sim.tick + LATE)
		limit += TICK;
	if (limit < stream->taken + TICK + sim.tick + LATE)
		limit = stream->taken + TICK + sim.tick + LATE;
	if (sim.now > limit)
		stream_fail(stream, "it is idle for too long");
	sim_at(limit + 1, EVENT_AUDIT, stream, stream->generation);
}

static unsigned connections_of_source(const struct stream *stream)
{
	unsigned count = 0;

	for (struct list *at = streams.next; at != &streams; at = at->next) {
		const struct stream *other = LIST_ENTRY(at, struct stream, link);

		count += other->file && other->source == stream->source && other->family == stream->family;
	}
	return count;
}

/* Called before a connection is closed. Where its source has more than max-per-source connections, the daemon
 * may have refused any of them, and may close that one after others have ended. */
void note_source(const struct stream *stream)
{
	if (all.max_per_source == 0 || connections_of_source(stream) <= all.max_per_source)
		return;
	for (struct list *at = streams.next; at != &streams; at = at->next) {
		struct stream *other = LIST_ENTRY(at, struct stream, link);

		other->crowded |= other->source == stream->source && other->family == stream->family;
	}
}

static void check_drained(const struct stream *stream)
{
	if (stream->read - stream->discarded < stream->due)
		stream_fail(stream, "it was drained, but bytes that had arrived were not read");
	if (stream->echoed < stream_payload(stream, stream->read - stream->discarded))
		stream_fail(stream, "it was drained, but bytes that were read were not echoed");
	if (stream->family != AF_UNIX && stream->acked < stream->echoed && !stream->fin_seen &&
	    !stream->reset)
		stream_fail(stream, "it was drained and closed before its peer had acknowledged all");
}

enum stream_reason check_close(struct stream *stream)
{
	const struct crew *crew = stream->crew;
	bool idle = idle_usec() > 0 && sim.now - stream->active >= idle_usec();

	if (crew && crew->stopping && sim.now >= crew->drain_until)
		return REASON_CUT;
	/* a worker may end a connection as idle before it sees the stop request */
	if (crew && idle && (!crew->stopping || sim.now < crew->stopped_at + SLACK))
		return REASON_IDLE;
	if (stream->bad || (stream->fin_seen && stream->read < stream->header_size))
		return REASON_PROXY;
	if (crew && stream->crowded && stream->echoed == 0 && sim.now - stream->active < SLACK &&
	    (stream->proxied ? stream_has_header(stream) : stream->read == 0) && stream->family != AF_UNIX)
		return REASON_REFUSED;
	if (sim.excuses > 0) {
		sim.excuses--;
		return REASON_EXCUSED;
	}
	if (crew && crew->stopping) {
		check_drained(stream);
		return REASON_DRAIN;
	}
	stream_fail(stream, "it was closed without a reason");
}

/* Whether the daemon can do something for the connection now. */
static bool is_stalled(const struct stream *stream)
{
	uint64_t owed = stream_payload(stream, stream->read - stream->discarded) - stream->echoed;

	if (!stream->file || !stream->crew || stream->crew->stopping || stream->taken == sim.now)
		return false;
	if (owed == 0)
		return stream->reset || stream->delivered > stream->read ||
		       (stream->fin_delivered && !stream->fin_seen);
	return stream_ready(stream) & POLLOUT;
}

static void check_streams(void)
{
	if (sim.now <= sim.failed_at + PAUSE + sim.tick + 10 * MSEC)
		return;
	for (struct list *at = streams.next; at != &streams; at = at->next)
		if (is_stalled(LIST_ENTRY(at, struct stream, link)))
			stream_fail(LIST_ENTRY(at, struct stream, link), "the daemon does nothing for it");
}

/* The lowest max-connections of the crews that accept. */
static unsigned max_connections(void)
{
	unsigned max = UINT_MAX;

	for (struct list *at = all.crews.next; at != &all.crews; at = at->next) {
		const struct crew *crew = LIST_ENTRY(at, const struct crew, link);

		if (!crew->stopping && crew->max_connections < max)
			max = crew->max_connections;
	}
	return max;
}

void check_limit(const struct crew *crew)
{
	unsigned max = crew->max_connections;

	/* the slot may have been acquired shortly before the common limit changed */
	if (sim.now > all.limit_changed_at + SLACK && max_connections() < max)
		max = max_connections();
	if (truth.live > max)
		sim_fail("model %s accepts a client, and there are %" PRIu32 " connections, of at most %u",
		         crew->model->name, truth.live, max);
}

/* Whether the crew could take a connection from a backlog now. */
static bool has_capacity(const struct crew *crew)
{
	note_full(crew);
	if (crew->stopping || crew->ready == 0 || sim.now <= sim.failed_at + PAUSE + sim.tick + 10 * MSEC)
		return false;
	if (truth.live >= max_connections())
		return false;
	return !is_pool(crew) || crew->serving < crew->workers;
}

/* A stopping crew ends its connections at drain-timeout. */
static void check_drain(const struct crew *crew)
{
	int64_t limit = crew->drain_until + DRAIN_TICK + sim.tick + LATE;

	if (sim.queue_full_at > crew->drain_until - SPACE_TICK)
		limit += SPACE_TICK;
	if (crew->stopping && crew->serving > 0 && sim.now > limit)
		sim_fail("model %s serves %u connections %" PRId64 " us after drain-timeout",
		         crew->model->name, crew->serving, sim.now - crew->drain_until);
}

void check_quiet(int64_t next)
{
	(void) next;
	if (sim_below(4) == 0)
		check_streams();
	for (struct list *at = all.crews.next; at != &all.crews; at = at->next) {
		const struct crew *crew = LIST_ENTRY(at, const struct crew, link);

		check_drain(crew);
		if (!has_capacity(crew))
			continue;
		if (all.inbox->queue.count > 0)
			sim_fail("%u connections wait in the queue, and model %s serves %u with %u workers",
			         all.inbox->queue.count, crew->model->name, crew->serving, crew->workers);
		for (unsigned i = 0; i < LISTENERS; i++)
			if (all.listeners[i]->listener.waiting > 0)
				sim_fail("%u clients wait in a backlog, and model %s serves %u with %u "
				         "workers, of at most %u; all together %" PRIu32,
				         all.listeners[i]->listener.waiting, crew->model->name, crew->serving,
				         crew->workers, max_connections(), truth.live);
	}
}

static void check_heartbeats(struct crew *crew)
{
	unsigned workers = crew->model->crew == MODEL_SPAWN ? 1 : crew->workers;

	if (crew->stopping && sim.now > crew->drain_until + GRACE)
		sim_fail("model %s has not ended within drain-timeout", crew->model->name);
	for (unsigned i = 0; i < workers; i++) {
		uint32_t now = atomic_load(&crew->worker[i].slot->heartbeats);

		if (now == crew->heartbeats[i] && crew->ready == workers && !crew->stopping)
			sim_fail("worker %u of model %s has no heartbeat", i, crew->model->name);
		crew->heartbeats[i] = now;
	}
	sim_at(sim.now + 3 * HEARTBEAT, EVENT_HEARTBEAT, crew, crew->id);
}

void check_batch(const struct crew *crew, unsigned accepted)
{
	unsigned max = LISTENERS * (crew->token ? BATCH_SHARED : BATCH_ALONE);

	if (accepted > max)
		sim_fail("model %s accepts %u connections in one iteration", crew->model->name, accepted);
}

static void check_counters(void)
{
	const struct admission_shared *shared = &scoreboard_view(all.scoreboard)->admission;
	struct stats_total total;
	const uint64_t *c = total.counters;
	uint64_t refused, ended, uncounted;

	scoreboard_total(all.scoreboard, &total);
	for (unsigned i = 0; i <= STAT_IDLE_WAKEUPS; i++)
		sim_note(stats_labels(i)[0] ? stats_labels(i) : stats_name(i), (int64_t) c[i], 0);
	refused = c[STAT_ENDED_LIMIT] + c[STAT_ENDED_DENIED];
	ended = c[STAT_ENDED_EOF] + c[STAT_ENDED_RESET] + c[STAT_ENDED_IDLE] + c[STAT_ENDED_DRAIN] +
	        c[STAT_ENDED_ERROR] + c[STAT_ENDED_PROXY];
	/* a connection without a complete PROXY header is counted as handed over and as accepted only later,
	 * so not at all where it is lost in the queue */
	uncounted = c[STAT_TAKEN_OVER] + c[STAT_DAMAGED] - c[STAT_HANDED_OVER];
	if (uncounted > (all.proxies > 0 ? c[STAT_DAMAGED] : 0))
		sim_fail("%" PRIu64 " connections were handed over, %" PRIu64 " taken over, %" PRIu64
		         " damaged",
		         c[STAT_HANDED_OVER], c[STAT_TAKEN_OVER], c[STAT_DAMAGED]);
	check_equal("accepted", c[STAT_ACCEPTED] + refused + uncounted, truth.accepted);
	check_equal("ended", ended + refused + c[STAT_DAMAGED], truth.accepted);
	check_equal("received bytes", c[STAT_RECEIVED], truth.received);
	check_equal("echoed bytes", c[STAT_ECHOED], truth.echoed);
	check_equal("idle wake-ups", c[STAT_IDLE_WAKEUPS], 0);
	check_equal("live", total.live, 0);
	check_equal("open", truth.live, 0);
	check_equal("slots", admission_slots_taken(shared), 0);
	check_equal("waiting", atomic_load(&shared->supervisor.waiting), 0);
}

/* --- the operator ----------------------------------------------------------------------- */

static bool crew_is_ready(const struct crew *crew)
{
	return crew->ready >= (crew->model->crew == MODEL_SPAWN ? 1 : crew->workers);
}

void ready_written(struct crew *crew)
{
	crew->ready++;
	if (!crew_is_ready(crew))
		return;
	sim_at(sim.now + (int64_t) sim_spread(0, OVERLAP), EVENT_OPERATOR, crew, crew->id);
}

/* All workers of the crew are ready: the reload is complete, and its predecessor stops. */
static void reload_done(const struct crew *crew)
{
	all.starting = false;
	for (struct list *at = all.crews.next; at != &all.crews; at = at->next) {
		struct crew *other = LIST_ENTRY(at, struct crew, link);

		if (other != crew && !other->stopping)
			crew_stop(other, STOP_HAND_OVER);
	}
}

static void arrive(void)
{
	unsigned open = 0;

	for (struct list *at = streams.next; at != &streams; at = at->next)
		open++;
	if (all.stopped || all.clients_left == 0)
		return;
	if (open < all.clients) {
		(void) stream_connect(all.listeners[sim_below(8) == 0], all.sources, all.pace);
		all.clients_left--;
		sim.events++;
	}
	sim_at(sim.now + (int64_t) sim_below((uint64_t) all.pace / 4 + 2) +
	               (open < all.clients ? 0 : (int64_t) sim_below(100 * MSEC)),
	       EVENT_ARRIVE, NULL, 0);
}

/* A client that has not received the end of its connection; NULL: there is none. */
static const struct stream *waiting_client(void)
{
	for (struct list *at = streams.next; at != &streams; at = at->next) {
		const struct stream *stream = LIST_ENTRY(at, struct stream, link);

		if (!stream->vanished && !stream->client_closed)
			return stream;
	}
	return NULL;
}

static void stop_all(void)
{
	all.stopped = true;
	for (struct list *at = all.crews.next; at != &all.crews; at = at->next)
		if (!LIST_ENTRY(at, struct crew, link)->stopping)
			crew_stop(LIST_ENTRY(at, struct crew, link), STOP_DRAIN);
}

/* No more clients connect: stop under load, or let all connections end first. */
static void finish(void)
{
	/* without a successor no worker would receive the connections in the queue */
	bool may_stop = all.inbox->queue.count == 0;

	/* a worker may serve many clients one after the other: each may take the same time */
	if (all.finishing && truth.accepted != all.accepted) {
		all.accepted = truth.accepted;
		all.finish_by = sim.now + 7200 * SEC;
	}

	if (!all.finishing && may_stop && sim_below(2) == 0) {
		stop_all();
	} else if (!all.finishing) {
		all.finishing = true;
		all.finish_by = sim.now + 7200 * SEC;
		streams_finish();
	} else if (!waiting_client() && may_stop) {
		stop_all();
	} else if (sim.now > all.finish_by) {
		if (waiting_client())
			stream_fail(waiting_client(), "the client waits for ever");
		sim_fail("%u connections stay in the queue", all.inbox->queue.count);
	}
}

/* Reload or restart. With a restart the successor starts after the predecessor has ended. */
static void replace_crew(void)
{
	all.reloads--;
	sim.events++;
	if (sim_below(3) > 0) {
		all.starting = true;
		crew_start();
		return;
	}
	all.restarting = true;
	crew_stop(LIST_ENTRY(all.crews.next, struct crew, link), sim_below(2) ? STOP_FLUSH : STOP_HAND_OVER);
}

static void operate(void)
{
	if (sim.now > all.until)
		all.clients_left = 0;
	/* there is one crew, and it is ready */
	if (!all.starting && !all.restarting && all.crews.next->next == &all.crews) {
		if (all.clients_left == 0 && !all.stopped)
			finish();
		else if (all.clients_left > 0 && all.reloads > 0)
			replace_crew();
	}
	if (!all.stopped)
		sim_at(sim.now + (all.finishing
		                          ? SEC
		                          : (int64_t) sim_spread(1000, all.often ? SEC / 10 : 20 * SEC)),
		       EVENT_OPERATOR, NULL, 0);
}

static void crew_ended(struct crew *crew)
{
	crew_free(crew);
	if (all.restarting && list_empty(&all.crews)) {
		all.restarting = false;
		all.starting = true;
		crew_start();
	}
}

void operator_event(enum event_kind kind, void *object, uint32_t generation)
{
	struct crew *crew = NULL;

	for (struct list *at = all.crews.next; at != &all.crews && object; at = at->next)
		if (LIST_ENTRY(at, struct crew, link)->id == generation)
			crew = object;
	if (kind == EVENT_ARRIVE)
		arrive();
	else if (kind == EVENT_HEARTBEAT && crew)
		check_heartbeats(crew);
	else if (kind == EVENT_OPERATOR && crew && crew->running > 0)
		reload_done(crew);
	else if (kind == EVENT_OPERATOR && crew)
		crew_ended(crew);
	else if (kind == EVENT_OPERATOR && !object)
		operate();
}

/* --- episodes --------------------------------------------------------------------------- */

static void files_make(void)
{
	static const unsigned families[LISTENERS] = { AF_INET, AF_UNIX };

	all.slot = file_make(FILE_EVENT);
	all.supervisor = process_make(NULL, all.slot_fd + 1);
	process_open_at(all.supervisor, all.slot_fd, all.slot);
	file_ref(all.slot);
	all.wakeup = file_make(FILE_EVENT);
	all.inbox = file_make(FILE_QUEUE);
	all.outbox = file_make(FILE_QUEUE);
	all.inbox->queue.peer = all.outbox;
	all.outbox->queue.peer = all.inbox;
	all.inbox->queue.limit = (unsigned) sim_spread(1, QUEUE_MAX);
	for (unsigned i = 0; i < LISTENERS; i++) {
		all.listeners[i] = file_make(FILE_LISTENER);
		all.listeners[i]->listener.family = families[i];
		all.listeners[i]->listener.limit = 1 + (unsigned) sim_below(sim_below(8) ? 100 : 1000);
	}
}

static void files_free(void)
{
	for (unsigned i = 0; i < LISTENERS; i++) {
		for (struct list *at = streams.next; at != &streams; at = at->next)
			if (LIST_ENTRY(at, struct stream, link)->listener == all.listeners[i])
				LIST_ENTRY(at, struct stream, link)->listener = NULL;
		file_unref(all.listeners[i]);
	}
	file_unref(all.inbox);
	file_unref(all.outbox);
	file_unref(all.wakeup);
	file_unref(all.slot);
	process_free(all.supervisor);
}

static void choose_faults(void)
{
	static const unsigned likely[] = { 0, 0, 0, 100, 2000, 30000 };

	for (unsigned i = 0; i < FAULTS; i++)
		sim.fault[i] = likely[sim_below(sizeof likely / sizeof likely[0])];
	if (sim_below(3) == 0)
		memset(sim.fault, 0, sizeof sim.fault);
}

/* The addresses of the proxies, whose connections begin with a PROXY protocol header. */
static void proxy_networks_make(struct cidr_set *set)
{
	struct cidr *networks = calloc(all.proxies + 1, sizeof *networks);
	char text[32];
	const char *why;

	if (!networks)
		abort();
	for (unsigned i = 0; i < all.proxies; i++) {
		snprintf(text, sizeof text, "10.0.0.%u", i + 1);
		if (cidr_parse(&networks[i], text, &why) < 0)
			abort();
	}
	if (cidr_set_make(set, networks, all.proxies) < 0)
		abort();
	free(networks);
}

static void episode(uint64_t seed)
{
	sim_begin(seed);
	sim.tick = (int64_t) (1 << sim_below(4)) * MSEC;
	sim.call_usec = (unsigned) sim_below(4);
	sim.preempt = (unsigned) sim_spread(100, 300000);
	sim.access = sim_below(2) ? 0 : (unsigned) sim_spread(100, 100000);
	sim.late = sim_below(3) == 0 ? 0 : (unsigned) sim_spread(1, 500000);
	choose_faults();
	streams_begin();
	list_init(&all.crews);
	if (scoreboard_make(&all.scoreboard, 1000) < 0)
		abort();
	all.slot_fd = admission_slot_fd(&scoreboard_view(all.scoreboard)->admission);
	files_make();
	all.clients = (unsigned) sim_spread(1, 120);
	all.clients_left = (unsigned) sim_spread(1, 600);
	all.large = sim_below(20) == 0;
	if (all.large)
		all.clients = all.clients_left = 300 + (unsigned) sim_below(500);
	all.often = !all.large && sim_below(4) == 0;
	all.sources = (unsigned) sim_spread(1, 50);
	all.proxies = sim_below(4) == 0 ? 1 + (unsigned) sim_below(all.sources) : 0;
	all.max_per_source = sim_below(3) == 0 ? (unsigned) sim_spread(1, 20) : 0;
	all.idle_timeout = sim_below(4) == 0 ? 0 : (unsigned) sim_spread(1, 600);
	all.drain_timeout = (unsigned) sim_spread(1, 30);
	all.pace = (int64_t) sim_spread(10, 10 * SEC);
	all.reloads = all.often ? 40 : sim_below(2) ? (unsigned) sim_spread(1, CREWS_MAX) : 0;
	all.finishing = all.stopped = false;
	all.starting = true;
	all.until = sim.now + (int64_t) sim_spread(1000, 2000 * SEC);
	all.restarting = false;
	all.main = fiber_self();
	proxy_networks_make(&all.proxy_networks);
	sim.running = sim.preempting = true;
	crew_start();
	sim_at(sim.now, EVENT_ARRIVE, NULL, 0);
	sim_at(sim.now + SEC, EVENT_OPERATOR, NULL, 0);
	while (!all.stopped || !list_empty(&all.crews))
		(void) fiber_wait(INT64_MAX);
	sim.running = false;
	check_counters();
	sim_end();
	streams_end();
	files_free();
	scoreboard_free(all.scoreboard);
	cidr_set_clear(&all.proxy_networks);
	sim.now = 0;
}

/* --- tests ------------------------------------------------------------------------------ */

static const char *const tests[][8] = {
	{ "select" },  { "poll" },
	{ "epoll" },   { "iterative" },
	{ "prefork" }, { "prethread" },
	{ "thread" },  { "select", "poll", "epoll", "iterative", "prefork", "prethread", "thread" },
};

#define TESTS (sizeof tests / sizeof tests[0])

static uint64_t number_of(const char *name, uint64_t otherwise)
{
	const char *text = getenv(name);

	return text && *text ? strtoull(text, NULL, 10) : otherwise;
}

/* Run episodes with the seeds from `seed` on, until there were `events` events. */
static void run(unsigned test, uint64_t seed, uint64_t events)
{
	uint64_t before = sim.events, episodes = 0;

	all.models = tests[test];
	for (all.model_count = 0; all.model_count < 8 && tests[test][all.model_count];)
		all.model_count++;
	while (episodes == 0 || sim.events - before < events)
		episode(seed + episodes++);
	printf("ok %u - %s # %" PRIu64 " events, seeds %" PRIu64 " to %" PRIu64 "\n", test + 1,
	       all.model_count > 1 ? "reloads between all" : tests[test][0], sim.events - before, seed,
	       seed + episodes - 1);
	fflush(stdout);
}

int main(void)
{
	struct timespec now;
	uint64_t seed, events = number_of("SIM_EVENTS", EVENTS);

	clock_gettime(CLOCK_REALTIME, &now);
	seed = number_of("SIM_SEED", (uint64_t) now.tv_sec * 1000 + (uint64_t) now.tv_nsec / 1000000);
	printf("1..%zu\n# SIM_SEED=%" PRIu64 " SIM_EVENTS=%" PRIu64 "\n", TESTS, seed, events);
	for (unsigned i = 0; i < TESTS; i++)
		if (number_of("SIM_TEST", i + 1) == i + 1)
			run(i, seed, events);
	printf("# %" PRIu64 " events, %" PRIu64 " time-outs, %" PRIu64 " system calls, %" PRIu64
	       " changes of the running fiber\n",
	       sim.events, sim.timeouts, sim.calls, sim.switches);
	return 0;
}
