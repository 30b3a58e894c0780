/* SPDX-License-Identifier: ISC */
#include <config.h>

#include "daemon/supervisor.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sysexits.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/idle.h"
#include "base/list.h"
#include "base/log.h"
#include "base/notify.h"
#include "base/plural.h"
#include "base/sandbox.h"
#include "base/ratelimit.h"
#include "daemon/crew.h"
#include "daemon/daemonize.h"
#include "daemon/pidfile.h"
#include "daemon/preserve.h"
#include "daemon/privileges.h"
#include "daemon/report.h"
#include "daemon/signals.h"
#include "models/handover/drain.h"
#include "models/fault.h"
#include "models/handover/handover.h"
#include "models/model.h"

/* Interval between two checks of connections that the supervisor drains. */
#define DRAIN_TICK (10 * USEC_PER_MSEC)

/* Maximum number of connections taken from the queue, to be preserved, before other events are handled. */
#define PRESERVE_BATCH 256

/* Time without a connection in the queue after which the supervisor checks whether workers can send any. */
#define PRESERVE_CHECK_INTERVAL (500 * USEC_PER_MSEC)

/* Maximum number of messages taken from the queue at the end, when all workers have ended. A process that
 * escaped could keep it filled. */
#define PRESERVE_LAST (1U << 20)
#define DAMAGED_LAST 1024

/* Interval between two reads of the counters of a thousand workers. */
#define SAMPLE_INTERVAL (100 * USEC_PER_MSEC)

/* Interval between two checks whether the queue is empty. */
#define SETTLE_INTERVAL (100 * USEC_PER_MSEC)

/* Maximum time until every worker of a new crew is ready. */
#define READY_TIMEOUT (30 * USEC_PER_SEC)

/* Time that a stopping crew waits for space in the queue. */
#define HAND_OVER_WAIT (10 * USEC_PER_SEC)

/* Interval between two checks during a reload whether the queue is full, so that the supervisor must take
 * connections out of it. */
#define OVERFLOW_INTERVAL (50 * USEC_PER_MSEC)

/* The same at a restart, where the supervisor empties the queue and reports when it cannot. */
#define PRESERVE_WAIT (60 * USEC_PER_SEC)

/* Time that listeners that are not named any more stay open for handshakes in progress, and the interval at
 * which their backlogs are checked meanwhile. */
#define RETIRE_TIME (1 * USEC_PER_SEC)
#define RETIRE_TICK (50 * USEC_PER_MSEC)

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

/* Interval between two checks whether draining makes progress and more time must be requested from the
 * service manager. */
#define EXTEND_INTERVAL (1 * USEC_PER_SEC)

/* Delay after which the state is sent again when a message to the service manager was lost. */
#define NOTIFY_INTERVAL (2 * USEC_PER_SEC)

/* A SIGTERM or SIGINT within this time after the first one belongs to the same request: timeout(1) and others
 * signal their child and then its process group. */
#define STOP_AGAIN_AFTER (1 * USEC_PER_SEC)

/* Time that a start waits for an address or an interface, and the interval between two attempts. With
 * RestartSec= of the unit, a service that waits for hours stays below the unit's StartLimitBurst=. */
#define ADDRESS_WAIT (10 * USEC_PER_SEC)
#define ADDRESS_INTERVAL (200 * USEC_PER_MSEC)

/* Maximum number of lines about ignored signals in a minute. */
#define IGNORED_LINES 10

enum phase { PHASE_STARTING, PHASE_SERVING, PHASE_STOPPING };

struct supervisor { /* NOLINT(clang-analyzer-optin.performance.Padding): there is one, ordered by meaning */
	const struct options *options;
	struct privileges privileges;
	enum phase phase;
	struct list crews;            /* all crews that have processes, the youngest last */
	struct crew *current, *next;  /* next: being started by a start or a reload */
	struct crew *last;            /* stopping: its configuration is needed until the end */
	struct worker self;           /* stopping: stands for the supervisor in `drain` */
	struct sockets sockets, next_sockets;
	struct sockets retired;       /* listeners that are not named any more */
	bool activated;               /* the sockets come from a socket unit */
	bool differs;                 /* from the file's listen and port, which was logged */
	bool reload_again;            /* SIGHUP arrived during a start or a reload */
	bool reaping;                 /* more than REAP_BATCH processes have ended */
	struct crew_context context;
	int signals, relay;
	int pidfile;
	char *pidfile_path;
	int status;                   /* exit status */
	bool start_cancelled;         /* by a signal, while the start waited for an address */
	bool stop_at_once;                   /* a second stop request was accepted: end at once */
	int64_t stop_again_from;      /* clock_usec() from which a stop signal is a second request */
	struct ratelimit ignored;     /* limits lines about ignored signals */
	bool keep;                    /* stopping: connections go into the descriptor store */
	bool flush; /* keep: the manager may still close them, so owed bytes are sent first */
	bool preserving;              /* connections can be put into the store */
	bool preserve_late; /* the store failed; connections left in the queue are tried again, one by one */
	bool preserved;               /* all connections are in the store */
	bool unsettled;               /* see settle_queue() */
	int64_t preserve_at; /* preserving: clock_usec() at which to check whether workers can send */
	struct preserve preserve;
	struct restore restore; /* connections kept by a predecessor, or for which the queue had no space */
	int64_t overflow_at;          /* see relieve_queue() */
	struct drain drain; /* stopping: connections that no worker takes and the store does not keep */
	int64_t drain_until;          /* clock_usec() at which they are closed */
	int64_t drain_usec;           /* drain-timeout */
	int64_t sample_at;              /* see sample_counters() */
	struct report report;
	uint64_t work;                /* number of signals, log records and reports of readiness read */
	struct idle idle;
	int64_t error_at;           /* earliest time of STATUS= with the next error; 0: now */
	int64_t ready_until, watchdog_at, stats_at, suppressed_at, extend_at, notify_at, retire_at,
		retire_until;
	int64_t watchdog_usec;
};

static void on_signals(struct supervisor *supervisor);
static void retire_unnamed(struct supervisor *supervisor, struct sockets *have, const struct conf *conf);
static void maintain_retired(struct supervisor *supervisor, int64_t now);

static void start_failed(struct supervisor *supervisor, int status, const char *format, ...)
	__attribute__((format(printf, 3, 4)));

