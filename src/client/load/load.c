/* SPDX-License-Identifier: ISC */
/* load.c - see load.h; the coordinator of the workers */
#include <config.h>

#include "client/load/load.h"

#include <errno.h>
#include <math.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include "client/interrupt.h"
#include "client/load/connect.h"
#include "client/load/plot.h"
#include "client/load/report.h"
#include "client/load/worker.h"
#include "client/numbers.h"

#define LIVE_INTERVAL (NSEC_PER_SEC / 2)
#define BUFFER_MIN 64
#define BUFFER_MAX PATTERN_RUN
#define BUFFERS_TOTAL \
	(UINT64_C(256) << 20) /* bytes for all connections, except that each has BUFFER_SHARE_MIN */
#define BUFFER_SHARE_MIN 4096
#define STREAM_WINDOW (UINT64_C(64) << 20)
/* The client is the limit if a thread used, or waited for, a processor for that share of the time. */
#define LIMIT_SHARE 0.95
#define DESCRIPTORS_SPARE 32
#define OUTSTANDING_MAX 16777216.0      /* messages of all connections, over UDP in an open loop */
#define DRAIN_MAX (3600 * NSEC_PER_SEC) /* without a timeout */

/* Sums of the counters of all workers. */
struct load_sums {
	uint64_t echoes, bytes, received, errors, lost, mismatches, connections;
};

struct coordinator {
	struct load_run run;
	struct load_worker *workers;
	unsigned count, running;
	int *idle;
	unsigned idle_open;
	bool interrupted;
	bool live, live_shown; /* the status line on a terminal */
	uint64_t live_next, live_received, live_at;

	/* Interval reports. `next` is the end of the current interval; NSEC_NEVER: there are no more. */
	struct {
		uint64_t start, next;
		unsigned requested;        /* number of times that the workers were asked */
		bool pending;              /* not all workers have answered */
		struct load_sums at_start; /* the counters at its start */
		struct load_sums at_end;
	} interval;
};

/* --- preparing ---------------------------------------------------------------------------------------- */

/* The functions return OUTCOME_OK to continue. */

static enum outcome descriptors_raise(const struct client_options *options)
{
	rlim_t needed = (rlim_t) options->connections + options->idle + 4 * options->threads
		      + DESCRIPTORS_SPARE;
	struct rlimit limit, more = { needed, needed };

	if (getrlimit(RLIMIT_NOFILE, &limit) < 0)
		return client_error(OUTCOME_USAGE, "RLIMIT_NOFILE: %s", strerror(errno));
	if (limit.rlim_max >= needed)
		more = (struct rlimit) { limit.rlim_max, limit.rlim_max };
	if (setrlimit(RLIMIT_NOFILE, &more) == 0)
		return OUTCOME_OK;
	return client_error(OUTCOME_USAGE,
			    "%u connections need %llu descriptors, and only %llu are allowed (ulimit -Hn)",
			    options->connections + options->idle, (unsigned long long) needed,
			    (unsigned long long) limit.rlim_max);
}

static uint64_t clamp(uint64_t value, uint64_t min, uint64_t max)
{
	return value < min ? min : value > max ? max : value;
}

static size_t buffer_size(const struct client_options *options)
{
	uint64_t outstanding = options->mode == LOAD_STREAM ? BUFFER_MAX : options->size * options->depth;
	uint64_t share = clamp(BUFFERS_TOTAL / options->connections, BUFFER_SHARE_MIN, BUFFER_MAX);

	return (size_t) clamp(outstanding, BUFFER_MIN, share);
}

/* Set run->depth. Over UDP in an open loop no message waits for the answers to earlier ones, except with
 * -P: allow as many as can be due within the timeout, and a quarter more because lost ones are noticed
 * late. */
static enum outcome depth_choose(struct load_run *run)
{
	const struct client_options *options = run->options;
	double outstanding;

	run->depth = options->depth;
	if (options->depth > 0 || options->mode == LOAD_STREAM)
		return OUTCOME_OK;
	if (options->timeout == NSEC_NEVER)
		return client_error(OUTCOME_USAGE,
				    "-W 0: with -u and --rate a lost message is recognised by the timeout");
	outstanding = (double) options->rate * nsec_to_seconds(options->timeout) * 1.25;
	if (outstanding > OUTSTANDING_MAX)
		return client_error(OUTCOME_USAGE,
				    "--rate: %.0f messages could be outstanding, at most %.0f are possible: "
				    "use a shorter -W",
				    outstanding, OUTSTANDING_MAX);
	run->depth = (uint32_t) (outstanding / options->connections) + 2;
	return OUTCOME_OK;
}

