/* SPDX-License-Identifier: ISC */
/* loop.c - the body of select, poll and epoll: one event loop over a readiness back-end */
#include <config.h>

#include <errno.h>

#include "base/clock.h"
#include "models/accept/accept_token.h"
#include "models/accept/accept_watch.h"
#include "models/event/body.h"
#include "models/model.h"

#define EVENTS_MAX 256

struct loop {
	struct body body;
	const struct poller_ops *ops;
	struct poller *poller;
	struct accept_watch accepting;
	struct watch stop;
};

static struct loop *of_body(struct body *body)
{
	return LIST_ENTRY(body, struct loop, body);
}

/* --- sessions -------------------------------------------------------------------------- */

static void session_end(struct body *body, struct session *session)
{
	struct loop *loop = of_body(body);

	session_io_drop_pipe(&body->io, session);
	loop->ops->remove(loop->poller, &session->watch, POLLER_CLOSES);
	list_remove(&session->link);
	session_close(session, body->worker);
	pool_free(&body->pool, session);
}

static unsigned to_interest(unsigned want)
{
	return (want & CONN_RECV ? (unsigned) WATCH_READ : 0) |
	       (want & CONN_SEND ? (unsigned) WATCH_WRITE : 0);
}

/* Watch for what `want` says, or end the session. */
static void session_update(struct loop *loop, struct session *session, unsigned want)
{
	unsigned interest = to_interest(want);

	if (want & CONN_CLOSE || (want & CONN_LINGER && session_io_linger(&loop->body.io, session))) {
		session_end(&loop->body, session);
		return;
	}
	if (interest == session->watch.interest)
		return;
	session->watch.interest = interest & (WATCH_READ | WATCH_WRITE);
	loop->body.worker->local_stats.work++;
	if (loop->ops->change(loop->poller, &session->watch) < 0) {
		conn_error(&session->conn, ENOMEM);
		session_end(&loop->body, session);
	}
}

static void session_serve(struct loop *loop, struct session *session, bool readable)
{
	uint32_t before = session->active;
	unsigned want = session_io_step(&loop->body.io, session, readable, loop->body.now);

	body_served(&loop->body, session, before);
	session_update(loop, session, want);
}

static int session_start(struct body *body, struct session *session)
{
	struct loop *loop = of_body(body);
	int r;

	session->watch.interest =
		to_interest(conn_want(&session->conn, body->io.limit)) & (WATCH_READ | WATCH_WRITE);
	r = loop->ops->add(loop->poller, &session->watch, POLLER_WAKE_ALL);
	if (r == 0)
		session_enlist(&body->sessions, session, body->now, &body->sort_at);
	return r;
}

static void session_detach(struct body *body, struct session *session)
{
	struct loop *loop = of_body(body);

	loop->ops->remove(loop->poller, &session->watch, POLLER_STAYS_OPEN);
	list_remove(&session->link);
}

static void session_stop(struct body *body, struct session *session, bool hand_over)
{
	if (hand_over && body_hand_over(body, session) == 0)
		return;
	body_drain_begin(body, session);
	session_serve(of_body(body), session, true);
}

static void session_drain(struct body *body, struct session *session)
{
	session_update(of_body(body), session, conn_want(&session->conn, body->io.limit));
}

static const struct body_ops loop_body_ops = {
	.start = session_start,
	.end = session_end,
	.stop = session_stop,
	.detach = session_detach,
	.drain = session_drain,
};

/* --- the loop -------------------------------------------------------------------------- */

static void dispatch(struct loop *loop, const struct watch_event *event)
{
	struct body *body = &loop->body;

	switch ((enum watch_kind) event->watch->kind) {
	case WATCH_SESSION:
		session_serve(loop, LIST_ENTRY(event->watch, struct session, watch), event->readable);
		break;
	case WATCH_LISTENER:
		body_accept(body, accept_watch_index(&loop->accepting, event->watch));
		break;
	case WATCH_INBOX:
		body_inherit(body);
		break;
	case WATCH_SLOT:
		accept_retry(&body->accept);
		break;
	case WATCH_TOKEN:
		accept_token_clear(body->worker->token, body->worker->index);
		body->worker->local_stats.work++;
		break;
	case WATCH_STOP:
		body->stop_seen = true;
		worker_trace_stop(body->worker);
		body->worker->local_stats.work++;
		break;
	case WATCH_WAKEUP:
	case WATCH_OTHER:
		break;
	}
}

/* Handle an event, and count it as an idle wake-up if nothing was done. A descriptor from which accepting was
 * just stopped may stay ready. */
static void handle(struct loop *loop, const struct watch_event *event)
{
	struct body *body = &loop->body;
	uint64_t before = body->worker->local_stats.work;
	unsigned kind = event->watch->kind, interest = event->watch->interest;
	int fd = event->watch->fd;

	dispatch(loop, event);
	if (accept_is_watched(&body->accept, kind))
		worker_check_work(body->worker, before, fd, interest);
}

static int loop_iterate(struct loop *loop)
{
	struct watch_event events[EVENTS_MAX];
	struct body *body = &loop->body;
	int n = loop->ops->wait(loop->poller, events, EVENTS_MAX,
	                        clock_poll_timeout(body_deadline(body), body->now));

	if (n < 0)
		return n;
	body->now = clock_coarse_usec();
	for (int i = 0; i < n; i++)
		handle(loop, &events[i]);
	if (body->stop_seen && !body->stopping) {
		loop->ops->remove(loop->poller, &loop->stop, POLLER_STAYS_OPEN);
		body_stop(body);
	}
	body_iteration_end(body);
	accept_watch_update(&loop->accepting);
	return 0;
}

static int loop_open(struct loop *loop, struct worker *worker)
{
	int r = body_open(&loop->body, worker, &loop_body_ops);

	if (r < 0)
		return r;
	loop->ops = worker->model->poller;
	r = loop->ops->open(&loop->poller,
	                    (size_t) worker->admission.max_connections + worker->listener_count + 16);
	if (r < 0)
		return r;
	loop->stop = (struct watch) { .fd = worker->stop_fd, .kind = WATCH_STOP, .interest = WATCH_READ };
	r = loop->ops->add(loop->poller, &loop->stop, POLLER_WAKE_ALL);
	if (r < 0)
		return r;
	return accept_watch_open(&loop->accepting, &loop->body.accept, loop->ops, loop->poller,
	                         POLLER_WAKE_ALL);
}

int loop_run(struct worker *worker)
{
	struct loop loop = { .poller = NULL };
	int r = loop_open(&loop, worker);

	if (r == 0) {
		worker_ready(worker);
		while (r == 0 && !body_done(&loop.body))
			r = loop_iterate(&loop);
	}
	accept_watch_close(&loop.accepting);
	if (loop.poller)
		loop.ops->close(loop.poller);
	body_close(&loop.body);
	return r;
}