static void start_failed(struct supervisor *supervisor, int status, const char *format, ...)
{
	char text[1024];
	va_list ap;

	va_start(ap, format);
	vsnprintf(text, sizeof text, format, ap);
	va_end(ap);
	log_event(LOG_ERR, EVENT_START_FAILED, "Cannot start: %s", text);
	notify_status("", "Cannot start: %s", text);
	supervisor->status = status;
}

/* --- log ------------------------------------------------------------------------------- */

static void open_log(const struct conf *conf, bool foreground)
{
	static const enum log_sink sinks[] = {
		[CONF_LOG_JOURNAL] = LOG_SINK_JOURNAL,
		[CONF_LOG_SYSLOG] = LOG_SINK_SYSLOG,
		[CONF_LOG_STDERR] = LOG_SINK_STDERR,
	};
	enum log_sink sink = sinks[conf->log_target];

	if (conf->log_target == CONF_LOG_AUTO)
		sink = foreground ? LOG_SINK_STDERR : LOG_SINK_SYSLOG;
	if (conf->log_target == CONF_LOG_AUTO && log_journal_listens())
		sink = LOG_SINK_JOURNAL;
	/* a daemon has a standard error only while it starts, and uses it only for warnings and errors */
	log_open(sink, sink == LOG_SINK_STDERR && !foreground ? LOG_WARNING : conf->log_level);
}

/* Standard error of a daemon in the background is /dev/null once it has started. */
static void warn_about_log_target(const struct conf *conf, bool foreground)
{
	if (conf->log_target == CONF_LOG_STDERR && !foreground)
		log_event(LOG_WARNING, EVENT_CONFIG_WRONG,
		          "%s: log-target is \"stderr\", but in the background standard error is /dev/null: "
		          "nothing will be logged; use \"auto\", \"journal\" or \"syslog\", or start with "
		          "--foreground",
		          conf->path);
}

static void log_errors(const struct diagnostics *errors, enum event event)
{
	for (size_t i = 0; i < errors->count; i++)
		log_event(LOG_ERR, event, "%s", errors->items[i].text);
}

/* --- start ----------------------------------------------------------------------------- */

static int raise_nofile(void)
{
	struct rlimit limit;

	if (getrlimit(RLIMIT_NOFILE, &limit) < 0)
		return -errno;
	limit.rlim_cur = limit.rlim_max;
	return setrlimit(RLIMIT_NOFILE, &limit) < 0 ? -errno : 0;
}

/* io_uring rings are locked memory, which workers without capabilities get only within this limit: the
 * default of 8 MiB is enough for 57 rings. */
static void raise_memlock(void)
{
	struct rlimit limit = { .rlim_cur = RLIM_INFINITY, .rlim_max = RLIM_INFINITY };

	if (setrlimit(RLIMIT_MEMLOCK, &limit) == 0 || getrlimit(RLIMIT_MEMLOCK, &limit) < 0)
		return;
	limit.rlim_cur = limit.rlim_max;
	(void) setrlimit(RLIMIT_MEMLOCK, &limit);
}

static int open_signals(struct supervisor *supervisor)
{
	supervisor->signals = signals_open();
	return supervisor->signals < 0 ? supervisor->signals : 0;
}

static int open_relay(struct supervisor *supervisor)
{
	int ends[2], size = 4 << 20, on = 1;

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, ends) < 0)
		return -errno;
	(void) setsockopt(ends[1], SOL_SOCKET, SO_SNDBUF, &size, sizeof size);
	(void) setsockopt(ends[0], SOL_SOCKET, SO_PASSCRED, &on, sizeof on);
	supervisor->relay = ends[0];
	supervisor->context.log_relay = ends[1];
	return 0;
}

/* Create what all crews share. */
static int init_context(struct supervisor *supervisor, struct fdstore *store)
{
	struct crew_context *context = &supervisor->context;
	int r = scoreboard_make(&context->scoreboard, model_descriptors());

	if (r < 0)
		return r;
	log_count_lost(&scoreboard_own_slot(context->scoreboard)->counters[STAT_LOG_LOST]);
	restore_init(&supervisor->restore, &store->queues, scoreboard_own_slot(context->scoreboard));
	r = handover_pair(&context->inbox, &context->outbox);
	supervisor->watchdog_usec = (int64_t) notify_watchdog_usec();
	context->heartbeat_usec = supervisor->watchdog_usec > 0 ? supervisor->watchdog_usec / 8 : INT64_MAX;
	context->wakeup = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (r == 0 && context->wakeup < 0)
		r = -errno;
	if (r == 0)
		r = open_relay(supervisor);
	if (r == 0)
		admission_queue_settle(&scoreboard_shared(context->scoreboard)->admission,
		                       restore_waiting(&supervisor->restore));
	return r;
}

static bool is_configured(const struct listener *listener, const struct conf_listen *listen)
{
	return addr_equal(&listener->addr, &listen->addr) ||
	       (listen->wildcard && listener->addr.sa.sa_family != AF_UNIX &&
	        addr_port(&listener->addr) == addr_port(&listen->addr));
}

/* Whether the passed sockets are exactly those of the file's listen and port. */
static bool is_as_passed(const struct sockets *sockets, const struct conf *conf)
{
	bool same = true;

	if (conf->origin[CONF_LISTEN].source == CONF_FROM_DEFAULT &&
	    conf->origin[CONF_PORT].source == CONF_FROM_DEFAULT)
		return true;
	for (size_t i = 0; i < sockets->count; i++) {
		bool found = false;

		for (size_t j = 0; j < conf->listen_count; j++)
			found |= is_configured(&sockets->items[i], &conf->listen[j]);
		same &= found;
	}
	for (size_t j = 0; j < conf->listen_count; j++) {
		bool found = false;

		for (size_t i = 0; i < sockets->count; i++)
			found |= is_configured(&sockets->items[i], &conf->listen[j]);
		same &= found;
	}
	return same;
}

/* The socket unit determines the listeners. Log a difference from the file, once until they agree again. */
static void log_mismatch(struct supervisor *supervisor, const struct conf *conf)
{
	bool differs = !is_as_passed(&supervisor->sockets, conf);
	char have[1024];

	if (differs && !supervisor->differs)
		log_event(LOG_NOTICE, EVENT_LISTENERS_DIFFER,
		          "Serving the sockets passed by the service manager (%s); listen and port of %s "
		          "differ and are not used",
		          sockets_print(&supervisor->sockets, have, sizeof have), conf->path);
	supervisor->differs = differs;
}

