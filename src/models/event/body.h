/* SPDX-License-Identifier: ISC */
/* body.h - shared part of the readiness loop (loop.c) and the completion loop (uring.c)
 *
 * Owns the sessions of one loop, takes new ones, ends idle ones, and stops. Watching and serving a session is
 * left to the loop (struct body_ops). Every step is bounded: a loop iteration handles at most a fixed number
 * of sessions, regardless of how many connect, expire or have to be handed over at once. Embedded in struct
 * loop and struct uring. One thread.
 */
#ifndef ECHOD_MODELS_BODY_H
#define ECHOD_MODELS_BODY_H

#include "base/pool.h"
#include "models/accept/accept.h"
#include "models/session_io.h"

struct body;

struct body_ops {
	/* Start to serve a session that was just opened. Returns 0, or -errno where it was not started. */
	int (*start)(struct body *body, struct session *session);
	/* End a session whose conn.reason is set. */
	void (*end)(struct body *body, struct session *session);
	/* The worker stops: hand the session over if `hand_over` and possible, otherwise drain it. */
	void (*stop)(struct body *body, struct session *session, bool hand_over);
	/* Whether no operation of the session is in flight, so that it can be handed over; if one is, it is
	 * made to end. NULL: there never is. */
	bool (*is_quiet)(struct body *body, const struct session *session);
	/* Stop watching a session, which was handed over, and take it out of its list. */
	void (*detach)(struct body *body, struct session *session);
	/* Check a draining session. */
	void (*drain)(struct body *body, struct session *session);
};

struct body {
	struct worker *worker;
	const struct body_ops *ops;
	struct session_io io;
	struct accept_state accept;
	struct pool pool;
	struct list sessions;   /* ordered by last activity, the longest idle first */
	struct list draining;   /* stopping: to be checked in this round */
	struct list drain_next; /* stopping: to be checked in the next round */
	int64_t sort_at;        /* see session_enlist() */
	int64_t drain_at;       /* clock_usec() of the next round of checks */
	int64_t now;            /* coarse clock_usec(), read once an iteration */
	bool stop_seen;         /* a stop request was seen in a batch of events; body_stop() is called
	                         * after the batch */
	bool stopping;          /* body_stop() was called */
};

/* Initialize everything except descriptors. Returns 0 or -errno; body_close() is needed in both cases. */
int body_open(struct body *body, struct worker *worker, const struct body_ops *ops);
void body_close(struct body *body);

/* Serve a new connection. */
void body_begin(struct body *body, const struct new_conn *new_conn);

/* Accept one batch from listener `index`, or take one from the queue of handed-over connections. */
void body_accept(struct body *body, size_t index);
void body_inherit(struct body *body);

/* Maintain the order by activity after a session was served; `before` is its former `active`. */
static inline void body_served(struct body *body, struct session *session, uint32_t before)
{
	if (session->active != before && !session->conn.draining)
		list_move_last(&body->sessions, &session->link);
}

/* Hand a session over. Returns 0, and it is gone; -EAGAIN: try again in the next round; or another -errno. */
int body_hand_over(struct body *body, struct session *session);

/* Move a session to the draining ones. */
void body_drain_begin(struct body *body, struct session *session);

/* Act on the stop request: take no more connections. */
void body_stop(struct body *body);

/* End an iteration after its events: end idle sessions; while stopping, hand over or drain a batch. */
void body_iteration_end(struct body *body);

/* clock_usec() at which the next iteration must begin at the latest. */
int64_t body_deadline(const struct body *body);

/* Whether the worker has stopped and no session is left. */
bool body_done(const struct body *body);

#endif
