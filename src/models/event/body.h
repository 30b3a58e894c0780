/* SPDX-License-Identifier: ISC */
/* body.h - the part that the event loops over readiness (loop.c) and over completions (uring.c) share
 *
 * Holds the sessions of one loop, takes new ones, ends idle ones, and stops. How a session is watched and served is the
 * loop's own (struct body_ops). Every step is bounded: a loop iteration handles at most a fixed number of sessions,
 * however many connect, expire or have to be handed over at once. Embedded in struct loop and struct uring. One thread.
 */
#ifndef ECHOD_MODELS_BODY_H
#define ECHOD_MODELS_BODY_H

#include "base/pool.h"
#include "models/accept/accept.h"
#include "models/session_io.h"

struct body;

struct body_ops {
	/* Start to serve a session that was opened just now. 0 or -errno, after which it was not started. */
	int (*start)(struct body *body, struct session *session);
	/* End a session whose conn.reason is set. */
	void (*end)(struct body *body, struct session *session);
	/* The worker stops: hand the session over if `hand_over`; drain it otherwise, or where it cannot be handed over. */
	void (*stop)(struct body *body, struct session *session, bool hand_over);
	/* Hand a session over that is draining. Returns 0, and it is gone; -EAGAIN: to be tried again in the next round; or
	 * another -errno. */
	int (*hand_over)(struct body *body, struct session *session);
	/* Look again at a session that is draining. */
	void (*drain)(struct body *body, struct session *session);
};

struct body {
	struct worker *worker;
	const struct body_ops *ops;
	struct session_io io;
	struct accept_state accept;
	struct pool pool;
	struct list sessions;   /* by last activity, the longest idle first */
	struct list draining;   /* the worker stops: looked at in this round */
	struct list drain_next; /* likewise, to be looked at in the next round */
	int64_t sort_at;        /* see session_enlist() */
	int64_t drain_at;       /* when the next round of looking at draining sessions begins */
	int64_t now;            /* coarse, taken once an iteration */
	bool stop_seen;         /* the request to stop was seen in a batch of events, and is acted upon after it */
	bool stopping;          /* it was acted upon */
};

/* Prepare everything but descriptors. 0 or -errno, after which body_close() is still right. */
int body_open(struct body *body, struct worker *worker, const struct body_ops *ops);
void body_close(struct body *body);

/* Serve a new connection. */
void body_begin(struct body *body, const struct new_conn *new_conn);

/* Accept from listener `index`, or take from the queue of handed-over connections, one batch. */
void body_accept(struct body *body, size_t index);
void body_inherit(struct body *body);

/* Keep the order by activity: the session, whose `active` was `before`, was served. */
static inline void body_served(struct body *body, struct session *session, uint32_t before)
{
	if (session->active != before && !session->conn.draining)
		list_move_last(&body->sessions, &session->link);
}

/* A session goes on as a draining one. */
void body_drain_begin(struct body *body, struct session *session);

/* Act upon the request to stop: take no more connections. */
void body_stop(struct body *body);

/* The part of an iteration after its events: end idle sessions; while stopping, hand over or drain a batch. */
void body_iteration_end(struct body *body);

/* When the next iteration must begin at the latest, clock_usec(). */
int64_t body_deadline(const struct body *body);

/* Whether the worker has stopped and no session is left. */
bool body_done(const struct body *body);

#endif
