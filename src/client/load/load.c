/* load.c - see load.h; the coordinator */
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
#include "client/numbers.h"
#include "client/load/connect.h"
#include "client/load/plot.h"
#include "client/load/report.h"
#include "client/load/worker.h"

#define LIVE_EVERY (NSEC_PER_SEC / 2)
#define BUFFER_MOST PATTERN_RUN
#define STREAM_WINDOW (UINT64_C(64) << 20)
#define LIMIT_SHARE 0.95 /* a thread that wants a processor for more of the time than that is the limit */
#define DESCRIPTORS_SPARE 32

/* The coordinator's view. */
struct coordinator {
	struct load_run run;
	struct load_worker *workers;
	unsigned count, running;
	int *idle;
	unsigned idle_open;
	bool interrupted;
	uint64_t stopped; /* when Ctrl-C came */
	bool live, live_shown;
	uint64_t live_next, live_echoes, live_at;
};

static int error_print(int outcome, const char *what, int error)
{
	fprintf(stderr, "echoc: %s%s%s\n", what, error != 0 ? ": " : "", error != 0 ? strerror(error) : "");
	return outcome;
}

/* --- before ------------------------------------------------------------------------------------------------- */

static int descriptors_raise(const struct client_options *options)
{
	rlim_t needed = (rlim_t) options->connections + options->idle + 4 * options->threads
		      + DESCRIPTORS_SPARE;
	struct rlimit limit;
	char text[160];

	if (getrlimit(RLIMIT_NOFILE, &limit) < 0)
		return error_print(OUTCOME_USAGE, "RLIMIT_NOFILE", errno);
	limit.rlim_cur = limit.rlim_max;
	/* Only root may have more than the hard limit; it does no harm to ask. */
	if (limit.rlim_max < needed) {
		struct rlimit more = { needed, needed };

		if (setrlimit(RLIMIT_NOFILE, &more) == 0)
			return -1;
		snprintf(text, sizeof text,
			 "%u connections need %llu descriptors, and only %llu are allowed (ulimit -Hn)",
			 options->connections + options->idle, (unsigned long long) needed,
			 (unsigned long long) limit.rlim_max);
		return error_print(OUTCOME_USAGE, text, 0);
	}
	if (setrlimit(RLIMIT_NOFILE, &limit) < 0)
		return error_print(OUTCOME_USAGE, "RLIMIT_NOFILE", errno);
	return -1;
}

static size_t buffer_choose(const struct client_options *options)
{
	uint64_t flight = options->size * (options->depth > 0 ? options->depth : 1);
	uint64_t share = (UINT64_C(256) << 20) / options->connections; /* all of them together */

	if (options->mode == LOAD_STREAM)
		flight = BUFFER_MOST;
	if (share < 4096)
		share = 4096;
	if (flight > share)
		flight = share;
	if (flight > BUFFER_MOST)
		flight = BUFFER_MOST;
	return flight < 64 ? 64 : (size_t) flight;
}

/* Which engine drives it. `note` (of `size` bytes) says why not the first choice, if so. Returns -1 or an outcome. */
static int engine_choose(struct load_run *run, char *note, size_t size)
{
	const struct client_options *options = run->options;
	char why[160] = "";

	note[0] = '\0';
	run->engine = &engine_epoll;
	if (options->udp) {
		run->engine = &engine_udp;
		return -1;
	}
	if (options->engine == ENGINE_EPOLL)
		return -1;
	if (engine_uring.probe(why, sizeof why) == 0) {
		run->engine = &engine_uring;
		return -1;
	}
	if (options->engine == ENGINE_URING) {
		fprintf(stderr, "echoc: --engine io_uring: %s; use --engine epoll\n", why);
		return OUTCOME_USAGE;
	}
	snprintf(note, size, "no io_uring: %s", why);
	return -1;
}

static int idle_open(struct coordinator *coordinator)
{
	const struct client_options *options = coordinator->run.options;
	const char *what;
	char text[160];
	int error;

	if (options->idle == 0)
		return -1;
	coordinator->idle = malloc(options->idle * sizeof(int));
	if (!coordinator->idle)
		return error_print(OUTCOME_USAGE, "idle connections", ENOMEM);
	for (unsigned i = 0; i < options->idle; i++)
		coordinator->idle[i] = -1;
	coordinator->idle_open = connect_many(coordinator->idle, options->idle, &options->sockopts,
					      &coordinator->run.to, -1, &error, &what);
	if (coordinator->idle_open == options->idle)
		return -1;
	snprintf(text, sizeof text, "only %u of %u idle connections could be made: %s%s",
		 coordinator->idle_open, options->idle, what ? "cannot " : "", what ? what : "connect");
	return error_print(OUTCOME_UNREACHED, text, error);
}

/* How many idle connections the server has closed, or sent something on. */
static unsigned idle_lost(const struct coordinator *coordinator)
{
	unsigned lost = 0;

	for (unsigned i = 0; i < coordinator->idle_open; i++) {
		char byte;

		lost += recv(coordinator->idle[i], &byte, 1, MSG_DONTWAIT) >= 0 || errno != EAGAIN;
	}
	return lost;
}