/* Set run->engine. `note` (of `size` bytes) receives the reason if it is not the preferred one, else "". */
static enum outcome engine_choose(struct load_run *run, char *note, size_t size)
{
	const struct client_options *options = run->options;
	char why[160] = "";

	note[0] = '\0';
	run->engine = options->udp ? &engine_udp : &engine_epoll;
	if (options->udp || options->engine == ENGINE_EPOLL)
		return OUTCOME_OK;
	if (engine_uring.probe(why, sizeof why) == 0) {
		run->engine = &engine_uring;
		return OUTCOME_OK;
	}
	if (options->engine == ENGINE_URING)
		return client_error(OUTCOME_USAGE, "--engine io_uring: %s; use --engine epoll", why);
	snprintf(note, size, "no io_uring: %s", why);
	return OUTCOME_OK;
}

static enum outcome idle_open(struct coordinator *coordinator)
{
	const struct client_options *options = coordinator->run.options;
	const char *what;
	int error;

	if (options->idle == 0)
		return OUTCOME_OK;
	coordinator->idle = malloc(options->idle * sizeof *coordinator->idle);
	if (!coordinator->idle)
		return client_error(OUTCOME_USAGE, "out of memory for idle connections");
	for (unsigned i = 0; i < options->idle; i++)
		coordinator->idle[i] = -1;
	coordinator->idle_open = connect_many(coordinator->idle, options->idle, &options->sockopts,
					      &coordinator->run.to, -1, &error, &what);
	if (coordinator->idle_open == options->idle)
		return OUTCOME_OK;
	return client_error(OUTCOME_UNREACHABLE, "only %u of %u idle connections could be opened: %s%s: %s",
			    coordinator->idle_open, options->idle, what ? "cannot " : "",
			    what ? what : "connect", strerror(error));
}

/* The number of idle connections that the server has closed, or sent data on. */
static unsigned idle_lost(const struct coordinator *coordinator)
{
	unsigned lost = 0;

	for (unsigned i = 0; i < coordinator->idle_open; i++) {
		char byte;

		lost += recv(coordinator->idle[i], &byte, 1, MSG_DONTWAIT) >= 0 || errno != EAGAIN;
	}
	return lost;
}

/* `first_fd` is the connection with which the address was found; it is used for the first connection. */
static enum outcome workers_start(struct coordinator *coordinator, int first_fd)
{
	const struct client_options *options = coordinator->run.options;
	unsigned first = 0;
	int r;

	coordinator->workers = calloc(options->threads, sizeof *coordinator->workers);
	if (!coordinator->workers) {
		close(first_fd);
		return client_error(OUTCOME_USAGE, "out of memory for threads");
	}
	for (unsigned i = 0; i < options->threads; i++) {
		struct load_worker *worker = &coordinator->workers[i];
		unsigned count = options->connections / options->threads
			       + (i < options->connections % options->threads);

		r = load_worker_init(worker, &coordinator->run, first, count);
		coordinator->count++;
		if (i == 0 && r == 0 && options->mode != LOAD_CONNECT)
			worker->conns[0].fd = first_fd;
		else if (i == 0)
			close(first_fd);
		if (r < 0)
			return client_error(OUTCOME_USAGE, "cannot prepare connections: %s", strerror(-r));
		first += count;
		r = pthread_create(&worker->thread, NULL, load_worker_thread, worker);
		if (r != 0)
			return client_error(OUTCOME_USAGE, "cannot start a thread: %s", strerror(r));
		coordinator->running++;
	}
	return OUTCOME_OK;
}

/* --- running ------------------------------------------------------------------------------------------ */

static void workers_wake(struct coordinator *coordinator)
{
	uint64_t one = 1;

	for (unsigned i = 0; i < coordinator->running; i++)
		if (write(coordinator->workers[i].wake, &one, sizeof one) < 0)
			return; /* impossible: the counter does not overflow */
}

