/* SPDX-License-Identifier: ISC */
#include <config.h>

#include "daemon/supervisor.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sysexits.h>
#include <unistd.h>

#include "base/notify.h"
#include "base/plural.h"
#include "daemon/daemonize.h"
#include "daemon/pidfile.h"
#include "daemon/reload.h"
#include "daemon/retire.h"
#include "daemon/signals.h"
#include "daemon/start.h"
#include "daemon/stop.h"
#include "daemon/supervisor_state.h"
#include "models/fault.h"
#include "models/model.h"

/* Interval between two reads of the counters of a thousand workers. */
#define SAMPLE_INTERVAL (100 * USEC_PER_MSEC)

/* Maximum number of log records of workers written before other events are handled. */
#define RELAY_BATCH 256

/* Maximum number of log records written after the last worker has ended: more than fit into the socket,
 * unless it is filled at the same time. */
#define RELAY_LAST 65536

/* Maximum number of signals and ended processes handled before other events. */
#define SIGNAL_BATCH 64
#define REAP_BATCH 1024

/* Minimum interval between two notifications of a worker's error in STATUS=, so that a worker cannot flood
 * the service manager. */
#define ERROR_INTERVAL USEC_PER_SEC

/* Interval between two reports of suppressed log lines, while log lines arrive. */
#define SUPPRESSED_INTERVAL (10 * USEC_PER_SEC)

/* Delay after which the state is sent again when a message to the service manager was lost. */
#define NOTIFY_INTERVAL (2 * USEC_PER_SEC)

/* A SIGTERM or SIGINT within this time after the first one belongs to the same request: timeout(1) and others
 * signal their child and then its process group. */
#define STOP_AGAIN_AFTER (1 * USEC_PER_SEC)

/* Maximum number of lines about ignored signals in a minute. */
#define IGNORED_LINES 10

/* Handle the failure of the crew that is being started. */
static void crew_start_failed(struct supervisor *supervisor, const char *why)
{
	struct crew *crew = supervisor->next;

	supervisor->next = NULL;
	/* connections that it has accepted already go back into the queue */
	supervisor_stop_crew(supervisor, crew,
	                     supervisor->phase == PHASE_SERVING ? STOP_HAND_OVER : STOP_DRAIN,
	                     HAND_OVER_WAIT);
	if (supervisor->phase == PHASE_STARTING) {
		crew_kill(crew);
		start_failed(supervisor, EX_OSERR, "cannot start the workers: %s", why);
		supervisor->phase = PHASE_STOPPING;
		/* connections kept by a predecessor stay in the store for the next attempt */
		supervisor->keep = restore_queues(&supervisor->restore) > 0;
		stop_prepare(supervisor, crew, restore_queues(&supervisor->restore));
		return;
	}
	sockets_abandon(&supervisor->next_sockets);
	reload_failed(supervisor, why);
}

/* Whether one more descriptor can be opened: the service manager and the log need it. */
static bool has_spare_descriptor(void)
{
	int fd = fcntl(STDERR_FILENO, F_DUPFD_CLOEXEC, 0);

	if (fd >= 0)
		close(fd);
	return fd >= 0;
}

static void maintain_next(struct supervisor *supervisor, int64_t now)
{
	struct crew *next = supervisor->next;

	if (!next)
		return;
	if (crew_ready(next)) {
		if (supervisor->phase == PHASE_STARTING && !has_spare_descriptor())
			crew_start_failed(supervisor, strerror(EMFILE));
		else if (supervisor->phase == PHASE_STARTING)
			start_done(supervisor);
		else
			reload_done(supervisor);
	} else if (next->failed) {
		crew_start_failed(supervisor, "a new worker ended before it was ready, see the messages "
		                              "before this one");
	} else if (now >= supervisor->ready_until) {
		crew_start_failed(supervisor, "the new workers did not become ready in time");
	}
	if (!supervisor->next && supervisor->reload_again && supervisor->phase == PHASE_SERVING)
		reload_begin(supervisor);
}

static void on_terminate(struct supervisor *supervisor)
{
	if (supervisor->phase != PHASE_STOPPING) {
		stop_begin(supervisor);
		/* counted from here, not from the signal, because stop_begin() may take long, and signals
		 * that arrive meanwhile are read after it */
		supervisor->stop_again_from = clock_usec() + STOP_AGAIN_AFTER;
	} else if (clock_usec() >= supervisor->stop_again_from) {
		stop_now(supervisor);
	}
}

