/* SPDX-License-Identifier: ISC */
/* crew.h - the processes that serve under one configuration
 *
 * Supervisor only, one thread. Life of a crew: crew_start() forks the processes; crew_ready() becomes true;
 * crew_stop() asks them to end; when crew_gone() is true, crew_free(). A crew owns its configuration.
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

/* Shared by all crews; made by the supervisor when it starts. */
struct crew_context {
	struct scoreboard *scoreboard;
	int inbox, outbox;   /* the queue of handed-over connections */
	int wakeup; /* eventfd by which a worker makes another one check the listeners, see acceptor.h */
	int log_relay;       /* socket to which workers send log records */
	int64_t heartbeat_usec;   /* INT64_MAX: no watchdog */
};

struct crew_process {
	pid_t pid;           /* 0: not running */
	unsigned index;      /* of its first worker */
	unsigned threads;    /* workers in it */
	const struct listener *socket; /* the datagram socket that it reads; NULL: it serves connections */
	int ended;           /* of a reader: at end of file when its process has ended; -1: not started yet */
	int udp_ratelimit; /* of a reader: the table of udp-rate (echo/udp_ratelimit.h); -1: none yet */
	unsigned failures;   /* number of failures in a row */
	int64_t started;     /* clock_usec() */
	int64_t restart_at;  /* clock_usec(); INT64_MAX: not pending */
};

struct crew_orphan {
	pid_t pid;
	unsigned child;      /* number among the children of the crew */
};

struct crew {
	struct list link;    /* in the supervisor's list */
	struct conf *conf;
	const struct model *model;
	const struct crew_context *context;
	const struct list *others; /* all crews that have processes, including this one once the supervisor
	                            * has added it */
	struct sockets sockets;  /* copied, stream sockets first; the descriptors belong to the
	                          * supervisor's set */
	size_t streams;          /* number of stream sockets */
	struct model_limits limits;
	int number;              /* on the scoreboard; -1: none */
	struct crew_process *processes;
	unsigned process_count;
	unsigned serving;        /* number of processes that serve connections: the first ones */
	unsigned first_child;    /* index of the first worker that the first process creates itself */
	struct crew_orphan *orphans; /* child processes whose parent was killed */
	size_t orphan_count;
	bool killed;             /* crew_kill() was called: orphans found later are killed as well */
	bool was_ready;
	struct sock_fprog *stream_filter, *datagram_filter; /* system call filters; NULL: none */
	int stop_in, stop_out;   /* closing stop_in makes stop_out readable for all workers */
	int ready_in, ready_out;
	bool failed;             /* a process ended before the crew was ready */
	bool stopping;
	int64_t kill_at;         /* stopping: clock_usec() at which to send SIGKILL */
};

/* Fork the crew for `conf` to serve `sockets` (copied). Takes over `conf`, also on failure. `others` is the
 * list of crews that still have processes; it must outlive the crew. Returns 0, or -errno with a message
 * logged. Where only some processes could be forked, it returns 0 and the crew has failed: the caller must
 * stop it. */
int crew_start(struct crew **crew, struct conf *conf, const struct sockets *sockets,
               const struct crew_context *context, const struct list *others);

/* Read from ready_out, which is readable when workers have become ready. Returns the number of their
 * messages, at most 4096. */
unsigned crew_note_ready(struct crew *crew);

/* Whether every worker of the crew has become ready. */
bool crew_ready(struct crew *crew);

/* Handle the end of process `pid` with wait(2) status `status`. Returns whether it belonged to this crew. A
 * running crew replaces it after a pause that doubles with each failure in a row. */
bool crew_reaped(struct crew *crew, pid_t pid, int status);

/* Start replacements that are due at `now`, or kill a stopping crew. Returns when to call again
 * (clock_usec()), or INT64_MAX. */
int64_t crew_maintain(struct crew *crew, int64_t now);

/* Ask the crew to stop. `how`: what happens to connections. Where they are handed over, workers wait for
 * space in the queue until `hand_until`; remaining connections are drained until `drain_until`
 * (clock_usec()). May be repeated: a drain stays a drain, and the earlier of both times is valid. */
void crew_stop(struct crew *crew, enum stats_stop how, int64_t hand_until, int64_t drain_until);

/* Kill all processes. */
void crew_kill(struct crew *crew);

/* Whether all processes have ended. */
bool crew_gone(const struct crew *crew);

/* Whether every ready worker has increased its heartbeat since the last call. */
bool crew_alive(struct crew *crew);

/* Free the crew, which must be gone. NULL is allowed. */
void crew_free(struct crew *crew);

#endif