/* Log what the service manager has kept since a restart or a crash. */
static void log_restored(const struct supervisor *supervisor, const struct fdstore *store)
{
	unsigned connections = restore_waiting(&supervisor->restore);

	if (store->kept.count > 0 || connections > 0)
		log_event(LOG_NOTICE, EVENT_RESTORED,
		          "Restored %u connection%s and %zu listening socket%s from the descriptor store",
		          connections, plural(connections), store->kept.count, plural(store->kept.count));
}

static int exit_status_of_bind(int r)
{
	return r == -EACCES || r == -EPERM ? EX_NOPERM : EX_UNAVAILABLE;
}

/* Whether to try again to listen after the error `r`: while systemd waits for the service, and an address or
 * interface does not exist yet. Waiting here instead of failing keeps restarts by the unit fast, and the
 * number of starts below its limit. Handles signals for up to ADDRESS_INTERVAL. */
static bool wait_for_address(struct supervisor *supervisor, int r, int64_t until)
{
	struct pollfd signals = { .fd = supervisor->signals, .events = POLLIN };

	if ((r != -ENODEV && r != -EADDRNOTAVAIL) || !notify_enabled() || !getenv("INVOCATION_ID") ||
	    clock_usec() >= until)
		return false;
	if (poll(&signals, 1, ADDRESS_INTERVAL / USEC_PER_MSEC) > 0)
		on_signals(supervisor);
	return !supervisor->start_cancelled;
}

static int listen_when_there(struct supervisor *supervisor, const struct conf *conf, struct sockets *kept,
                             struct diagnostics *errors)
{
	int64_t until = clock_usec() + ADDRESS_WAIT;
	bool notified = false;
	int r;

	for (;;) {
		r = sockets_open(&supervisor->sockets, conf, kept, &supervisor->privileges, errors);
		if (r == 0 || !wait_for_address(supervisor, r, until))
			return r;
		if (!notified)
			notify_status("", "Waiting: %s",
			              errors->count > 0 ? errors->items[0].text : strerror(-r));
		notified = true;
		diag_clear(errors);
	}
}

static int open_sockets(struct supervisor *supervisor, const struct conf *conf, struct fdstore *store)
{
	struct diagnostics errors = { 0 };
	int r = 0;

	log_restored(supervisor, store);
	supervisor->activated = store->activated.count > 0;
	if (supervisor->activated) {
		supervisor->sockets = store->activated;
		log_mismatch(supervisor, conf);
	} else {
		r = listen_when_there(supervisor, conf, &store->kept, &errors);
	}
	if (r < 0 && supervisor->start_cancelled) {
		/* not a failure: exit status 0 */
	} else if (r < 0) {
		start_failed(supervisor, exit_status_of_bind(r), "%s",
		             errors.count > 0 ? errors.items[0].text : strerror(-r));
	} else {
		retire_unnamed(supervisor, &store->kept, conf);
		sockets_set_files(&supervisor->sockets, conf);
		sockets_set_keepalive(&supervisor->sockets, conf->tcp_keepalive);
		sockets_set_buffers(&supervisor->sockets, conf->socket_buffer, 0);
	}
	diag_clear(&errors);
	return r;
}

static int open_pidfile(struct supervisor *supervisor, const struct conf *conf)
{
	if (supervisor->options->foreground || !*conf->pidfile)
		return 0;
	supervisor->pidfile = pidfile_open(conf->pidfile);
	if (supervisor->pidfile >= 0) {
		supervisor->pidfile_path = strdup(conf->pidfile);
		return supervisor->pidfile_path ? 0 : -ENOMEM;
	}
	if (supervisor->pidfile == -EWOULDBLOCK)
		start_failed(supervisor, EX_UNAVAILABLE,
		             "another daemon runs already: process %d holds the lock of %s",
		             (int) pidfile_read(conf->pidfile), conf->pidfile);
	else
		start_failed(supervisor, supervisor->pidfile == -EACCES ? EX_NOPERM : EX_OSERR,
		             "cannot write pidfile %s: %s", conf->pidfile, strerror(-supervisor->pidfile));
	return -EIO;
}

static int privileges_failed(struct supervisor *supervisor, const struct conf *conf, int r)
{
	start_failed(supervisor, EX_NOPERM, "cannot become user \"%s\" and group \"%s\": %s", conf->user,
	             conf->group, strerror(-r));
	return r;
}

/* Look up user and group. Needed before listeners are opened, because files of unix sockets belong to the
 * user. */
static int find_privileges(struct supervisor *supervisor, const struct conf *conf)
{
	struct privileges *privileges = &supervisor->privileges;
	int r = privileges_find(privileges, conf->user, conf->group);

	if (r < 0)
		return privileges_failed(supervisor, conf, r);
	if (geteuid() == 0) {
		if (!*conf->user)
			log_event(LOG_WARNING, EVENT_RUNS_AS_ROOT,
			          "Running as root, because %s does not set user; set it, to \"root\" if "
			          "this is intended",
			          conf->path);
		return 0;
	}
	if ((privileges->uid != (uid_t) -1 && privileges->uid != geteuid()) ||
	    (privileges->gid != (gid_t) -1 && privileges->gid != getegid())) {
		start_failed(supervisor, EX_NOPERM,
		             "only root can become user \"%s\" and group \"%s\"; start as root, or remove "
		             "user and group from %s",
		             conf->user, conf->group, conf->path);
		return -EPERM;
	}
	*privileges = (struct privileges) PRIVILEGES_NONE;
	return 0;
}

static int drop_privileges(struct supervisor *supervisor, const struct conf *conf)
{
	struct privileges *privileges = &supervisor->privileges;
	int r;

	if (privileges->uid == (uid_t) -1 && privileges->gid == (gid_t) -1)
		return 0;
	r = privileges_drop(privileges);
	if (r < 0)
		return privileges_failed(supervisor, conf, r);
	/* files that a reload makes belong to the user of this process */
	*privileges = (struct privileges) PRIVILEGES_NONE;
	return 0;
}

/* Do everything up to the start of the first crew. Takes over `conf`. Returns 0, or -errno with the exit
 * status set. */
