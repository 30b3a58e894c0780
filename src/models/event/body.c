/* SPDX-License-Identifier: ISC */
#include <config.h>

#include "models/event/body.h"

#include <errno.h>

#include "base/clock.h"
#include "models/handover/handover.h"
#include "models/model.h"

/* Interval between two checks of draining sessions, because no event reports that a peer has acknowledged
 * everything. */
#define DRAIN_TICK (10 * USEC_PER_MSEC)

/* Maximum number of sessions that one iteration ends as idle, stops, or checks while draining. */
#define BATCH 64

int body_open(struct body *body, struct worker *worker, const struct body_ops *ops)
{
	int r;

	body->worker = worker;
	body->ops = ops;
	body->now = clock_coarse_usec();
	body->sort_at = INT64_MAX;
	list_init(&body->sessions);
	list_init(&body->draining);
	list_init(&body->drain_next);
	pool_init(&body->pool, sizeof(struct session));
	accept_init(&body->accept, worker);
	r = session_io_open(&body->io, worker->conf->buffer_size, worker->pipes, &worker->local_stats);
	body->io.worker = worker;
	return r;
}

void body_close(struct body *body)
{
	accept_close(&body->accept);
	session_io_close(&body->io);
	pool_destroy(&body->pool);
}

/* --- connections ----------------------------------------------------------------------- */

void body_begin(struct body *body, const struct new_conn *new_conn)
{
	struct session *session = pool_alloc(&body->pool), failed;
	int r = -ENOMEM;

	session_open(session ? session : &failed, new_conn);
	if (session) {
		r = body->ops->start(body, session);
		if (r == 0)
			return;
		failed = *session;
		pool_free(&body->pool, session);
	}
	conn_error(&failed.conn, -r);
	session_close(&failed, body->worker);
	accept_error(&body->accept, -r);
}

void body_accept(struct body *body, size_t index)
{
	enum accept_result result;
	struct new_conn new_conn;
	unsigned got = 0;

	if (!body->accept.open)
		return;
	while (got < body->accept.batch->size &&
	       (result = accept_one(&body->accept, index, &new_conn)) != ACCEPT_NONE) {
		got++;
		if (result == ACCEPT_CONNECTION)
			body_begin(body, &new_conn);
	}
	accept_adapt(&body->accept, got);
}

void body_inherit(struct body *body)
{
	struct new_conn new_conn;

	for (unsigned i = 0; i < body->accept.batch_max; i++) {
		enum accept_result result = accept_inherit(&body->accept, &new_conn);

		if (result == ACCEPT_NONE)
			return;
		if (result == ACCEPT_CONNECTION)
			body_begin(body, &new_conn);
	}
}

static struct session *first(const struct list *sessions)
{
	return LIST_ENTRY(sessions->next, struct session, link);
}

static void expire(struct body *body)
{
	sessions_sort(&body->sessions, body->now, &body->sort_at);
	for (unsigned i = 0; i < BATCH && !list_empty(&body->sessions); i++) {
		struct session *session = first(&body->sessions);

		if (session_idle_deadline(session, body->worker->conf, body->now) > body->now)
			return;
		conn_end(&session->conn, CONN_IDLE);
		body->ops->end(body, session);
	}
}

/* --- stop ------------------------------------------------------------------------------ */

void body_stop(struct body *body)
{
	body->stopping = true;
	accept_stop(&body->accept);
}

void body_drain_begin(struct body *body, struct session *session)
{
	session_io_drain(session);
	list_move_last(&body->drain_next, &session->link);
}

int body_hand_over(struct body *body, struct session *session)
{
	int r;

	if (body->ops->is_quiet && !body->ops->is_quiet(body, session))
		return -EAGAIN;
	r = handover_send(body->worker, &body->io, session);
	if (r < 0)
		return r;
	body->ops->detach(body, session);
	session_forget(session, body->worker);
	pool_free(&body->pool, session);
	return 0;
}

/* Hand over or start to drain a batch of sessions, the longest idle first. */
static void stop_some(struct body *body)
{
	bool hand_over = worker_stop_requested(body->worker) == STOP_HAND_OVER;

	body->io.flush = worker_stop_requested(body->worker) == STOP_FLUSH;
	for (unsigned i = 0; i < BATCH && !list_empty(&body->sessions); i++)
		body->ops->stop(body, first(&body->sessions), hand_over);
}

/* Hand a draining session over instead of closing it, when it owes nothing or the time for draining is over
 * (`late`). Returns whether it needs no other action now. */
static bool hand_over_drained(struct body *body, struct session *session, bool late)
{
	int r = -ECANCELED;

	if (body->io.flush && session->conn.reason == CONN_OPEN &&
	    (late || session_io_flushed(&body->io, session)))
		r = body_hand_over(body, session);
	return r == 0 || r == -EAGAIN;
}

static void drain_some(struct body *body)
{
	bool late = !worker_may_drain(body->worker, body->now);

	if (list_empty(&body->draining) && body->now >= body->drain_at) {
		list_append_all(&body->draining, &body->drain_next);
		body->drain_at = body->now + DRAIN_TICK;
		session_io_unsent_publish(&body->io, body->worker->slot, body->now);
	}
	for (unsigned i = 0; i < BATCH && !list_empty(&body->draining); i++) {
		struct session *session = first(&body->draining);

		list_move_last(&body->drain_next, &session->link);
		if (hand_over_drained(body, session, late))
			continue;
		if (late) {
			session_cut(session, body->worker);
			body->ops->end(body, session);
		} else {
			session_io_unsent_add(&body->io, session);
			body->ops->drain(body, session);
		}
	}
}

/* --- iterations ------------------------------------------------------------------------ */

void body_iteration_end(struct body *body)
{
	if (body->now >= body->accept.retry_at)
		accept_retry(&body->accept);
	if (body->stopping) {
		stop_some(body);
		drain_some(body);
	} else if (!body->stop_seen) {
		expire(body);
	}
	accept_iteration_end(&body->accept);
	stats_publish(body->worker->slot, &body->worker->local_stats);
	worker_heartbeat(body->worker, body->now);
}

int64_t body_deadline(const struct body *body)
{
	int64_t deadline = clock_earlier(body->accept.retry_at, body->worker->next_heartbeat);

	if (body->stop_seen && !body->stopping)
		return clock_earlier(deadline, body->now + DRAIN_TICK);
	if (body->stopping) {
		bool more = !list_empty(&body->sessions) || !list_empty(&body->draining);

		return more ? body->now : clock_earlier(deadline, body->drain_at);
	}
	if (list_empty(&body->sessions))
		return deadline;
	deadline = clock_earlier(deadline, body->sort_at);
	return clock_earlier(deadline,
	                     session_idle_deadline(first(&body->sessions), body->worker->conf, body->now));
}

bool body_done(const struct body *body)
{
	return body->stopping && list_empty(&body->sessions) && list_empty(&body->draining) &&
	       list_empty(&body->drain_next);
}
