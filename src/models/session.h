/* SPDX-License-Identifier: ISC */
/* session.h - a connection in a worker: the echo, its socket and its links
 *
 * Plain data that can be handed to another worker, model or process (handover.h). One thread at a time.
 * Fields for models are part of it; a connection has no other state elsewhere that cannot be lost.
 */
#ifndef ECHOD_MODELS_SESSION_H
#define ECHOD_MODELS_SESSION_H

#include <stdint.h>

#include "base/list.h"
#include "echo/conn.h"
#include "models/poller.h"
#include "models/worker.h"
#include "net/peer.h"
#include "net/proxy.h"

/* Activity is stored in ticks of 2^18 microseconds, about a quarter of a second, modulo 2^29 (four years,
 * longer than any idle-timeout), in part of a word. */
#define SESSION_TICK_SHIFT 18
#define SESSION_TICK_BITS 29

struct splice_pipe;

struct session {
	struct conn conn; /* while conn.header is set, the source is not counted */
	struct list link; /* in the list of its body, ordered by last activity */
	struct peer peer;
	struct proxied proxied;
	bool readmit : 1; /* another process must admit the peer. With conn.header: the header was received,
	                   * and nothing is received or sent before, see session_header(); in the supervisor
	                   * (drain.c) also a connection that was `unadmitted` */
	struct splice_pipe *pipe;            /* contains conn.piped bytes; NULL while that is 0 */
	struct watch watch;                  /* the socket */
	uint32_t active : SESSION_TICK_BITS; /* tick of the last byte sent or received */
	bool bulk : 1;                       /* receives are long: use a pipe */
	bool choked : 1;                     /* the pipe accepted no more: no receive until bytes were sent */
	bool lingering : 1;                  /* FIN was sent, see session_io_linger() */
};

/* A connection just accepted or received from the queue: admitted, with slot and source counted. */
struct new_conn {
	int fd;
	bool shared_ofd; /* from the queue: the predecessor may still have the descriptor */
	bool unadmitted; /* from the queue: max-per-source was not checked, the source is not counted */
	struct conn conn;
	struct peer peer;
	struct proxied proxied;
	int64_t active; /* clock_usec() of the last byte sent or received */
};

/* Initialize a connection `fd` that was just accepted, but for its peer. */
void new_conn_init(struct new_conn *new_conn, int fd);

/* A connection was just accepted from `new_conn->peer`: if `proxy-protocol` lists that, have the session wait
 * for a header, and return true. Such a connection is not admitted before. */
bool new_conn_expect_header(struct new_conn *new_conn, const struct conf *conf);

/* Fill `*new_conn` to hand the session over; descriptor and memory remain those of the session. Where it has
 * `readmit`, the receiver admits the peer that the header named. */
void new_conn_from_session(struct new_conn *new_conn, const struct session *session);

/* Initialize the session from `new_conn`, whose descriptor and memory it now owns. The connection is already
 * counted in the worker's `live`. */
void session_open(struct session *session, const struct new_conn *new_conn);

/* End the session, for conn.reason: log and count it, give back its source, close the descriptor, release its
 * slot, free its memory (not the struct). Its pipe must have been given back before. */
void session_close(struct session *session, struct worker *worker);

/* End the session at the end of drain-timeout, with bytes still owed. The caller closes it next. */
void session_cut(struct session *session, const struct worker *worker);

/* After the connection was handed over: close the descriptor here and free its memory. The slot moved with
 * the connection. Logged at level debug only. A connection whose conn.header is set is not counted: the
 * process that admits its peer counts it as accepted. */
void session_forget(struct session *session, struct worker *worker);

/* Record activity at time `now`. */
static inline void session_touch(struct session *session, int64_t now)
{
	session->active = (uint32_t) (now >> SESSION_TICK_SHIFT) & ((1U << SESSION_TICK_BITS) - 1);
}

/* clock_usec() of the last activity, rounded down to a tick; `now` resolves the wrap-around. */
int64_t session_active_usec(const struct session *session, int64_t now);

/* clock_usec() from which the session is idle for too long; INT64_MAX: never. Never early, at most one tick
 * late. */
int64_t session_idle_deadline(const struct session *session, const struct conf *conf, int64_t now);

/* Append a new session to `sessions`, which are ordered by last activity, the longest idle first. A session
 * that was handed over may belong further in front: then `*sort_at`, if it is INT64_MAX, is set to the time
 * at which sessions_sort() is due, one tick later, because many such sessions may follow. sessions_sort()
 * before that time does nothing. */
void session_enlist(struct list *sessions, struct session *session, int64_t now, int64_t *sort_at);
void sessions_sort(struct list *sessions, int64_t now, int64_t *sort_at);

/* Trace a connection that this worker has accepted, or has received from the queue: a probe (base/probe.h),
 * and a line at level debug within the limits of lines about connections. */
void session_trace_accept(const struct worker *worker, const struct new_conn *new_conn);
void session_trace_receive(const struct worker *worker, const struct new_conn *new_conn);

/* Bytes were received for a session whose conn.header is set. Once the header is complete, sets the peer that
 * it names, and admits it; ends the session with CONN_PROXY where it is invalid, CONN_DENIED or CONN_LIMIT
 * where the peer is refused. A child of model `process`, which does not count sources where that is needed,
 * and the supervisor (`worker` NULL) cannot admit: then sets `readmit` and leaves conn.header set, for
 * serve(), which hands the session over to the parent unless it drains, and for drain_serve(). */
void session_header(struct session *session, const struct worker *worker);

/* The header is complete: admit the peer that it names, or end the session with CONN_DENIED or CONN_LIMIT. In
 * a child of model `process`, max-per-source is not checked: that is for a session that is drained. */
void session_admit(struct session *session, const struct worker *worker);

/* A child process, which began with a copy of this process's budget of lines about connections, has written a
 * line about a connection of `peer`: charge it here. */
void session_charge_line(const struct peer *peer);

/* Log and count a connection that was refused after accept(2). */
void session_refused(const struct worker *worker, const struct new_conn *new_conn,
                     enum admission_verdict verdict);

#endif