/* Wait for a notification of a worker, for an interrupt, or until `until`. */
static void event_wait(struct coordinator *coordinator, uint64_t until)
{
	struct pollfd fd = { .fd = coordinator->run.report, .events = POLLIN };
	struct timespec wait;
	uint64_t events;

	if (ppoll(&fd, 1, nsec_timespec(&wait, nsec_now(), until), interrupt_mask()) > 0
	    && read(coordinator->run.report, &events, sizeof events) < 0)
		return;
}

static struct load_sums counters_sum(const struct coordinator *coordinator)
{
	struct load_sums sums = { 0 };

	for (unsigned i = 0; i < coordinator->running; i++) {
		const struct load_counters *counters = &coordinator->workers[i].counters;

		sums.echoes += counter_get(&counters->echoes);
		sums.bytes += counter_get(&counters->bytes);
		sums.received += counter_get(&counters->received);
		sums.errors += counter_get(&counters->errors);
		sums.lost += counter_get(&counters->lost);
		sums.mismatches += counter_get(&counters->mismatches);
		sums.connections += counter_get(&counters->connections);
	}
	/* Streams do not count messages. */
	if (coordinator->run.options->mode == LOAD_STREAM)
		sums.echoes = sums.bytes / coordinator->run.options->size;
	return sums;
}

/* The status line, without a newline. */
static void live_print(struct coordinator *coordinator, uint64_t now)
{
	const struct load_run *run = &coordinator->run;
	uint64_t begin = atomic_load(&run->begin), from = atomic_load(&run->measure_from), wrong;
	struct load_sums sums = counters_sum(coordinator);
	double seconds = nsec_to_seconds(now - coordinator->live_at), speed;
	char rate[NUMBER_TEXT_MAX];

	speed = seconds > 0 ? (double) (sums.received - coordinator->live_received) / seconds : 0;
	fprintf(stderr, "\r%5.1f s %s  %s echoes/s  %.1f MB/s",
		nsec_to_seconds(now - (now < from ? begin : from)),
		now < from ? "warm-up" : "of the measurement",
		number_group(rate, (uint64_t) (speed / (double) run->options->size)), speed / 1e6);
	wrong = sums.errors + sums.mismatches + sums.lost;
	if (wrong > 0)
		fprintf(stderr, "  %llu errors", (unsigned long long) wrong);
	fputs("\033[K", stderr);
	fflush(stderr);
	coordinator->live_shown = true;
	coordinator->live_at = now;
	coordinator->live_received = sums.received;
}

/* After Ctrl-\: the measurement so far. */
static void interim_print(struct coordinator *coordinator)
{
	uint64_t now = nsec_now(), from = atomic_load(&coordinator->run.measure_from);
	uint64_t to = nsec_earlier(now, atomic_load(&coordinator->run.measure_to));
	struct load_sums sums = counters_sum(coordinator);
	double seconds = to > from ? nsec_to_seconds(to - from) : 0;
	char count[NUMBER_TEXT_MAX], rate[NUMBER_TEXT_MAX];

	fprintf(stderr,
		"%s%.1f s measured: %s echoes, %s/s, %.2f MB/s; %llu connections failed, %llu messages lost, "
		"%llu differing\n",
		coordinator->live_shown ? "\r\033[K" : "", seconds, number_group(count, sums.echoes),
		number_group(rate, seconds > 0 ? (uint64_t) ((double) sums.echoes / seconds + 0.5) : 0),
		seconds > 0 ? (double) sums.bytes / seconds / 1e6 : 0, (unsigned long long) sums.errors,
		(unsigned long long) sums.lost, (unsigned long long) sums.mismatches);
}

/* --- intervals ---------------------------------------------------------------------------------------- */

static void interval_begin(struct coordinator *coordinator, uint64_t start)
{
	uint64_t end = atomic_load(&coordinator->run.measure_to);

	coordinator->interval.start = start;
	coordinator->interval.next = NSEC_NEVER;
	if (start < end)
		coordinator->interval.next = nsec_earlier(start + coordinator->run.options->report, end);
	coordinator->interval.at_start = counters_sum(coordinator);
}

/* The interval is over: ask the workers for their latencies. */
static void interval_request(struct coordinator *coordinator)
{
	coordinator->interval.at_end = counters_sum(coordinator);
	coordinator->interval.requested++;
	coordinator->interval.pending = true;
	atomic_store(&coordinator->run.interval, coordinator->interval.requested);
	workers_wake(coordinator);
}