static int workers_start(struct coordinator *coordinator, int first_fd)
{
	const struct client_options *options = coordinator->run.options;
	unsigned first = 0;
	int r;

	coordinator->workers = calloc(options->threads, sizeof *coordinator->workers);
	if (!coordinator->workers) {
		close(first_fd);
		return error_print(OUTCOME_USAGE, "threads", ENOMEM);
	}
	for (unsigned i = 0; i < options->threads; i++) {
		struct load_worker *worker = &coordinator->workers[i];
		unsigned count = options->connections / options->threads
			       + (i < options->connections % options->threads);

		r = load_worker_init(worker, &coordinator->run, i, first, count);
		coordinator->count++;
		if (i == 0 && r == 0 && options->mode != LOAD_CONNECT)
			worker->conns[0].fd = first_fd; /* the one with which the address was found */
		else if (i == 0)
			close(first_fd);
		if (r < 0)
			return error_print(OUTCOME_USAGE, "connections", -r);
		first += count;
		r = pthread_create(&worker->thread, NULL, load_worker_thread, worker);
		if (r != 0)
			return error_print(OUTCOME_USAGE, "a thread", r);
		coordinator->running++;
	}
	return -1;
}

/* --- during ------------------------------------------------------------------------------------------------- */

static void workers_wake(struct coordinator *coordinator)
{
	uint64_t one = 1;

	for (unsigned i = 0; i < coordinator->running; i++)
		if (write(coordinator->workers[i].wake, &one, sizeof one) < 0)
			return; /* cannot be: the counter does not fill */
}

/* Wait for news of a worker, for Ctrl-C or for the time `until`. */
static void event_wait(struct coordinator *coordinator, uint64_t until)
{
	struct pollfd fd = { .fd = coordinator->run.report, .events = POLLIN };
	struct timespec wait;
	uint64_t events;

	if (ppoll(&fd, 1, nsec_timespec(&wait, nsec_now(), until), interrupt_mask()) > 0
	    && read(coordinator->run.report, &events, sizeof events) < 0)
		return;
}

static uint64_t echoes_so_far(const struct coordinator *coordinator, uint64_t *received, uint64_t *errors)
{
	uint64_t echoes = 0;

	*received = *errors = 0;
	for (unsigned i = 0; i < coordinator->running; i++) {
		const struct load_counters *counters = &coordinator->workers[i].counters;

		*received += counter_get(&counters->received);
		*errors += counter_get(&counters->errors) + counter_get(&counters->mismatches)
			 + counter_get(&counters->lost);
		echoes += counter_get(&counters->echoes);
	}
	return echoes;
}

static void live_print(struct coordinator *coordinator, uint64_t now)
{
	const struct load_run *run = &coordinator->run;
	uint64_t received, errors, begin = atomic_load(&run->begin), from = atomic_load(&run->measure_from);
	double seconds = nsec_to_seconds(now - coordinator->live_at), speed;
	char rate[NUMBER_TEXT_MAX];

	echoes_so_far(coordinator, &received, &errors);
	speed = seconds > 0 ? (double) (received - coordinator->live_echoes) / seconds : 0;
	fprintf(stderr, "\r%5.1f s %s  %s echoes/s  %.1f MB/s",
		nsec_to_seconds(now - (now < from ? begin : from)),
		now < from ? "warm-up" : "of the measurement",
		number_group(rate, (uint64_t) (speed / (double) run->options->size)), speed / 1e6);
	if (errors > 0)
		fprintf(stderr, "  %llu errors", (unsigned long long) errors);
	fputs("\033[K", stderr);
	fflush(stderr);
	coordinator->live_shown = true;
	coordinator->live_at = now;
	coordinator->live_echoes = received;
}

static int opening_wait(struct coordinator *coordinator)
{
	const char *fault = NULL;

	while (atomic_load(&coordinator->run.opened) < coordinator->count && !coordinator->interrupted) {
		event_wait(coordinator, NSEC_NEVER);
		coordinator->interrupted = interrupt_seen();
	}
	if (coordinator->interrupted)
		return error_print(OUTCOME_UNREACHED, "interrupted before all connections were made", 0);
	for (unsigned i = 0; i < coordinator->count && !fault; i++)
		if (coordinator->workers[i].fault[0] != '\0')
			fault = coordinator->workers[i].fault;
	if (!fault)
		return -1;
	fprintf(stderr, "echoc: %s: %s\n", coordinator->run.target->name, fault);
	return OUTCOME_UNREACHED;
}

static void run_stop(struct coordinator *coordinator, uint64_t now)
{
	struct load_run *run = &coordinator->run;

	coordinator->interrupted = true;
	coordinator->stopped = now;
	atomic_store(&run->drain_to, now + NSEC_PER_SEC);
	atomic_store(&run->measure_to, now);
	workers_wake(coordinator);
}