static int supervisor_start(struct supervisor *supervisor, struct conf *conf, struct fdstore *store)
{
	const char *why;
	int r;

	(void) raise_nofile();
	raise_memlock();
	if (!sandbox_can_filter(&why))
		log_event(LOG_NOTICE, EVENT_STARTED, "Cannot filter system calls of workers: %s", why);
	prctl(PR_SET_CHILD_SUBREAPER, 1);
	r = open_signals(supervisor);
	if (r == 0)
		r = init_context(supervisor, store);
	if (r < 0)
		start_failed(supervisor, EX_OSERR, "%s", strerror(-r));
	if (r == 0)
		r = open_pidfile(supervisor, conf);
	if (r == 0)
		r = find_privileges(supervisor, conf);
	if (r == 0)
		r = open_sockets(supervisor, conf, store);
	if (r == 0)
		r = drop_privileges(supervisor, conf);
	if (r < 0) {
		conf_free(conf);
		return r;
	}
	/* before workers start, so that kept connections come before new ones */
	restore_feed(&supervisor->restore, supervisor->context.outbox);
	r = crew_start(&supervisor->next, conf, &supervisor->sockets, &supervisor->context,
	               &supervisor->crews);
	if (r < 0) {
		start_failed(supervisor, EX_OSERR, "cannot start the workers: %s", strerror(-r));
		return r;
	}
	list_append(&supervisor->crews, &supervisor->next->link);
	supervisor->ready_until = clock_usec() + READY_TIMEOUT;
	return 0;
}

/* --- notification and log --------------------------------------------------------------- */

/* Count the datagrams that the kernel has dropped from the queues of the sockets. */
static void count_dropped(struct supervisor *supervisor)
{
	stats_add(scoreboard_own_slot(supervisor->context.scoreboard), STAT_UDP_QUEUE_FULL,
	          sockets_count_dropped(&supervisor->sockets, &supervisor->next_sockets));
}

static void refresh(struct supervisor *supervisor, enum report_kind kind)
{
	count_dropped(supervisor);
	report_refresh(&supervisor->report, supervisor->context.scoreboard, supervisor->current->conf,
	               supervisor->current->limits.workers, kind);
}

static void set_stats_timer(struct supervisor *supervisor)
{
	unsigned interval = supervisor->current->conf->stats_interval;

	supervisor->stats_at = interval == 0 ? INT64_MAX : clock_usec() + (int64_t) interval * USEC_PER_SEC;
}

static void keep_in_store(const struct supervisor *supervisor)
{
	if (!notify_enabled())
		return;
	if (supervisor->current->conf->keep_connections)
		fdstore_keep(&supervisor->sockets);
	else
		fdstore_forget(&supervisor->sockets);
}

static void log_serving(struct supervisor *supervisor, enum event event, const char *what)
{
	char sockets[1024];

	log_identify(supervisor->current->model->name, -1);
	log_event(LOG_NOTICE, event, "%s: model %s, %u worker%s, listening on %s", what,
	          supervisor->current->model->name, supervisor->current->limits.workers,
	          plural(supervisor->current->limits.workers),
	          sockets_print(&supervisor->sockets, sockets, sizeof sockets));
}

/* Send the state to the service manager. */
static void notify_state(struct supervisor *supervisor)
{
	keep_in_store(supervisor);
	if (!supervisor->options->foreground)
		notify_send("MAINPID=%d", (int) getpid());
	refresh(supervisor, REPORT_READY);
}

static void started(struct supervisor *supervisor)
{
	supervisor->current = supervisor->next;
	supervisor->next = NULL;
	supervisor->phase = PHASE_SERVING;
	log_serving(supervisor, EVENT_READY, "Ready");
	/* INVOCATION_ID: systemd started this service */
	if (notify_enabled() && getenv("INVOCATION_ID") && supervisor->current->conf->keep_connections &&
	    !fdstore_is_useful())
		log_event(LOG_WARNING, EVENT_HANDOVER,
		          "Cannot keep connections over a restart: systemd before 254 reports only over the "
		          "system bus that a stop is part of a restart, and there is no system bus");
	notify_state(supervisor);
	set_stats_timer(supervisor);
	log_also_stderr(false);
	daemonize_report(0);
	if (supervisor->watchdog_usec > 0)
		supervisor->watchdog_at = clock_usec() + supervisor->watchdog_usec / 2;
}

/* --- reload ---------------------------------------------------------------------------- */

static void reload_failed(struct supervisor *supervisor, const char *why)
{
	log_event(LOG_ERR, EVENT_RELOAD_FAILED, "Reload failed, keeping the running configuration: %s", why);
	refresh(supervisor, REPORT_READY);
}

static void log_not_applied(const struct conf *old, const struct conf *new)
{
	for (enum conf_key key = 0; key < CONF_KEYS; key++)
		if (conf_needs_restart(old, new, key))
			log_event(LOG_WARNING, EVENT_CONFIG_WRONG,
			          "%s: %s is not applied by a reload; restart to apply it", new->path,
			          conf_key_name(key));
}

static void reload_rejected(struct supervisor *supervisor, struct conf *conf, struct diagnostics *errors)
{
	char why[512];

	log_errors(errors, EVENT_CONFIG_WRONG);
	snprintf(why, sizeof why, "%s%s", errors->count > 0 ? errors->items[0].text : "out of memory",
	         errors->count > 1 ? " (and more)" : "");
	reload_failed(supervisor, why);
	diag_clear(errors);
	conf_free(conf);
}

static void reload_begin(struct supervisor *supervisor)
{
	struct diagnostics errors = { 0 };
	struct conf *conf = NULL;
	int r;

	notify_reloading();
	report_clear_last_error(&supervisor->report);
	supervisor->reload_again = false;
	/* the new configuration may name them again */
	if (supervisor->retired.count > 0)
		maintain_retired(supervisor, INT64_MAX);
	r = conf_read(&conf, supervisor->options->path, &supervisor->options->overrides, model_names,
	              model_check, &errors);
	if (r == 0 && !supervisor->activated)
		r = sockets_open(&supervisor->next_sockets, conf, &supervisor->sockets,
		                 &supervisor->privileges, &errors);
	if (r < 0) {
		reload_rejected(supervisor, conf, &errors);
		return;
	}
	log_not_applied(supervisor->current->conf, conf);
	warn_about_log_target(conf, supervisor->options->foreground);
	r = crew_start(&supervisor->next, conf,
	               supervisor->activated ? &supervisor->sockets : &supervisor->next_sockets,
	               &supervisor->context, &supervisor->crews);
	if (r < 0) {
		supervisor->next = NULL;
		sockets_abandon(&supervisor->next_sockets);
		reload_failed(supervisor, strerror(-r));
		return;
	}
	list_append(&supervisor->crews, &supervisor->next->link);
	supervisor->ready_until = clock_usec() + READY_TIMEOUT;
}