static void on_other_signal(struct supervisor *supervisor, const struct signalfd_siginfo *info)
{
	char name[32];

	if (info->ssi_signo == SIGQUIT && supervisor->options->foreground)
		on_terminate(supervisor);
	else if (ratelimit_allow(&supervisor->ignored, clock_usec(), 60 * USEC_PER_SEC, IGNORED_LINES))
		log_event(LOG_NOTICE, EVENT_SIGNAL_IGNORED,
		          "Ignored %s from process %" PRIu32 " of user %" PRIu32,
		          signals_name((int) info->ssi_signo, name), info->ssi_pid, info->ssi_uid);
}

/* A killed worker may have consumed a wake-up for a connection that it did not accept: make another worker
 * check the listeners. */
static void wake_workers(const struct supervisor *supervisor)
{
	worker_wake_other(&(struct worker) { .wakeup_fd = supervisor->context.wakeup });
}

/* Reap ended children, including orphans of killed processes. */
static void reap(struct supervisor *supervisor)
{
	uint64_t batch = fault_number("ECHOD_FAULT_REAP_BATCH", REAP_BATCH);
	bool killed = false;
	int status;
	pid_t pid;

	supervisor->reaping = true;
	for (uint64_t i = 0; i < batch; i++) {
		bool known = false;

		pid = worker_reap(&status);
		if (pid == 0) {
			supervisor->reaping = false;
			break;
		}
		killed |= !worker_exit_is_clean(status);
		for (struct list *at = supervisor->crews.next; at != &supervisor->crews && !known;
		     at = at->next)
			known = crew_reaped(LIST_ENTRY(at, struct crew, link), pid, status);
	}
	/* it may have been sending to the queue or receiving from it */
	if (killed)
		wake_workers(supervisor);
	supervisor->unsettled |= killed;
}

static void on_signals(struct supervisor *supervisor)
{
	struct signalfd_siginfo info;

	for (unsigned i = 0; i < SIGNAL_BATCH && read(supervisor->signals, &info, sizeof info) == sizeof info;
	     i++) {
		supervisor->work++;
		switch (info.ssi_signo) {
		case SIGTERM:
		case SIGINT:
			on_terminate(supervisor);
			break;
		case SIGHUP:
			if (supervisor->phase == PHASE_SERVING && !supervisor->next)
				reload_begin(supervisor);
			else
				supervisor->reload_again = true;
			break;
		case SIGUSR1:
			supervisor_count_dropped(supervisor);
			report_log(&supervisor->report, supervisor->context.scoreboard);
			break;
		case SIGCHLD:
			supervisor->reaping = true; /* once in an iteration, however many signals come
			                             * meanwhile */
			break;
		default:
			on_other_signal(supervisor, &info);
		}
	}
}

static void on_relay(struct supervisor *supervisor, int limit)
{
	uint64_t suppressed;
	int count = log_relay_receive(supervisor->relay, limit, &suppressed);

	stats_add(scoreboard_own_slot(supervisor->context.scoreboard), STAT_LOG_SUPPRESSED, suppressed);
	supervisor->work += (unsigned) count;
	if (count > 0 && supervisor->suppressed_at == INT64_MAX)
		supervisor->suppressed_at = clock_usec() + SUPPRESSED_INTERVAL;
}

static bool all_alive(struct supervisor *supervisor)
{
	bool alive = true;

	/* no early return: each call compares with the previous one */
	for (struct list *at = supervisor->crews.next; at != &supervisor->crews; at = at->next)
		alive &= crew_alive(LIST_ENTRY(at, struct crew, link));
	return alive;
}

static void on_timers(struct supervisor *supervisor, int64_t now)
{
	if (now >= supervisor->watchdog_at) {
		if (all_alive(supervisor))
			notify_send("WATCHDOG=1");
		supervisor->watchdog_at = now + supervisor->watchdog_usec / 2;
	}
	if (now >= supervisor->stats_at && supervisor->phase == PHASE_SERVING) {
		supervisor_report(supervisor, REPORT_CHANGES);
		supervisor_set_stats_timer(supervisor);
	}
	if (now >= supervisor->suppressed_at) {
		report_suppressed(&supervisor->report, supervisor->context.scoreboard);
		supervisor->suppressed_at = INT64_MAX;
	}
	if (now >= supervisor->overflow_at && supervisor->phase != PHASE_STOPPING)
		supervisor_relieve_queue(supervisor, now);
	if (now >= supervisor->restore.retry_at && supervisor_may_feed(supervisor))
		restore_feed(&supervisor->restore, supervisor->context.outbox);
	if (supervisor->preserving && now >= supervisor->preserve_at)
		stop_check_flight(supervisor, now);
	if (now >= supervisor->extend_at)
		stop_extend_timeout(supervisor, now);
	if (now >= supervisor->retire_at)
		retire_maintain(supervisor, now);
	if (now >= supervisor->notify_at) {
		if (supervisor->phase == PHASE_SERVING && !supervisor->next) {
			notify_reloading(); /* this may be the lost message, for which the service manager
			                     * waits */
			supervisor_notify(supervisor);
		}
		supervisor->notify_at = INT64_MAX;
	}
}

