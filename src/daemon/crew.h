/* SPDX-License-Identifier: ISC */
/* crew.h - the processes that serve under one configuration
 *
 * Raised, watched, stopped and reaped by the supervisor, which has one thread. The order of
 * a life: crew_start() forks; crew_ready() becomes true; crew_stop() orders the end; when
 * crew_gone(), crew_free(). A crew owns its configuration.
 */
#ifndef ECHOD_DAEMON_CREW_H
#define ECHOD_DAEMON_CREW_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/list.h"
#include "conf/conf.h"
#include "daemon/sockets.h"
#include "echo/scoreboard.h"
#include "models/model.h"
#include "net/admission.h"

/* What all crews share, made by the supervisor at its start. */
struct crew_context {
	struct scoreboard *scoreboard;
	int inbox, outbox;   /* the queue of handed-over connections */
	int wakeup;          /* eventfd with which a worker has another one look for connections, see acceptor.h */
	int log_relay;       /* where workers send log records */
	int64_t heartbeat_usec;   /* INT64_MAX: no watchdog */
};

struct crew_process {
	pid_t pid;           /* 0: not running */
	unsigned index;      /* of its first worker */
	unsigned threads;    /* workers in it */
	const struct listener *socket; /* the datagram socket that it reads; NULL: it serves connections */
	int ended;           /* a reader's: at end of file when its process has ended; -1: none was started */
	int udp_ratelimit;           /* a reader's: the table of udp-rate (echo/udp_ratelimit.h); -1: none yet */
	unsigned failures;   /* in a row */
	int64_t started;     /* clock_usec() */
	int64_t restart_at;  /* INT64_MAX: no need */
};

struct crew_orphan {
	pid_t pid;
	unsigned child;      /* its number among the children of the crew */
};

struct crew {
	struct list link;    /* the supervisor's */
	struct conf *conf;
	const struct model *model;
	const struct crew_context *context;
	const struct list *others; /* all crews that have processes; this one too, once it has been raised */
	struct sockets sockets;  /* what it was raised with, stream sockets first; descriptors belong to the supervisor's set */
	size_t streams;          /* stream sockets among them */
	struct model_limits limits;
	int number;              /* on the scoreboard; -1: none */
	struct crew_process *processes;
	unsigned process_count;
	unsigned serving;        /* processes that serve connections: the first ones */
	unsigned first_child;    /* index of the first worker that the first process makes itself */
	struct crew_orphan *orphans; /* child processes whose parent was killed */
	size_t orphan_count;
	bool killed;             /* none of its processes may live on */
	bool was_ready;
	struct sock_fprog *stream_filter, *datagram_filter; /* of system calls; NULL: none */
	int stop_in, stop_out;   /* closing stop_in makes stop_out readable for all workers */
	int ready_in, ready_out;
	bool failed;             /* a process ended before the crew was ready */
	bool stopping;
	int64_t kill_at;         /* stopping: when patience ends */
};

/* Fork the crew for `conf`, which it takes over (also on failure), to serve `sockets` (copied). `others`: the crews that
 * still have processes, a list that outlives the crew. Returns 0, or -errno with a message logged. Where some processes
 * could be forked and others not, it returns 0 and the crew has failed: it must be stopped. */
int crew_start(struct crew **crew, struct conf *conf, const struct sockets *sockets,
               const struct crew_context *context, const struct list *others);

/* ready_out is readable: workers may have become ready. Returns how many messages of theirs were read, at most 4096. */
unsigned crew_note_ready(struct crew *crew);

/* Whether every worker accepts, or did once. */
bool crew_ready(struct crew *crew);

/* The process `pid` has ended with wait(2) status `status`. Returns whether it was one of this crew's.
 * In a running crew it will be replaced, after a pause that doubles with each failure in a row. */
bool crew_reaped(struct crew *crew, pid_t pid, int status);

/* Replace what must be replaced at `now`. Returns when to call again; INT64_MAX: need not. */
int64_t crew_maintain(struct crew *crew, int64_t now);

/* Stop it: `how` connections are treated; where they are handed over, workers wait for room in the queue until
 * `hand_until`, and what is left is drained until `drain_until` (clock_usec()). A crew that is stopping
 * already can be told again: a drain stays one, and of both times the earlier one holds. */
void crew_stop(struct crew *crew, enum stats_stop how, int64_t hand_until, int64_t drain_until);

/* End it at once. */
void crew_kill(struct crew *crew);

/* Whether no process is left. */
bool crew_gone(const struct crew *crew);

/* Whether every worker in use has shown life since the last call. */
bool crew_alive(struct crew *crew);

/* Free it; it must be gone. NULL is fine. */
void crew_free(struct crew *crew);

#endif
