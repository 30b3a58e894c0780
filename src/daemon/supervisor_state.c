/* SPDX-License-Identifier: ISC */
#include <config.h>

#include "daemon/supervisor_state.h"

#include <unistd.h>

#include "base/notify.h"
#include "base/plural.h"
#include "daemon/fdstore.h"
#include "models/handover/handover.h"
#include "models/model.h"

/* Maximum time until every worker of a new crew is ready. */
#define READY_TIMEOUT (30 * USEC_PER_SEC)

/* Interval between two checks during a reload whether the queue is full, so that the supervisor must take
 * connections out of it. */
#define OVERFLOW_INTERVAL (50 * USEC_PER_MSEC)

void supervisor_open_log(const struct conf *conf, bool foreground)
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

void supervisor_check_log_target(const struct conf *conf, bool foreground)
{
	if (conf->log_target == CONF_LOG_STDERR && !foreground)
		log_event(LOG_WARNING, EVENT_CONFIG_WRONG,
		          "%s: log-target is \"stderr\", but in the background standard error is /dev/null: "
		          "nothing will be logged; use \"auto\", \"journal\" or \"syslog\", or start with "
		          "--foreground",
		          conf->path);
}

void supervisor_compare_sockets(struct supervisor *supervisor, const struct conf *conf)
{
	bool differs = !sockets_are_configured(&supervisor->sockets, conf);
	char have[1024];

	if (differs && !supervisor->differs)
		log_event(LOG_NOTICE, EVENT_LISTENERS_DIFFER,
		          "Serving the sockets passed by the service manager (%s); listen and port of %s "
		          "differ and are not used",
		          sockets_print(&supervisor->sockets, have, sizeof have), conf->path);
	supervisor->differs = differs;
}

void supervisor_count_dropped(struct supervisor *supervisor)
{
	stats_add(scoreboard_own_slot(supervisor->context.scoreboard), STAT_UDP_QUEUE_FULL,
	          sockets_count_dropped(&supervisor->sockets, &supervisor->next_sockets));
}

void supervisor_report(struct supervisor *supervisor, enum report_kind kind)
{
	supervisor_count_dropped(supervisor);
	report_refresh(&supervisor->report, supervisor->context.scoreboard, supervisor->current->conf,
	               supervisor->current->limits.workers, kind);
}

void supervisor_set_stats_timer(struct supervisor *supervisor)
{
	unsigned interval = supervisor->current->conf->stats_interval;

	supervisor->stats_at = interval == 0 ? INT64_MAX : clock_usec() + (int64_t) interval * USEC_PER_SEC;
}

void supervisor_store_sockets(const struct supervisor *supervisor)
{
	if (!notify_enabled())
		return;
	if (supervisor->current->conf->keep_connections)
		fdstore_keep(&supervisor->sockets);
	else
		fdstore_forget(&supervisor->sockets);
}

void supervisor_log_serving(struct supervisor *supervisor, enum event event, const char *what)
{
	char sockets[1024];

	log_identify(supervisor->current->model->name, -1);
	log_event(LOG_NOTICE, event, "%s: model %s, %u worker%s, listening on %s", what,
	          supervisor->current->model->name, supervisor->current->limits.workers,
	          plural(supervisor->current->limits.workers),
	          sockets_print(&supervisor->sockets, sockets, sizeof sockets));
}

void supervisor_notify(struct supervisor *supervisor)
{
	supervisor_store_sockets(supervisor);
	if (!supervisor->options->foreground)
		notify_send("MAINPID=%d", (int) getpid());
	supervisor_report(supervisor, REPORT_READY);
}

bool supervisor_any_stopping(const struct supervisor *supervisor)
{
	for (const struct list *at = supervisor->crews.next; at != &supervisor->crews; at = at->next)
		if (LIST_ENTRY(at, const struct crew, link)->stopping)
			return true;
	return false;
}

void supervisor_settle_queue(struct supervisor *supervisor, int64_t now)
{
	struct admission_shared *shared = &scoreboard_shared(supervisor->context.scoreboard)->admission;
	const struct admission admission = { .shared = shared };

	if (supervisor_any_stopping(supervisor) || restore_active(&supervisor->restore) ||
	    handover_waiting(supervisor->context.inbox) > 0) {
		supervisor->settle_at = INT64_MAX;
		return;
	}
	/* a worker may have received the last connection and not counted it yet */
	if (admission_queue_pending(&admission)) {
		if (supervisor->settle_at == INT64_MAX)
			supervisor->settle_at = now + SETTLE_INTERVAL;
		if (now < supervisor->settle_at)
			return;
	}
	admission_queue_settle(shared, 0);
	supervisor->unsettled = false;
	supervisor->settle_at = INT64_MAX;
}

void supervisor_stop_crew(struct supervisor *supervisor, struct crew *crew, enum stats_stop how, int64_t wait)
{
	const struct conf *conf = supervisor->current ? supervisor->current->conf : crew->conf;
	int64_t now = clock_usec(), drain = (int64_t) conf->drain_timeout * USEC_PER_SEC;

	supervisor_settle_queue(supervisor, now);
	supervisor->unsettled = true;
	if (how == STOP_HAND_OVER)
		supervisor->overflow_at = now + OVERFLOW_INTERVAL;
	if (how == STOP_FLUSH)
		crew_stop(crew, how, now + drain + wait, now + drain);
	else
		crew_stop(crew, how, now + wait, now + wait + drain);
}

bool supervisor_may_feed(const struct supervisor *supervisor)
{
	return supervisor->phase != PHASE_STOPPING && supervisor->overflow_at == INT64_MAX &&
	       restore_active(&supervisor->restore);
}

struct worker supervisor_worker(const struct supervisor *supervisor, const struct conf *conf)
{
	struct admission_shared *admission = &scoreboard_shared(supervisor->context.scoreboard)->admission;

	return (struct worker) {
		.conf = conf,
		.slot = scoreboard_own_slot(supervisor->context.scoreboard),
		.admission = { .shared = admission,
		               .own = &admission->supervisor,
		               .group = ADMISSION_GROUPS,
		               .allow = &conf->allow,
		               .deny = &conf->deny,
		               .max_connections = UINT32_MAX },
		.outbox_fd = supervisor->context.outbox,
	};
}

void supervisor_relieve_queue(struct supervisor *supervisor, int64_t now)
{
	bool stopping = supervisor_any_stopping(supervisor);

	supervisor->overflow_at = stopping ? now + OVERFLOW_INTERVAL : INT64_MAX;
	/* at the end take what came last, so that the order is kept */
	if (stopping ? !handover_has_space(supervisor->context.outbox)
	             : !list_empty(&supervisor->restore.overflow.packs))
		restore_take(&supervisor->restore, supervisor->context.inbox, supervisor->context.outbox);
}

void supervisor_add_next(struct supervisor *supervisor)
{
	list_append(&supervisor->crews, &supervisor->next->link);
	supervisor->ready_until = clock_usec() + READY_TIMEOUT;
}