static bool any_stopping(const struct supervisor *supervisor)
{
	for (const struct list *at = supervisor->crews.next; at != &supervisor->crews; at = at->next)
		if (LIST_ENTRY(at, const struct crew, link)->stopping)
			return true;
	return false;
}

/* Correct the count of connections in the queue, when it is empty and no crew puts connections in. Before
 * that, or after a process was killed in the middle, the count may be too high. */
static void settle_queue(struct supervisor *supervisor)
{
	if (any_stopping(supervisor) || restore_active(&supervisor->restore) ||
	    handover_waiting(supervisor->context.inbox) > 0)
		return;
	admission_queue_settle(&scoreboard_shared(supervisor->context.scoreboard)->admission, 0);
	supervisor->unsettled = false;
}

/* Ask a crew to stop within drain-timeout of the current configuration. */
static void stop_crew(struct supervisor *supervisor, struct crew *crew, enum stats_stop how, int64_t wait)
{
	const struct conf *conf = supervisor->current ? supervisor->current->conf : crew->conf;
	int64_t now = clock_usec(), drain = (int64_t) conf->drain_timeout * USEC_PER_SEC;

	settle_queue(supervisor);
	supervisor->unsettled = true;
	if (how == STOP_HAND_OVER)
		supervisor->overflow_at = now + OVERFLOW_INTERVAL;
	if (how == STOP_FLUSH)
		crew_stop(crew, how, now + drain + wait, now + drain);
	else
		crew_stop(crew, how, now + wait, now + wait + drain);
}

/* A reload to a model that serves few connections at a time leaves the others in the queue. While it is full
 * and an old crew hands over, keep connections in memory. */
static void relieve_queue(struct supervisor *supervisor, int64_t now)
{
	struct pollfd queue = { .fd = supervisor->context.outbox, .events = POLLOUT };
	bool stopping = any_stopping(supervisor);

	supervisor->overflow_at = stopping ? now + OVERFLOW_INTERVAL : INT64_MAX;
	/* at the end take what came last, so that the order is kept */
	if (stopping ? poll(&queue, 1, 0) == 0 : !list_empty(&supervisor->restore.overflow.packs))
		restore_take(&supervisor->restore, supervisor->context.inbox, supervisor->context.outbox);
}

/* Whether connections can be fed to the workers: while an old crew hands over, it needs the space in the
 * queue. */
static bool may_feed(const struct supervisor *supervisor)
{
	return supervisor->phase != PHASE_STOPPING && supervisor->overflow_at == INT64_MAX &&
	       restore_active(&supervisor->restore);
}

/* What stands for the supervisor where it takes connections itself. It does not count sources. */
static struct worker own_worker(const struct supervisor *supervisor, const struct conf *conf)
{
	struct admission_shared *admission = &scoreboard_shared(supervisor->context.scoreboard)->admission;

	return (struct worker) {
		.conf = conf,
		.slot = scoreboard_own_slot(supervisor->context.scoreboard),
		.admission = { .shared = admission, .own = &admission->supervisor, .group = ADMISSION_GROUPS,
		               .allow = &conf->allow, .deny = &conf->deny, .max_connections = UINT32_MAX },
		.outbox_fd = supervisor->context.outbox,
	};
}

/* Accept the clients in the backlogs of `set` and put them into the queue, for the workers of the new
 * configuration. */
static void drain_backlogs(struct supervisor *supervisor, const struct sockets *set, const struct conf *conf)
{
	struct admission_shared *admission = &scoreboard_shared(supervisor->context.scoreboard)->admission;
	const struct worker self = own_worker(supervisor, conf);

	admission_queue_begin(admission);
	supervisor->unsettled = true;
	for (size_t i = 0; i < set->count; i++)
		handover_backlog(&set->items[i], &self);
}

/* Close the listeners that no configuration names any more. Handshakes that took longer than RETIRE_TIME, and
 * clients that did not fit into the queue, are reset. */
static void close_retired(struct supervisor *supervisor)
{
	for (size_t i = 0; i < supervisor->retired.count; i++)
		/* a stopping crew may still have the descriptor */
		listener_shut(&supervisor->retired.items[i]);
	sockets_close(&supervisor->retired, SOCKETS_REMOVE_FILES);
	sockets_stop_sharing(&supervisor->sockets);
	supervisor->retire_at = INT64_MAX;
}

/* Retire the listeners of `have` that the new configuration `conf` does not name: they take no new clients,
 * and before they are closed, the clients in their backlogs are handed to the new workers. */
static void retire_unnamed(struct supervisor *supervisor, struct sockets *have, const struct conf *conf)
{
	for (size_t i = 0; i < have->count && notify_enabled(); i++) {
		struct sockets one = { .items = &have->items[i], .count = 1 };

		if (!have->items[i].keep)
			fdstore_forget(&one);
	}
	sockets_retire(have, &supervisor->retired);
	sockets_commit(have, conf);
	if (supervisor->retired.count == 0)
		return;
	supervisor->retire_at = clock_usec() + RETIRE_TICK;
	supervisor->retire_until = clock_usec() + RETIRE_TIME;
}

static void maintain_retired(struct supervisor *supervisor, int64_t now)
{
	const struct crew *crew = supervisor->current ? supervisor->current : supervisor->next;

	/* the workers that watched them were asked to stop RETIRE_TICK ago */
	for (size_t i = 0; i < supervisor->retired.count; i++)
		listener_refuse_abstract(&supervisor->retired.items[i]);
	/* behind the connections that an old crew hands over: only in a worker are they counted for
	 * max-per-source */
	if (crew && (!any_stopping(supervisor) || now >= supervisor->retire_until))
		drain_backlogs(supervisor, &supervisor->retired, crew->conf);
	if (now >= supervisor->retire_until)
		close_retired(supervisor);
	else
		supervisor->retire_at = now + RETIRE_TICK;
}

