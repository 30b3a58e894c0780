/* SPDX-License-Identifier: ISC */
/* supervisor_state.h - the state of the supervisor, and steps that its parts share
 *
 * start.c, reload.c, retire.c and stop.c change the state; supervisor.c waits for events and calls them. One
 * thread.
 */
#ifndef ECHOD_DAEMON_SUPERVISOR_STATE_H
#define ECHOD_DAEMON_SUPERVISOR_STATE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/clock.h"
#include "base/idle.h"
#include "base/list.h"
#include "base/log.h"
#include "base/ratelimit.h"
#include "conf/conf.h"
#include "conf/options.h"
#include "daemon/crew.h"
#include "daemon/preserve.h"
#include "daemon/privileges.h"
#include "daemon/report.h"
#include "daemon/sockets.h"
#include "models/handover/drain.h"
#include "models/worker.h"

/* Time that the old crew waits for space in the queue during a reload. */
#define HAND_OVER_WAIT (10 * USEC_PER_SEC)

/* Interval between two checks whether the queue is empty. */
#define SETTLE_INTERVAL (100 * USEC_PER_MSEC)

enum phase { PHASE_STARTING, PHASE_SERVING, PHASE_STOPPING };

struct supervisor { /* NOLINT(clang-analyzer-optin.performance.Padding): there is one, ordered by meaning */
	const struct options *options;
	struct privileges privileges;
	enum phase phase;
	struct list crews;           /* all crews that have processes, the youngest last */
	struct crew *current, *next; /* next: being started by a start or a reload */
	struct crew *last;           /* stopping: its configuration is needed until the end */
	struct worker self;          /* stopping: stands for the supervisor in `drain` */
	struct sockets sockets, next_sockets;
	struct sockets retired; /* listeners that are not named any more */
	bool activated;         /* the sockets come from a socket unit */
	bool differs;           /* from the file's listen and port, which was logged */
	bool reload_again;      /* SIGHUP arrived during a start or a reload */
	bool reaping;           /* more than REAP_BATCH processes have ended */
	struct crew_context context;
	int signals, relay;
	void (*on_signals)(struct supervisor *supervisor); /* handle the signals that have arrived */
	int pidfile;
	char *pidfile_path;
	int status;               /* exit status */
	bool start_cancelled;     /* by a signal, while the start waited for an address */
	bool stop_at_once;        /* a second stop request was accepted: end at once */
	int64_t stop_again_from;  /* clock_usec() from which a stop signal is a second request */
	struct ratelimit ignored; /* limits lines about ignored signals */
	bool keep;                /* stopping: connections go into the descriptor store */
	bool flush;               /* keep: the manager may still close them, so owed bytes are sent first */
	bool preserving;          /* connections can be put into the store */
	bool preserve_late;  /* the store failed; connections left in the queue are tried again, one by one */
	bool preserved;      /* all connections are in the store */
	bool unsettled;      /* see supervisor_settle_queue() */
	int64_t settle_at;   /* at which the counts of an empty queue are surely wrong; INT64_MAX: none */
	int64_t preserve_at; /* preserving: clock_usec() at which to check whether workers can send */
	struct preserve preserve;
	struct restore restore; /* connections kept by a predecessor, or for which the queue had no space */
	int64_t overflow_at;    /* see relieve_queue() */
	struct drain drain;     /* stopping: connections that no worker takes and the store does not keep */
	int64_t drain_until;    /* clock_usec() at which they are closed */
	int64_t drain_usec;     /* drain-timeout */
	int64_t sample_at;      /* see sample_counters() */
	struct report report;
	uint64_t work; /* number of signals, log records and reports of readiness read */
	struct idle idle;
	int64_t error_at; /* earliest time of STATUS= with the next error; 0: now */
	int64_t ready_until, watchdog_at, stats_at, suppressed_at, extend_at, notify_at, retire_at,
		retire_until;
	int64_t watchdog_usec;
};

/* Open the log as `conf` says. `foreground`: of struct options. */
void supervisor_open_log(const struct conf *conf, bool foreground);

/* Log a warning if nothing will be logged: standard error of a daemon in the background is /dev/null once it
 * has started. */
void supervisor_check_log_target(const struct conf *conf, bool foreground);

/* Of an activated service: log that its sockets, which the socket unit determines, differ from listen and
 * port of `conf`, once until they agree again. */
void supervisor_compare_sockets(struct supervisor *supervisor, const struct conf *conf);

/* Count the datagrams that the kernel has dropped from the queues of the sockets. */
void supervisor_count_dropped(struct supervisor *supervisor);

/* Refresh STATUS=, the metrics file and the statistics line. */
void supervisor_report(struct supervisor *supervisor, enum report_kind kind);

/* Set the time of the next refresh, by stats-interval. */
void supervisor_set_stats_timer(struct supervisor *supervisor);

/* Put the listeners into the descriptor store, or take them out, as keep-connections says. */
void supervisor_store_sockets(const struct supervisor *supervisor);

/* Log model, workers and listeners. `what`: "Ready" or "Reloaded". */
void supervisor_log_serving(struct supervisor *supervisor, enum event event, const char *what);

/* Send the whole state to the service manager. */
void supervisor_notify(struct supervisor *supervisor);

/* Add the crew `next`, which was just started, and wait for it for at most READY_TIMEOUT. */
void supervisor_add_next(struct supervisor *supervisor);

/* Whether a crew is stopping. */
bool supervisor_any_stopping(const struct supervisor *supervisor);

/* Ask a crew to stop within drain-timeout of the current configuration. `wait`: microseconds that it may wait
 * for space in the queue. */
void supervisor_stop_crew(struct supervisor *supervisor, struct crew *crew, enum stats_stop how,
                          int64_t wait);

/* Correct the count of connections in the queue, when it is empty and no crew puts connections in. Before
 * that, or after a process was killed in the middle, the count may be too high. A count that is too high is
 * corrected only where it was so SETTLE_INTERVAL before: a worker counts a connection as received after the
 * call that took it out of the queue, and would then count one that was corrected already. */
void supervisor_settle_queue(struct supervisor *supervisor, int64_t now);

/* A reload to a model that serves few connections at a time leaves the others in the queue. While it is full
 * and an old crew hands over, keep connections in memory. */
void supervisor_relieve_queue(struct supervisor *supervisor, int64_t now);

/* Whether connections can be fed to the workers: while an old crew hands over, it needs the space in the
 * queue. */
bool supervisor_may_feed(const struct supervisor *supervisor);

/* The worker that stands for the supervisor where it takes connections itself, under `conf`. It does not
 * count sources. */
struct worker supervisor_worker(const struct supervisor *supervisor, const struct conf *conf);

#endif
