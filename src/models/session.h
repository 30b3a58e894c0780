/* SPDX-License-Identifier: ISC */
/* session.h - a connection as a worker holds it: the echo, its socket and what surrounds them
 *
 * Plain data that can be handed to another worker, model or process (handover.h). One thread
 * at a time. The models keep their own places in it (see the fields); nothing else may be kept
 * about a connection elsewhere that it could not do without.
 */
#ifndef ECHOD_MODELS_SESSION_H
#define ECHOD_MODELS_SESSION_H

#include <stdint.h>

#include "base/list.h"
#include "echo/conn.h"
#include "models/event/poller.h"
#include "models/worker.h"
#include "net/peer.h"

/* Activity is counted in ticks of 2^18 microseconds, about a quarter of a second, modulo 2^29
 * (four years, longer than any idle-timeout): it needs no exact clock and leaves room in its word. */
#define SESSION_TICK_SHIFT 18
#define SESSION_TICK_BITS 29

struct splice_pipe;

struct session {
	struct conn conn;
	struct list link;        /* of the body that holds it: by last activity */
	struct peer peer;
	struct splice_pipe *pipe;  /* holds conn.piped bytes; NULL while that is 0 */
	struct watch watch;      /* the socket */
	uint32_t active : SESSION_TICK_BITS; /* tick of the last movement either way */
	bool bulk : 1;           /* receives are long: use a pipe */
	bool choked : 1;         /* its pipe took no more: no receive before something was sent */
	bool lingering : 1;      /* FIN was sent, see session_io_linger() */
};

/* A connection just accepted or taken over: its place and source are admitted and counted. */
struct new_conn {
	int fd;
	bool shared_ofd;            /* taken over: the predecessor may still have its descriptor */
	struct conn conn;
	struct peer peer;
	int64_t active;          /* clock_usec() of the last movement */
};

/* Begin to serve `new_conn`, whose descriptor and memory the session now owns. It is in the worker's count of live
 * connections since it arrived. */
void session_open(struct session *session, const struct new_conn *new_conn);

/* Its end, for conn.reason: log it, count it, give back its place, close the descriptor, free
 * its memory (not the struct; its pipe must have been given back). */
void session_close(struct session *session, struct worker *worker);

/* Its drain-timeout has passed: it ends with whatever is still owed. To be closed next. */
void session_cut(struct session *session, const struct worker *worker);

/* It was handed over, which is no end: close the descriptor, free its memory. Its place has gone along. */
void session_forget(struct session *session, struct worker *worker);

/* Note that something moved at time `now`. */
static inline void session_touch(struct session *session, int64_t now)
{
	session->active = (uint32_t) (now >> SESSION_TICK_SHIFT) & ((1U << SESSION_TICK_BITS) - 1);
}

/* clock_usec() of the last movement, rounded down to a tick; `now` resolves the wrap-around. */
int64_t session_active_usec(const struct session *session, int64_t now);

/* clock_usec() from which on it counts as idle for too long; INT64_MAX: never. Never early,
 * at most one tick late. */
int64_t session_idle_deadline(const struct session *session, const struct conf *conf, int64_t now);

/* Put a session that was just opened behind the last of `sessions`, which stand by last activity, the longest idle first.
 * One that was handed over may belong further in front: then `*sort_at` (INT64_MAX: need not), if not set yet, is set to
 * the time at which sessions_sort() is due, a tick from now, since it may be one of many; before, that does nothing. */
void session_enlist(struct list *sessions, struct session *session, int64_t now, int64_t *sort_at);
void sessions_sort(struct list *sessions, int64_t now, int64_t *sort_at);

/* Log and count a connection that was refused after accept(2). */
void session_refused(const struct worker *worker, int fd, const struct peer *peer, enum admission_verdict verdict);

#endif