/* Whether all workers have answered. */
static bool interval_collected(const struct coordinator *coordinator)
{
	for (unsigned i = 0; i < coordinator->running; i++)
		if (atomic_load(&coordinator->workers[i].interval_seen) < coordinator->interval.requested)
			return false;
	return true;
}

static void interval_print(struct coordinator *coordinator)
{
	const struct load_sums *start = &coordinator->interval.at_start, *end = &coordinator->interval.at_end;
	struct load_run *run = &coordinator->run;
	uint64_t from = atomic_load(&run->measure_from);
	struct load_interval interval = {
		.start = nsec_to_seconds(coordinator->interval.start - from),
		.end = nsec_to_seconds(coordinator->interval.next - from),
		.echoes = end->echoes - start->echoes,
		.bytes = end->bytes - start->bytes,
		.errors = end->errors - start->errors,
		.lost = end->lost - start->lost,
		.mismatches = end->mismatches - start->mismatches,
		.connections = end->connections - start->connections,
		.latency = &run->latency,
	};

	pthread_mutex_lock(&run->lock);
	load_report_interval(run->options, &interval);
	histogram_clear(&run->latency);
	pthread_mutex_unlock(&run->lock);
	coordinator->interval.pending = false;
}

/* All workers have finished: report the last interval, if it has not been. */
static void interval_end(struct coordinator *coordinator)
{
	uint64_t end = atomic_load(&coordinator->run.measure_to);

	if (coordinator->interval.pending) {
		interval_print(coordinator);
	} else if (coordinator->interval.next != NSEC_NEVER && coordinator->interval.start < end) {
		coordinator->interval.next = end;
		coordinator->interval.at_end = counters_sum(coordinator);
		interval_print(coordinator);
	}
}

/* Report the interval if it is over. Returns when to call again; NSEC_NEVER: when a worker notifies. */
static uint64_t interval_advance(struct coordinator *coordinator, uint64_t now)
{
	if (coordinator->run.options->report == 0 || now < atomic_load(&coordinator->run.measure_from))
		return coordinator->run.options->report == 0 ? NSEC_NEVER
							     : atomic_load(&coordinator->run.measure_from);
	if (coordinator->interval.start == 0) {
		interval_begin(coordinator, atomic_load(&coordinator->run.measure_from));
		/* They are counted from the start of the measurement, which is noticed here a little
		 * later. */
		coordinator->interval.at_start.echoes = coordinator->interval.at_start.bytes = 0;
	}
	if (!coordinator->interval.pending && now >= coordinator->interval.next)
		interval_request(coordinator);
	if (coordinator->interval.pending && interval_collected(coordinator)) {
		interval_print(coordinator);
		interval_begin(coordinator, coordinator->interval.next);
		coordinator->interval.at_start = coordinator->interval.at_end;
	}
	return coordinator->interval.pending ? NSEC_NEVER : coordinator->interval.next;
}

/* Wait until all workers have opened their connections. */
static enum outcome opening_wait(struct coordinator *coordinator)
{
	while (atomic_load(&coordinator->run.opened) < coordinator->count) {
		event_wait(coordinator, NSEC_NEVER);
		if (interrupt_seen())
			return client_error(OUTCOME_UNREACHABLE,
					    "interrupted before all connections were opened");
	}
	for (unsigned i = 0; i < coordinator->count; i++)
		if (coordinator->workers[i].fault[0] != '\0')
			return client_error(OUTCOME_UNREACHABLE, "%s: %s", coordinator->run.target->name,
					    coordinator->workers[i].fault);
	return OUTCOME_OK;
}

static void run_begin(struct coordinator *coordinator)
{
	struct load_run *run = &coordinator->run;
	const struct client_options *options = run->options;
	uint64_t now = nsec_now(), from = now + options->ramp + options->warmup;

	atomic_store(&run->begin, now);
	atomic_store(&run->measure_from, from);
	atomic_store(&run->measure_to, from + options->duration);
	atomic_store(&run->drain_to, from + options->duration + nsec_earlier(options->timeout, DRAIN_MAX));
	atomic_store(&run->go, true);
	coordinator->live = !options->quiet && options->report == 0 && isatty(STDERR_FILENO);
	coordinator->live_at = now;
	coordinator->live_next = now + LIVE_INTERVAL;
	workers_wake(coordinator);
}