static void reload_done(struct supervisor *supervisor)
{
	struct crew *old = supervisor->current;

	supervisor->current = supervisor->next;
	supervisor->next = NULL;
	if (!supervisor->activated) {
		count_dropped(supervisor);
		retire_unnamed(supervisor, &supervisor->sockets, supervisor->current->conf);
		supervisor->sockets = supervisor->next_sockets;
		supervisor->next_sockets = (struct sockets) { 0 };
	} else {
		log_mismatch(supervisor, supervisor->current->conf);
	}
	sockets_set_files(&supervisor->sockets, supervisor->current->conf);
	sockets_set_keepalive(&supervisor->sockets, supervisor->current->conf->tcp_keepalive);
	sockets_set_buffers(&supervisor->sockets, supervisor->current->conf->socket_buffer,
	                    old->conf->socket_buffer);
	open_log(supervisor->current->conf, supervisor->options->foreground);
	stop_crew(supervisor, old, STOP_HAND_OVER, HAND_OVER_WAIT);
	log_serving(supervisor, EVENT_RELOADED, "Reloaded");
	keep_in_store(supervisor);
	refresh(supervisor, REPORT_READY);
	set_stats_timer(supervisor);
}

/* --- connections left when the service stops -------------------------------------------- */

/* Begin a stop under the configuration of `crew`. The store has room for `queues` more queues where
 * connections are kept. */
static void stop_prepare(struct supervisor *supervisor, struct crew *crew, unsigned queues)
{
	struct stats_slot *slot = scoreboard_own_slot(supervisor->context.scoreboard);
	const struct conf *conf = crew->conf;

	supervisor->last = crew;
	supervisor->preserving = supervisor->keep;
	supervisor->preserve_at = clock_usec() + PRESERVE_CHECK_INTERVAL;
	preserve_init(&supervisor->preserve, restore_free_number(&supervisor->restore), queues, slot);
	supervisor->drain_usec = (int64_t) conf->drain_timeout * USEC_PER_SEC;
	supervisor->drain_until = clock_usec() + supervisor->drain_usec;
	supervisor->self = own_worker(supervisor, conf);
	drain_init(&supervisor->drain, &supervisor->self);
	drain_set_flush(&supervisor->drain, supervisor->flush);
	supervisor->preserve.flush = supervisor->flush ? &supervisor->drain : NULL;
}

/* The store accepts no more connections: let workers drain theirs. */
static void preserve_failed(struct supervisor *supervisor, int error)
{
	/* descriptors in flight arrive when they are received, so that the last ones may fit again */
	supervisor->preserve_late = !supervisor->flush && (error == -EMFILE || error == -ETOOMANYREFS);
	supervisor->preserving = supervisor->flush = false;
	supervisor->preserve.flush = NULL;
	drain_set_flush(&supervisor->drain, false);
	log_event(LOG_WARNING, EVENT_HANDOVER,
	          "Cannot keep more connections over the restart: %s; draining the others", strerror(-error));
	for (struct list *at = supervisor->crews.next; at != &supervisor->crews; at = at->next)
		stop_crew(supervisor, LIST_ENTRY(at, struct crew, link), STOP_DRAIN, 0);
}

/* Flush connections that a predecessor kept, and store flushed ones. `late`: the time for draining is over,
 * store all. */
static void flush_rest(struct supervisor *supervisor, unsigned live_max, bool late)
{
	struct preserve *preserve = &supervisor->preserve;
	struct drain *drain = &supervisor->drain;
	struct new_conn new_conn;
	int r = 0;

	if (late)
		preserve->flush = NULL;
	for (unsigned i = 0; i < PRESERVE_BATCH && r == 0 && !late && drain->live < live_max; i++) {
		if (!restore_next(&supervisor->restore, &new_conn))
			break;
		r = preserve_or_flush(preserve, &new_conn);
	}
	while (r == 0 && drain_take(drain, late ? DRAIN_ALL : DRAIN_FLUSHED, &new_conn))
		r = preserve_add(preserve, &new_conn);
	if (r == 0)
		return;
	drain_add(drain, &new_conn);
	preserve_failed(supervisor, r);
}

/* Store connections that workers have put into the queue. */
static void on_handed_over(struct supervisor *supervisor)
{
	struct new_conn rest;
	int r = preserve_take(&supervisor->preserve, supervisor->context.inbox, PRESERVE_BATCH, &rest);

	if (r < 0 && rest.fd >= 0)
		drain_add(&supervisor->drain, &rest);
	if (r < 0)
		preserve_failed(supervisor, r);
	supervisor->preserve_at = clock_usec() + PRESERVE_CHECK_INTERVAL;
}

/* Workers wait while too many descriptors are in flight; those in the store never arrive. */
static void check_flight(struct supervisor *supervisor, int64_t now)
{
	int r = preserve_check_flight();

	supervisor->preserve_at = now + PRESERVE_CHECK_INTERVAL;
	if (r < 0)
		preserve_failed(supervisor, r);
}

/* After the last worker has ended: store the remaining connections, in order. */
static void preserve_rest(struct supervisor *supervisor)
{
	struct preserve *preserve = &supervisor->preserve;
	struct new_conn rest;
	int r;

	if (supervisor->flush)
		flush_rest(supervisor, 0, true);
	/* attempts that failed before may succeed now, because descriptors in flight have arrived */
	while ((r = preserve_take(preserve, supervisor->context.inbox, PRESERVE_LAST, &rest)) < 0) {
		if (rest.fd >= 0)
			drain_add(&supervisor->drain, &rest);
		if (r != -EMFILE || preserve_finish(preserve) < 0)
			break;
	}
	if (r >= 0)
		r = restore_preserve(&supervisor->restore, preserve);
	if (r >= 0)
		r = preserve_finish(preserve);
	if (r < 0 && supervisor->preserving)
		preserve_failed(supervisor, r);
	supervisor->preserved = true;
	supervisor->drain_until = clock_usec() + supervisor->drain_usec;
}

/* Take the next connection that neither a worker nor the store takes. */
static bool next_rest(struct supervisor *supervisor, struct new_conn *new_conn)
{
	if (preserve_next(&supervisor->preserve, new_conn))
		return true;
	for (unsigned i = 0; i < DAMAGED_LAST; i++) {
		int r = handover_take(supervisor->context.inbox, new_conn);

		if (r == 0)
			return true;
		if (r == -EAGAIN)
			break;
		stats_add(scoreboard_own_slot(supervisor->context.scoreboard), STAT_DAMAGED, 1);
	}
	return restore_next(&supervisor->restore, new_conn);
}

/* Drain such connections, a limited number at a time. Returns when to call again (clock_usec()); INT64_MAX:
 * none are left. */