/* Replace lost processes and free crews that have ended. Returns when to call again. */
static int64_t maintain_crews(struct supervisor *supervisor, int64_t now)
{
	int64_t next_time = INT64_MAX;
	struct list *at, *next;

	for (at = supervisor->crews.next; at != &supervisor->crews; at = next) {
		struct crew *crew = LIST_ENTRY(at, struct crew, link);

		next = at->next;
		next_time = clock_earlier(next_time, crew_maintain(crew, now));
		if (!crew->stopping || !crew_gone(crew))
			continue;
		list_remove(&crew->link);
		if (supervisor->phase == PHASE_SERVING)
			stop_log_drained(supervisor);
		report_cut_off(&supervisor->report, supervisor->context.scoreboard);
		if (crew == supervisor->current || crew == supervisor->last)
			continue; /* freed at the end: its configuration is still needed */
		crew_free(crew);
	}
	return next_time;
}

/* Whether STATUS= may be sent with the last error: during a reload and a stop it has other contents. */
static bool may_report_error(const struct supervisor *supervisor)
{
	return supervisor->phase == PHASE_SERVING && !supervisor->next;
}

static int64_t next_timer(const struct supervisor *supervisor)
{
	int64_t next = clock_earlier(supervisor->watchdog_at, supervisor->stats_at);

	next = clock_earlier(next, clock_earlier(supervisor->suppressed_at, supervisor->extend_at));
	next = clock_earlier(next, clock_earlier(supervisor->notify_at, supervisor->retire_at));
	if (supervisor->error_at > 0 && may_report_error(supervisor))
		next = clock_earlier(next, supervisor->error_at);
	if (supervisor->phase != PHASE_STOPPING)
		next = clock_earlier(next, supervisor->overflow_at);
	if (supervisor_may_feed(supervisor))
		next = clock_earlier(next, supervisor->restore.retry_at);
	if (supervisor->preserving)
		next = clock_earlier(next, supervisor->preserve_at);
	return supervisor->next ? clock_earlier(next, supervisor->ready_until) : next;
}

static int wait_for_events(struct supervisor *supervisor, int64_t next_time)
{
	bool feed = supervisor_may_feed(supervisor) && supervisor->restore.retry_at == INT64_MAX;
	struct pollfd fds[] = {
		{ .fd = supervisor->signals, .events = POLLIN },
		{ .fd = supervisor->relay, .events = POLLIN },
		{ .fd = supervisor->next ? supervisor->next->ready_out : -1, .events = POLLIN },
		{ .fd = supervisor->preserving ? supervisor->context.inbox : -1, .events = POLLIN },
		{ .fd = feed ? supervisor->context.outbox : -1, .events = POLLOUT },
	};
	uint64_t before = supervisor->work;
	int64_t now = clock_usec();

	if (supervisor->reaping)
		next_time = now;
	if (poll(fds, sizeof fds / sizeof *fds,
	         clock_poll_timeout(clock_earlier(next_timer(supervisor), next_time), now)) < 0)
		return clock_poll_retry(errno) ? 0 : -errno;
	if (fds[1].revents)
		on_relay(supervisor, RELAY_BATCH);
	if (fds[2].revents)
		supervisor->work += crew_note_ready(supervisor->next);
	if (fds[3].revents)
		stop_take_queued(supervisor);
	if (fds[4].revents)
		restore_feed(&supervisor->restore, supervisor->context.outbox);
	if (fds[0].revents)
		on_signals(supervisor);
	for (size_t i = 0; i < 3 && supervisor->work == before; i++)
		if (fds[i].revents)
			stats_add(scoreboard_own_slot(supervisor->context.scoreboard), STAT_IDLE_WAKEUPS,
			          idle_check(&supervisor->idle, fds[i].fd, POLLIN, before));
	if (supervisor->reaping)
		reap(supervisor);
	return 0;
}

static void notify_last_error(struct supervisor *supervisor, int64_t now)
{
	bool any = report_last_error(&supervisor->report, supervisor->context.scoreboard,
	                             supervisor->current->conf, supervisor->current->limits.workers);

	supervisor->error_at = any ? now + ERROR_INTERVAL : 0;
}

/* Read the counters after any wake-up, at a limited rate, because with very many workers it takes some
 * milliseconds. */
static void sample_counters(struct supervisor *supervisor, int64_t now)
{
	if (now < supervisor->sample_at)
		return;
	supervisor->sample_at = now + SAMPLE_INTERVAL *
	                                      (1 + scoreboard_sample(supervisor->context.scoreboard) / 1000);
}