/* From the first byte to the last: wakes the workers when a phase begins. */
static void run_watch(struct coordinator *coordinator)
{
	struct load_run *run = &coordinator->run;
	uint64_t woken = 0;

	while (atomic_load(&run->finished) < coordinator->running) {
		uint64_t from = atomic_load(&run->measure_from), to = atomic_load(&run->measure_to);
		uint64_t over = atomic_load(&run->drain_to), now = nsec_now();
		uint64_t next = now < from ? from : now < to ? to : now < over ? over : NSEC_NEVER;

		/* One wake-up when a boundary has been crossed. */
		if (next != woken && woken != 0)
			workers_wake(coordinator);
		woken = next;
		if (coordinator->live && now >= coordinator->live_next) {
			live_print(coordinator, now);
			coordinator->live_next = now + LIVE_EVERY;
		}
		event_wait(coordinator, coordinator->live && coordinator->live_next < next
						? coordinator->live_next
						: next);
		if (!coordinator->interrupted && interrupt_seen())
			run_stop(coordinator, nsec_now());
	}
	/* All connections were lost before the time was over. */
	if (nsec_now() < atomic_load(&run->measure_to))
		atomic_store(&run->measure_to, nsec_now());
	if (coordinator->live_shown)
		fputs("\r\033[K", stderr);
}

static void run_begin(struct coordinator *coordinator)
{
	struct load_run *run = &coordinator->run;
	const struct client_options *options = run->options;
	uint64_t now = nsec_now(), from = now + options->ramp + options->warmup;
	uint64_t drain = options->timeout == NSEC_NEVER ? 3600 * NSEC_PER_SEC : options->timeout;

	atomic_store(&run->begin, now);
	atomic_store(&run->measure_from, from);
	atomic_store(&run->measure_to, from + options->duration);
	atomic_store(&run->drain_to, from + options->duration + drain);
	atomic_store(&run->go, true);
	coordinator->live = !options->quiet && isatty(STDERR_FILENO);
	coordinator->live_at = now;
	coordinator->live_next = now + LIVE_EVERY;
	workers_wake(coordinator);
}

/* --- after -------------------------------------------------------------------------------------------------- */

static double seconds_measured(const struct coordinator *coordinator)
{
	const struct load_run *run = &coordinator->run;
	uint64_t from = atomic_load(&run->measure_from), to = atomic_load(&run->measure_to);

	return to > from ? nsec_to_seconds(to - from) : 0;
}

static void report_worker(struct load_report *report, const struct load_worker *worker)
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
	report->unsent += worker->unsent;
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

static int run_report(struct coordinator *coordinator, const char *note)
{
	const struct client_options *options = coordinator->run.options;
	struct load_report *report = calloc(1, sizeof *report);
	char address[ADDR_TEXT_MAX];
	int outcome = OUTCOME_OK;

	if (!report)
		return error_print(OUTCOME_DIFFERS, "the report", ENOMEM);
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
		report_worker(report, &coordinator->workers[i]);
	if (options->mode == LOAD_STREAM)
		report->echoes = floor((double) report->bytes / (double) options->size);
	if (report->mismatches + report->errors + report->lost + report->idle_lost > 0
	    || (!options->udp && report->bytes_sent != report->bytes_received))
		outcome = OUTCOME_DIFFERS;
	/* Over UDP that nobody listens shows only now. */
	if (options->udp && report->bytes_received == 0 && report->errors > 0)
		outcome = OUTCOME_UNREACHED;
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

static int run_all(struct coordinator *coordinator, int first_fd, const char *note)
{
	int outcome = workers_start(coordinator, first_fd);

	if (outcome < 0)
		outcome = opening_wait(coordinator);
	/* The idle ones come last, as those at work were promised. */
	if (outcome < 0)
		outcome = idle_open(coordinator);
	if (outcome < 0) {
		run_begin(coordinator);
		run_watch(coordinator);
	} else {
		workers_wake(coordinator);
	}
	for (unsigned i = 0; i < coordinator->running; i++)
		pthread_join(coordinator->workers[i].thread, NULL);
	return outcome < 0 ? run_report(coordinator, note) : outcome;
}

int load(const struct client_options *options, const struct target *target)
{
	struct coordinator coordinator = { .run = { .options = options, .target = target, .report = -1 } };
	struct load_run *run = &coordinator.run;
	char why[TARGET_WHY_MAX], note[200];
	int fd, outcome;

	run->buffer = buffer_choose(options);
	run->window = options->depth > 0 ? options->size * options->depth : STREAM_WINDOW;
	outcome = descriptors_raise(options);
	if (outcome < 0 && options->plot)
		outcome = plot_check(options->plot);
	if (outcome < 0)
		outcome = engine_choose(run, note, sizeof note);
	if (outcome >= 0)
		return outcome;
	fd = target_connect(target, &options->sockopts, &run->to, why);
	if (fd < 0)
		return error_print(OUTCOME_UNREACHED, why, 0);
	pattern_make();
	run->report = eventfd(0, EFD_CLOEXEC);
	if (run->report < 0)
		outcome = error_print(OUTCOME_USAGE, "eventfd", errno);
	else
		outcome = run_all(&coordinator, fd, note);
	coordinator_clear(&coordinator);
	return outcome;
}