/* End the measurement early, after an interrupt. */
static void run_interrupt(struct coordinator *coordinator)
{
	struct load_run *run = &coordinator->run;
	uint64_t now = nsec_now();

	coordinator->interrupted = true;
	atomic_store(&run->drain_to, now + NSEC_PER_SEC);
	atomic_store(&run->measure_to, now);
	workers_wake(coordinator);
}

/* The next time at which a phase ends; NSEC_NEVER: none. */
static uint64_t phase_end(const struct load_run *run, uint64_t now)
{
	const uint64_t ends[] = { atomic_load(&run->measure_from), atomic_load(&run->measure_to),
				  atomic_load(&run->drain_to) };

	for (size_t i = 0; i < sizeof ends / sizeof ends[0]; i++)
		if (now < ends[i])
			return ends[i];
	return NSEC_NEVER;
}

/* Wait until all workers have finished; wake them when a phase ends. */
static void run_watch(struct coordinator *coordinator)
{
	struct load_run *run = &coordinator->run;
	uint64_t woken = 0;

	while (atomic_load(&run->finished) < coordinator->running) {
		uint64_t now = nsec_now(), next = phase_end(run, now),
			 wake = nsec_earlier(next, interval_advance(coordinator, now));

		if (next != woken && woken != 0)
			workers_wake(coordinator);
		woken = next;
		if (coordinator->live && now >= coordinator->live_next) {
			live_print(coordinator, now);
			coordinator->live_next = now + LIVE_INTERVAL;
		}
		event_wait(coordinator,
			   coordinator->live ? nsec_earlier(wake, coordinator->live_next) : wake);
		if (interrupt_summary())
			interim_print(coordinator);
		if (!coordinator->interrupted && interrupt_seen())
			run_interrupt(coordinator);
	}
	/* All connections were lost before the end of the measurement. */
	if (nsec_now() < atomic_load(&run->measure_to))
		atomic_store(&run->measure_to, nsec_now());
	if (coordinator->interval.start != 0)
		interval_end(coordinator);
	if (coordinator->live_shown)
		fputs("\r\033[K", stderr);
}

/* --- reporting ---------------------------------------------------------------------------------------- */

static double seconds_measured(const struct coordinator *coordinator)
{
	const struct load_run *run = &coordinator->run;
	uint64_t from = atomic_load(&run->measure_from), to = atomic_load(&run->measure_to);

	return to > from ? nsec_to_seconds(to - from) : 0;
}

static void report_add(struct load_report *report, const struct load_worker *worker)
{
	const struct load_counters *counters = &worker->counters;
	double cpu = nsec_to_seconds(worker->cpu);

	report->echoes += (double) counter_get(&counters->echoes);
	report->bytes += counter_get(&counters->bytes);
	report->bytes_sent += counter_get(&counters->sent);
	report->bytes_received += counter_get(&counters->received);
	report->errors += counter_get(&counters->errors);
	report->lost += counter_get(&counters->lost);
	report->mismatches += counter_get(&counters->mismatches);
	report->duplicates += counter_get(&counters->duplicates);
	report->connections_made += counter_get(&counters->connections);
	report->port_waits += counter_get(&counters->port_waits);
	report->due += worker->due;
	report->unserved += worker->unserved;
	report->cpu_seconds += cpu;
	if (!report->fault && worker->fault[0] != '\0')
		report->fault = worker->fault;
	if (report->seconds > 0) {
		double share = cpu / report->seconds, wait = nsec_to_seconds(worker->delay) / report->seconds;

		report->limited |= share + wait > LIMIT_SHARE;
		if (share > report->cpu_share_highest) {
			report->cpu_share_highest = share;
			report->wait_share_highest = wait;
		}
	}
	histogram_merge(&report->latency, &worker->histogram);
}

/* Set report->error and return the outcome. */
static enum outcome run_outcome(struct load_report *report)
{
	bool udp = report->options->udp;

	if (report->unserved > 0)
		report->error = "messages that were due were not served";
	else if (report->idle_lost > 0)
		report->error = "idle connections were closed by the server";
	else if (report->mismatches + report->errors + report->lost > 0
		 || (!udp && report->bytes_sent != report->bytes_received))
		report->error = "not all bytes came back";
	if (!report->error)
		return OUTCOME_OK;
	if (report->fault)
		report->error = report->fault;
	/* That there is no UDP service is not noticed before. */
	return udp && report->bytes_received == 0 && report->errors > 0 ? OUTCOME_UNREACHABLE
									: OUTCOME_DIFFERS;
}