static void supervisor_loop(struct supervisor *supervisor)
{
	int64_t crews_at = INT64_MAX, drain_at = INT64_MAX;

	while (!stop_is_over(supervisor, drain_at)) {
		int r = wait_for_events(supervisor, clock_earlier(crews_at, drain_at));
		int64_t now = clock_usec();

		if (r < 0) {
			log_event(LOG_ERR, EVENT_INTERNAL, "Cannot wait for events: %s", strerror(-r));
			supervisor->status = EX_OSERR;
			stop_now(supervisor);
			return;
		}
		on_timers(supervisor, now);
		maintain_next(supervisor, now);
		crews_at = maintain_crews(supervisor, now);
		drain_at = supervisor->phase == PHASE_STOPPING ? stop_drain(supervisor, now) : INT64_MAX;
		sample_counters(supervisor, now);
		if (supervisor->unsettled)
			supervisor_settle_queue(supervisor, now);
		if (supervisor->unsettled)
			crews_at = clock_earlier(crews_at, now + SETTLE_INTERVAL);
		if (may_report_error(supervisor) && now >= supervisor->error_at)
			notify_last_error(supervisor, now);
		if (notify_take_lost())
			supervisor->notify_at = now + NOTIFY_INTERVAL;
	}
	on_relay(supervisor, RELAY_LAST);
}

static void supervisor_finish(struct supervisor *supervisor)
{
	stop_finish(supervisor);
	if (supervisor->context.scoreboard)
		report_suppressed(&supervisor->report, supervisor->context.scoreboard);
	if (supervisor->current) {
		supervisor_count_dropped(supervisor);
		report_final(&supervisor->report, supervisor->context.scoreboard, supervisor->current->conf);
	}
	sockets_abandon(&supervisor->next_sockets); /* of a reload that was interrupted by the stop */
	retire_close(supervisor);
	sockets_close(&supervisor->sockets, supervisor->keep ? SOCKETS_KEEP_FILES : SOCKETS_REMOVE_FILES);
	pidfile_close(supervisor->pidfile, supervisor->pidfile_path);
	log_event(LOG_NOTICE, EVENT_STOPPED, "Stopped");
	/* descriptors stored shortly before this process ends would otherwise be lost */
	if (supervisor->keep)
		notify_barrier(5 * USEC_PER_SEC);
	log_count_lost(NULL);
	if (supervisor->last != supervisor->current)
		crew_free(supervisor->last);
	crew_free(supervisor->current);
	report_clear(&supervisor->report);
	scoreboard_free(supervisor->context.scoreboard);
	free(supervisor->pidfile_path);
	close(supervisor->signals);
	close(supervisor->relay);
	close(supervisor->context.log_relay);
	close(supervisor->context.inbox);
	close(supervisor->context.outbox);
	close(supervisor->context.wakeup);
}

int supervisor_run(struct conf *conf, const struct options *options, struct fdstore *store)
{
	struct supervisor supervisor = {
		.options = options,
		.on_signals = on_signals,
		.signals = -1,
		.relay = -1,
		.pidfile = -1,
		.privileges = PRIVILEGES_NONE,
		.context = { .inbox = -1, .outbox = -1, .log_relay = -1, .wakeup = -1 },
		.preserve = { .queue = -1 },
		.restore = { .pack = { .file = -1 }, .overflow = { .queue = -1 }, .retry_at = INT64_MAX },
		.overflow_at = INT64_MAX,
		.ready_until = INT64_MAX,
		.watchdog_at = INT64_MAX,
		.stats_at = INT64_MAX,
		.suppressed_at = INT64_MAX,
		.extend_at = INT64_MAX,
		.notify_at = INT64_MAX,
		.retire_at = INT64_MAX,
		.unsettled = true, /* connections of a predecessor may be damaged */
		.settle_at = INT64_MAX,
	};

	list_init(&supervisor.crews);
	list_init(&supervisor.preserve.packs);
	list_init(&supervisor.restore.overflow.packs);
	/* where standard error is connected to the journal, one message is enough */
	log_also_stderr(!log_stderr_is_journal());
	supervisor_open_log(conf, options->foreground);
	supervisor_check_log_target(conf, options->foreground);
	log_event(LOG_INFO, EVENT_STARTED, "Starting echod %s with %s", PACKAGE_VERSION, conf->path);
	if (start_begin(&supervisor, conf, store) == 0)
		supervisor_loop(&supervisor);
	supervisor_finish(&supervisor);
	if (supervisor.status != 0)
		daemonize_report(supervisor.status);
	return supervisor.status;
}