static int64_t drain_rest(struct supervisor *supervisor, int64_t now)
{
	struct drain *drain = &supervisor->drain;
	struct rlimit limit = { .rlim_cur = 256 };
	struct new_conn new_conn;
	bool added = false;

	(void) getrlimit(RLIMIT_NOFILE, &limit);
	if (supervisor->keep && !supervisor->preserved) {
		bool busy = drain_serve(drain);

		if (supervisor->flush)
			flush_rest(supervisor, (unsigned) limit.rlim_cur / 2, now >= supervisor->drain_until);
		if (busy)
			return now + DRAIN_TICK;
		return supervisor->flush && restore_active(&supervisor->restore) ? now : INT64_MAX;
	}
	while (drain->live < limit.rlim_cur / 2 && next_rest(supervisor, &new_conn)) {
		if (!supervisor->preserve_late || !list_empty(&supervisor->preserve.packs) ||
		    preserve_one(&supervisor->preserve, &new_conn) < 0)
			drain_add(drain, &new_conn);
		added = true;
	}
	if (drain_serve(drain))
		return now + DRAIN_TICK;
	/* added ones may have ended at once, and more may be left */
	return added ? now : INT64_MAX;
}

/* Whether the process can exit. `drain_at` is the result of drain_rest(). */
static bool stop_is_over(struct supervisor *supervisor, int64_t drain_at)
{
	if (supervisor->phase != PHASE_STOPPING || !list_empty(&supervisor->crews))
		return false;
	if (supervisor->keep && !supervisor->preserved) {
		bool flushing = supervisor->drain.live > 0 || restore_active(&supervisor->restore) ||
		                handover_waiting(supervisor->context.inbox) > 0;

		if (supervisor->flush && flushing && !supervisor->stop_at_once &&
		    clock_usec() < supervisor->drain_until)
			return false;
		preserve_rest(supervisor);
		return stop_is_over(supervisor, drain_rest(supervisor, clock_usec()));
	}
	return drain_at == INT64_MAX || supervisor->stop_at_once || clock_usec() >= supervisor->drain_until;
}

/* Close and log connections that could not be drained in time. */
static void drain_end(struct supervisor *supervisor)
{
	unsigned cut = drain_cut(&supervisor->drain), count = supervisor->drain.count;
	struct new_conn new_conn;

	for (unsigned i = 0; i < PRESERVE_LAST && next_rest(supervisor, &new_conn); i++, cut++, count++) {
		close(new_conn.fd);
		conn_clear(&new_conn.conn);
	}
	if (count > 0)
		log_event(LOG_NOTICE, EVENT_DRAIN_CUT,
		          "Closed %u connection%s that waited for a worker, %u of them before their clients "
		          "had received all data",
		          count, plural(count), cut);
}