static enum outcome run_report(struct coordinator *coordinator, const char *note)
{
	const struct client_options *options = coordinator->run.options;
	struct load_report *report = calloc(1, sizeof *report);
	char address[ADDR_TEXT_MAX];
	enum outcome outcome;

	if (!report)
		return client_error(OUTCOME_DIFFERS, "out of memory for the report");
	report->options = options;
	report->engine = coordinator->run.engine->name;
	report->engine_note = note[0] != '\0' ? note : NULL;
	report->transport = options->udp                                ? "udp"
			  : coordinator->run.to.sa.sa_family == AF_UNIX ? "unix"
									: "tcp";
	report->address = addr_print(&coordinator->run.to, address);
	report->measured_from = nsec_to_seconds(atomic_load(&coordinator->run.measure_from));
	report->seconds = seconds_measured(coordinator);
	report->interrupted = coordinator->interrupted;
	report->idle_lost = idle_lost(coordinator);
	histogram_clear(&report->latency);
	for (unsigned i = 0; i < coordinator->running; i++)
		report_add(report, &coordinator->workers[i]);
	if (options->mode == LOAD_STREAM)
		report->echoes = floor((double) report->bytes / (double) options->size);
	outcome = run_outcome(report);
	if (options->json)
		load_report_json(report);
	else
		load_report_text(report);
	if (options->plot && plot_draw(report, options->plot) < 0 && outcome == OUTCOME_OK)
		outcome = OUTCOME_USAGE;
	free(report);
	return outcome;
}

static void coordinator_clear(struct coordinator *coordinator)
{
	for (unsigned i = 0; i < coordinator->count; i++)
		load_worker_clear(&coordinator->workers[i]);
	free(coordinator->workers);
	for (unsigned i = 0; coordinator->idle && i < coordinator->run.options->idle; i++)
		if (coordinator->idle[i] >= 0)
			close(coordinator->idle[i]);
	free(coordinator->idle);
	if (coordinator->run.report >= 0)
		close(coordinator->run.report);
}

static enum outcome run_all(struct coordinator *coordinator, int first_fd, const char *note)
{
	enum outcome outcome = workers_start(coordinator, first_fd);

	if (outcome == OUTCOME_OK)
		outcome = opening_wait(coordinator);
	/* After the active connections, so that these are not refused because of the idle ones. */
	if (outcome == OUTCOME_OK)
		outcome = idle_open(coordinator);
	if (outcome == OUTCOME_OK) {
		run_begin(coordinator);
		run_watch(coordinator);
	} else {
		workers_wake(coordinator);
	}
	for (unsigned i = 0; i < coordinator->running; i++)
		pthread_join(coordinator->workers[i].thread, NULL);
	return outcome == OUTCOME_OK ? run_report(coordinator, note) : outcome;
}

enum outcome load(const struct client_options *options, const struct target *target)
{
	struct coordinator coordinator = { .run = { .options = options, .target = target, .report = -1 } };
	struct load_run *run = &coordinator.run;
	struct target_choice choice;
	char why[TARGET_WHY_MAX], note[200];
	enum outcome outcome;
	int fd;

	run->buffer = buffer_size(options);
	run->window = options->depth > 0 ? options->size * options->depth : STREAM_WINDOW;
	outcome = descriptors_raise(options);
	if (outcome == OUTCOME_OK)
		outcome = depth_choose(run);
	if (outcome == OUTCOME_OK && options->plot)
		outcome = plot_check(options->plot);
	if (outcome == OUTCOME_OK)
		outcome = engine_choose(run, note, sizeof note);
	if (outcome != OUTCOME_OK)
		return outcome;
	fd = target_connect(target, &options->sockopts, &choice, why);
	if (fd < 0)
		return client_error(OUTCOME_UNREACHABLE, "%s", why);
	run->to = choice.addr;
	pattern_make();
	pthread_mutex_init(&run->lock, NULL);
	histogram_clear(&run->latency);
	run->report = eventfd(0, EFD_CLOEXEC);
	if (run->report < 0)
		outcome = client_error(OUTCOME_USAGE, "eventfd: %s", strerror(errno));
	else
		outcome = run_all(&coordinator, fd, note);
	coordinator_clear(&coordinator);
	return outcome;
}
