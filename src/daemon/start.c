/* SPDX-License-Identifier: ISC */
#include <config.h>

#include "daemon/start.h"

#include <errno.h>
#include <poll.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sysexits.h>
#include <unistd.h>

#include "base/notify.h"
#include "base/plural.h"
#include "base/sandbox.h"
#include "daemon/daemonize.h"
#include "daemon/pidfile.h"
#include "daemon/retire.h"
#include "daemon/signals.h"
#include "models/handover/handover.h"
#include "models/model.h"

/* Time that a start waits for an address or an interface, and the interval between two attempts. With
 * RestartSec= of the unit, a service that waits for hours stays below the unit's StartLimitBurst=. */
#define ADDRESS_WAIT (10 * USEC_PER_SEC)
#define ADDRESS_INTERVAL (200 * USEC_PER_MSEC)

void start_failed(struct supervisor *supervisor, int status, const char *format, ...)
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
		supervisor->on_signals(supervisor);
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
		supervisor_compare_sockets(supervisor, conf);
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

int start_begin(struct supervisor *supervisor, struct conf *conf, struct fdstore *store)
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
	supervisor_add_next(supervisor);
	return 0;
}

void start_done(struct supervisor *supervisor)
{
	supervisor->current = supervisor->next;
	supervisor->next = NULL;
	supervisor->phase = PHASE_SERVING;
	supervisor_log_serving(supervisor, EVENT_READY, "Ready");
	/* INVOCATION_ID: systemd started this service */
	if (notify_enabled() && getenv("INVOCATION_ID") && supervisor->current->conf->keep_connections &&
	    !fdstore_is_useful())
		log_event(LOG_WARNING, EVENT_HANDOVER,
		          "Cannot keep connections over a restart: systemd before 254 reports only over the "
		          "system bus that a stop is part of a restart, and there is no system bus");
	supervisor_notify(supervisor);
	supervisor_set_stats_timer(supervisor);
	log_also_stderr(false);
	daemonize_report(0);
	if (supervisor->watchdog_usec > 0)
		supervisor->watchdog_at = clock_usec() + supervisor->watchdog_usec / 2;
}