/* Handle the failure of the crew that is being started. */
static void crew_start_failed(struct supervisor *supervisor, const char *why)
{
	struct crew *crew = supervisor->next;

	supervisor->next = NULL;
	/* connections that it has accepted already go back into the queue */
	stop_crew(supervisor, crew, supervisor->phase == PHASE_SERVING ? STOP_HAND_OVER : STOP_DRAIN,
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
			started(supervisor);
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

/* --- stop ------------------------------------------------------------------------------ */

static void stop_begin(struct supervisor *supervisor)
{
	struct crew *crew = supervisor->current ? supervisor->current : supervisor->next;
	bool serving = supervisor->phase == PHASE_SERVING;
	enum fdstore_stop stop = FDSTORE_DROPPED;
	const char *text = "Stopping: draining connections";
	enum stats_stop how = STOP_DRAIN;
	unsigned room = 0;

	/* the start waits for an address: end as after a failed start, which leaves the store unchanged */
	if (!crew) {
		supervisor->start_cancelled = true;
		notify_status("STOPPING=1", "Stopping");
		return;
	}
	/* listeners are stored only once the service is ready */
	if (crew->conf->keep_connections)
		stop = fdstore_ask_stop(serving ? &supervisor->sockets : &(struct sockets) { 0 },
		                        restore_queues(&supervisor->restore), &room);
	supervisor->keep = stop != FDSTORE_DROPPED;
	supervisor->flush = stop == FDSTORE_UNKNOWN;
	if (stop == FDSTORE_KEPT) {
		how = STOP_HAND_OVER;
		text = "Stopping for a restart: keeping connections";
	} else if (stop == FDSTORE_UNKNOWN) {
		how = STOP_FLUSH;
		text = "Stopping: draining connections, and keeping them in case of a restart";
	}
	supervisor->phase = PHASE_STOPPING;
	stop_prepare(supervisor, crew, room);
	notify_status("STOPPING=1", "%s", supervisor->keep ? "Handing connections over to the next process"
	                                                   : "Draining connections");
	log_event(LOG_NOTICE, EVENT_STOPPING, "%s", text);
	for (struct list *at = supervisor->crews.next; at != &supervisor->crews; at = at->next)
		stop_crew(supervisor, LIST_ENTRY(at, struct crew, link), how,
		          supervisor->keep ? PRESERVE_WAIT : 0);
	if (!supervisor->keep)
		for (size_t i = 0; i < supervisor->sockets.count; i++)
			listener_shut(&supervisor->sockets.items[i]);
	close_retired(supervisor);
	supervisor->next = NULL;
	supervisor->stats_at = INT64_MAX;
	supervisor->extend_at = clock_usec() + EXTEND_INTERVAL;
	(void) report_progress(&supervisor->report, supervisor->context.scoreboard);
}

/* End without waiting. At a restart, the next process still gets the connections that are in the queue by
 * now. */
static void stop_now(struct supervisor *supervisor)
{
	log_event(LOG_NOTICE, EVENT_STOPPING, "Received a second stop signal: ending at once");
	supervisor->stop_at_once = true;
	for (struct list *at = supervisor->crews.next; at != &supervisor->crews; at = at->next)
		crew_kill(LIST_ENTRY(at, struct crew, link));
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

/* --- events ---------------------------------------------------------------------------- */

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
			count_dropped(supervisor);
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

/* Draining makes progress: ask the manager to wait until the end of the drain. Not in small steps, because a
 * client that reads slowly may take nothing for longer than a step. */
static void extend_timeout(const struct supervisor *supervisor, int64_t now)
{
	int64_t end = supervisor->drain_until > now ? supervisor->drain_until : now;

	for (const struct list *at = supervisor->crews.next; at != &supervisor->crews; at = at->next) {
		const struct crew *crew = LIST_ENTRY(at, struct crew, link);

		end = crew->kill_at > end ? crew->kill_at : end;
	}
	notify_send("EXTEND_TIMEOUT_USEC=%" PRId64, end - now + EXTEND_INTERVAL);
}

static void on_timers(struct supervisor *supervisor, int64_t now)
{
	if (now >= supervisor->watchdog_at) {
		if (all_alive(supervisor))
			notify_send("WATCHDOG=1");
		supervisor->watchdog_at = now + supervisor->watchdog_usec / 2;
	}
	if (now >= supervisor->stats_at && supervisor->phase == PHASE_SERVING) {
		refresh(supervisor, REPORT_CHANGES);
		set_stats_timer(supervisor);
	}
	if (now >= supervisor->suppressed_at) {
		report_suppressed(&supervisor->report, supervisor->context.scoreboard);
		supervisor->suppressed_at = INT64_MAX;
	}
	if (now >= supervisor->overflow_at && supervisor->phase != PHASE_STOPPING)
		relieve_queue(supervisor, now);
	if (now >= supervisor->restore.retry_at && may_feed(supervisor))
		restore_feed(&supervisor->restore, supervisor->context.outbox);
	if (supervisor->preserving && now >= supervisor->preserve_at)
		check_flight(supervisor, now);
	if (now >= supervisor->extend_at) {
		if (report_progress(&supervisor->report, supervisor->context.scoreboard))
			extend_timeout(supervisor, now);
		supervisor->extend_at = now + EXTEND_INTERVAL;
	}
	if (now >= supervisor->retire_at)
		maintain_retired(supervisor, now);
	if (now >= supervisor->notify_at) {
		if (supervisor->phase == PHASE_SERVING && !supervisor->next) {
			notify_reloading(); /* this may be the lost message, for which the service manager
			                     * waits */
			notify_state(supervisor);
		}
		supervisor->notify_at = INT64_MAX;
	}
}

/* Log connections that could not be handed over in a reload or restart. */
static void log_drained(struct supervisor *supervisor)
{
	uint64_t count = report_drained(&supervisor->report, supervisor->context.scoreboard);

	if (count > 0)
		log_event(LOG_NOTICE, EVENT_HANDOVER,
		          "Drained %" PRIu64 " connection%s that could not be handed over", count,
		          plural(count));
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
			log_drained(supervisor);
		report_cut_off(&supervisor->report, supervisor->context.scoreboard);
		if (crew == supervisor->current || crew == supervisor->last)
			continue; /* freed at the end: its configuration is still needed */
		crew_free(crew);
	}
	return next_time;
}

static int64_t next_timer(const struct supervisor *supervisor)
{
	int64_t next = clock_earlier(supervisor->watchdog_at, supervisor->stats_at);

	next = clock_earlier(next, clock_earlier(supervisor->suppressed_at, supervisor->extend_at));
	next = clock_earlier(next, clock_earlier(supervisor->notify_at, supervisor->retire_at));
	if (supervisor->error_at > 0)
		next = clock_earlier(next, supervisor->error_at);
	if (supervisor->phase != PHASE_STOPPING)
		next = clock_earlier(next, supervisor->overflow_at);
	if (may_feed(supervisor))
		next = clock_earlier(next, supervisor->restore.retry_at);
	if (supervisor->preserving)
		next = clock_earlier(next, supervisor->preserve_at);
	return supervisor->next ? clock_earlier(next, supervisor->ready_until) : next;
}

static int wait_for_events(struct supervisor *supervisor, int64_t next_time)
{
	bool feed = may_feed(supervisor) && supervisor->restore.retry_at == INT64_MAX;
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
		on_handed_over(supervisor);
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
	supervisor->sample_at =
		now + SAMPLE_INTERVAL * (1 + scoreboard_sample(supervisor->context.scoreboard) / 1000);
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
		drain_at = supervisor->phase == PHASE_STOPPING ? drain_rest(supervisor, now) : INT64_MAX;
		sample_counters(supervisor, now);
		if (supervisor->unsettled)
			settle_queue(supervisor);
		if (supervisor->unsettled)
			crews_at = clock_earlier(crews_at, now + SETTLE_INTERVAL);
		if (supervisor->phase == PHASE_SERVING && !supervisor->next && now >= supervisor->error_at)
			notify_last_error(supervisor, now);
		if (notify_take_lost())
			supervisor->notify_at = now + NOTIFY_INTERVAL;
	}
	on_relay(supervisor, RELAY_LAST);
}

/* Finish or forget connections, and the stored descriptors. */
static void finish_sockets(struct supervisor *supervisor)
{
	bool stopping = supervisor->phase == PHASE_STOPPING;

	/* a start that failed before its first worker leaves the store unchanged: the manager may try
	 * again */
	if (stopping)
		drain_end(supervisor);
	if (supervisor->keep) {
		log_event(LOG_INFO, EVENT_HANDOVER,
		          "Handed %" PRIu64 " connection%s over to the next process",
		          supervisor->preserve.kept, plural(supervisor->preserve.kept));
		log_drained(supervisor);
	} else if (stopping) {
		/* the manager would drop them only after this process has ended */
		fdstore_forget(&supervisor->sockets);
		restore_forget(&supervisor->restore);
	}
	preserve_clear(&supervisor->preserve);
	restore_clear(&supervisor->restore);
}

static void supervisor_finish(struct supervisor *supervisor)
{
	finish_sockets(supervisor);
	if (supervisor->context.scoreboard)
		report_suppressed(&supervisor->report, supervisor->context.scoreboard);
	if (supervisor->current) {
		count_dropped(supervisor);
		report_final(&supervisor->report, supervisor->context.scoreboard, supervisor->current->conf);
	}
	sockets_abandon(&supervisor->next_sockets); /* of a reload that was interrupted by the stop */
	close_retired(supervisor);
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
	};

	list_init(&supervisor.crews);
	list_init(&supervisor.preserve.packs);
	list_init(&supervisor.restore.overflow.packs);
	/* where standard error is connected to the journal, one message is enough */
	log_also_stderr(!log_stderr_is_journal());
	open_log(conf, options->foreground);
	warn_about_log_target(conf, options->foreground);
	log_event(LOG_INFO, EVENT_STARTED, "Starting echod %s with %s", PACKAGE_VERSION, conf->path);
	if (supervisor_start(&supervisor, conf, store) == 0)
		supervisor_loop(&supervisor);
	supervisor_finish(&supervisor);
	if (supervisor.status != 0)
		daemonize_report(supervisor.status);
	return supervisor.status;
}
