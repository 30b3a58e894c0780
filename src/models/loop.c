/* loop.c - the body of select, poll and epoll: one event loop over a readiness back-end */
#include <config.h>

#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/pool.h"
#include "models/handover.h"
#include "models/intake.h"
#include "models/model.h"
#include "models/turn.h"

#define EVENTS_MAX 256

/* How often draining sessions are looked at: nothing tells when a peer has acknowledged. */
#define DRAIN_TICK (10 * USEC_PER_MSEC)

struct loop {
	struct worker *worker;
	const struct ready_ops *ops;
	struct ready *ready;
	struct turn turn;
	struct intake intake;
	struct pool pool;
	struct list sessions;        /* by last activity, the longest idle first */
	int64_t sort_at;             /* see session_enlist() */
	struct watch *listeners;     /* one for each of the worker's */
	struct watch stop, inbox, room;
	bool listening, inheriting, in_room; /* what of the intake is being watched */
	bool stop_seen, stopping;    /* seen in a batch of events; acted upon after it */
	int64_t now;                 /* coarse, taken once a turn */
};

/* --- sessions -------------------------------------------------------------------------- */

static void session_end(struct loop *loop, struct session *session)
{
	turn_drop_pipe(&loop->turn, session);
	loop->ops->remove(loop->ready, &session->watch, true);
	list_remove(&session->link);
	session_close(session, loop->worker);
	pool_give(&loop->pool, session);
}

static unsigned to_interest(unsigned want)
{
	return (want & CONN_RECV ? (unsigned) WATCH_READ : 0) | (want & CONN_SEND ? (unsigned) WATCH_WRITE : 0);
}

/* Do what `want` says: watch for it, or end. */
static void session_follow(struct loop *loop, struct session *session, unsigned want)
{
	unsigned interest = to_interest(want);

	if (want & CONN_CLOSE || (want & CONN_LINGER && turn_linger(session))) {
		session_end(loop, session);
		return;
	}
	if (interest == session->watch.interest)
		return;
	session->watch.interest = interest & (WATCH_READ | WATCH_WRITE);
	loop->worker->tally.work++;
	if (loop->ops->change(loop->ready, &session->watch) < 0) {
		conn_error(&session->conn, ENOMEM);
		session_end(loop, session);
	}
}

static void session_turn(struct loop *loop, struct session *session, bool readable)
{
	uint32_t before = session->active;
	unsigned want = turn_step(&loop->turn, session, readable, loop->now);

	if (session->active != before)
		list_move_last(&loop->sessions, &session->link);
	session_follow(loop, session, want);
}

/* Serve an arrival; what it owes and wants is known after a first look at it. */
static void session_begin(struct loop *loop, const struct arrival *arrival)
{
	struct session *session = pool_take(&loop->pool);
	struct session lost;
	int r = -ENOMEM;

	if (session) {
		session_open(session, arrival);
		session->watch.interest = to_interest(conn_want(&session->conn, loop->turn.limit)) & (WATCH_READ | WATCH_WRITE);
		r = loop->ops->add(loop->ready, &session->watch, false);
		if (r == 0) {
			session_enlist(&loop->sessions, session, loop->now, &loop->sort_at);
			return;
		}
		lost = *session;
		pool_give(&loop->pool, session);
	} else {
		session_open(&lost, arrival);
	}
	conn_error(&lost.conn, -r);
	session_close(&lost, loop->worker);
	intake_failed(&loop->intake, -r);
}

static void sessions_expire(struct loop *loop)
{
	sessions_sort(&loop->sessions, loop->now, &loop->sort_at);
	while (!list_empty(&loop->sessions)) {
		struct session *session = LIST_ENTRY(loop->sessions.next, struct session, link);

		if (session_idle_deadline(session, loop->worker->conf, loop->now) > loop->now)
			return;
		conn_end(&session->conn, CONN_IDLE);
		session_end(loop, session);
	}
}

/* --- intake ---------------------------------------------------------------------------- */

static int watch_begin(struct loop *loop, struct watch *watch, int fd, enum watch_kind kind, bool shared)
{
	*watch = (struct watch) { .fd = fd, .kind = (uint8_t) kind, .interest = WATCH_READ };
	return loop->ops->add(loop->ready, watch, shared);
}

/* Watch the inbox, the stream listeners and the room for as long as the intake wants them watched. */
static void intake_follow(struct loop *loop)
{
	bool open = loop->intake.open && !loop->stopping, waiting = loop->intake.waiting && !loop->stopping;
	bool inheriting = loop->intake.inheriting && !loop->stopping && loop->worker->inbox_fd >= 0;
	const struct worker *worker = loop->worker;

	if (inheriting != loop->inheriting) {
		if (!inheriting)
			loop->ops->remove(loop->ready, &loop->inbox, false);
		else if (watch_begin(loop, &loop->inbox, worker->inbox_fd, WATCH_INBOX, false) < 0)
			intake_failed(&loop->intake, ENOMEM);
		loop->inheriting = inheriting;
	}
	if (open != loop->listening) {
		for (size_t i = 0; i < worker->listener_count; i++) {
			if (worker->listeners[i].kind != LISTENER_STREAM)
				continue;
			if (!open)
				loop->ops->remove(loop->ready, &loop->listeners[i], false);
			else if (watch_begin(loop, &loop->listeners[i], worker->listeners[i].fd, WATCH_LISTENER,
			                     worker->workers > 1) < 0)
				intake_failed(&loop->intake, ENOMEM);
		}
		loop->listening = open;
	}
	if (waiting != loop->in_room) {
		if (!waiting)
			loop->ops->remove(loop->ready, &loop->room, false);
		else if (watch_begin(loop, &loop->room, loop->intake.room_fd, WATCH_ROOM, false) < 0)
			intake_failed(&loop->intake, ENOMEM);
		loop->in_room = waiting;
	}
}

static void accept_batch(struct loop *loop, const struct watch *listener)
{
	size_t index = (size_t) (listener - loop->listeners);
	struct arrival arrival;
	unsigned got;

	for (got = 0; got < loop->intake.batch && intake_accept(&loop->intake, index, &arrival) > 0; got++)
		session_begin(loop, &arrival);
	intake_asked(&loop->intake, got);
}

static void inherit_batch(struct loop *loop)
{
	struct arrival arrival;

	for (unsigned i = 0; i < loop->intake.most && intake_inherit(&loop->intake, &arrival) > 0; i++)
		session_begin(loop, &arrival);
}

/* --- the end --------------------------------------------------------------------------- */

/* Returns whether the session is gone. */
static bool session_hand_over(struct loop *loop, struct session *session)
{
	if (turn_empty_pipe(&loop->turn, session) < 0 || handover_send_wait(loop->worker, session) < 0)
		return false;
	loop->ops->remove(loop->ready, &session->watch, false);
	list_remove(&session->link);
	session_forget(session, loop->worker);
	pool_give(&loop->pool, session);
	return true;
}

/* Apply `act` to every session that is there now, though it may end or move some of them. */
static void sessions_each(struct loop *loop, void (*act)(struct loop *, struct session *))
{
	struct list all;

	if (list_empty(&loop->sessions))
		return;
	all = loop->sessions;
	all.next->prev = all.prev->next = &all;
	list_init(&loop->sessions);
	while (!list_empty(&all)) {
		struct session *session = LIST_ENTRY(all.next, struct session, link);

		list_remove(&session->link);
		list_append(&loop->sessions, &session->link);
		act(loop, session);
	}
}

static void session_drain(struct loop *loop, struct session *session)
{
	turn_drain(session);
	session_turn(loop, session, true);
}

static void session_stop(struct loop *loop, struct session *session)
{
	if (!session_hand_over(loop, session))
		session_drain(loop, session);
}

static void session_drain_again(struct loop *loop, struct session *session)
{
	session_follow(loop, session, conn_want(&session->conn, loop->turn.limit));
}

static void session_too_late(struct loop *loop, struct session *session)
{
	session_cut(session, loop->worker);
	session_end(loop, session);
}

/* All that is left to do for the sessions of a stopping worker. */
static void drain_turn(struct loop *loop)
{
	sessions_each(loop, worker_may_drain(loop->worker, loop->now) ? session_drain_again : session_too_late);
	turn_note_unsent(&loop->turn, &loop->sessions, loop->worker->slot, loop->now);
}

static void stop_begin(struct loop *loop)
{
	enum stats_stop order = worker_stop_order(loop->worker);

	loop->stopping = true;
	loop->ops->remove(loop->ready, &loop->stop, false);
	intake_follow(loop);
	if (order == STOP_HAND_OVER)
		intake_pass_on(&loop->intake, UINT_MAX, true);
	sessions_each(loop, order == STOP_HAND_OVER ? session_stop : session_drain);
}

/* --- the loop -------------------------------------------------------------------------- */

static void dispatch(struct loop *loop, const struct watch_event *event)
{
	switch ((enum watch_kind) event->watch->kind) {
	case WATCH_SESSION:
		session_turn(loop, LIST_ENTRY(event->watch, struct session, watch), event->readable);
		break;
	case WATCH_LISTENER:
		accept_batch(loop, event->watch);
		break;
	case WATCH_INBOX:
		inherit_batch(loop);
		break;
	case WATCH_ROOM:
		intake_retry(&loop->intake);
		break;
	case WATCH_STOP:
		loop->stop_seen = true;
		loop->worker->tally.work++;
		break;
	case WATCH_OTHER:
		break;
	}
}

/* Handle an event, and count it if it led to nothing. A listener that the loop has just stopped watching may stay ready. */
static void handle(struct loop *loop, const struct watch_event *event)
{
	uint64_t before = loop->worker->tally.work;
	unsigned kind = event->watch->kind, interest = event->watch->interest;
	int fd = event->watch->fd;

	dispatch(loop, event);
	if ((kind == WATCH_LISTENER && !loop->intake.open) || (kind == WATCH_INBOX && !loop->intake.inheriting))
		return;
	worker_check_work(loop->worker, before, fd, interest);
}

static int64_t next_deadline(const struct loop *loop)
{
	int64_t deadline = loop->intake.retry_at;

	if (loop->worker->next_beat < deadline)
		deadline = loop->worker->next_beat;
	if (loop->stopping)
		return loop->now + DRAIN_TICK < deadline ? loop->now + DRAIN_TICK : deadline;
	if (!list_empty(&loop->sessions)) {
		struct session *oldest = LIST_ENTRY(loop->sessions.next, struct session, link);
		int64_t idle = session_idle_deadline(oldest, loop->worker->conf, loop->now);

		if (idle < deadline)
			deadline = idle;
		if (loop->sort_at < deadline)
			deadline = loop->sort_at;
	}
	return deadline;
}

static int loop_turn(struct loop *loop)
{
	struct watch_event events[EVENTS_MAX];
	int n = loop->ops->wait(loop->ready, events, EVENTS_MAX, clock_poll_timeout(next_deadline(loop), loop->now));

	if (n < 0)
		return n;
	loop->now = clock_coarse_usec();
	for (int i = 0; i < n; i++)
		handle(loop, &events[i]);
	if (loop->stop_seen && !loop->stopping)
		stop_begin(loop);
	if (loop->now >= loop->intake.retry_at)
		intake_retry(&loop->intake);
	intake_follow(loop);
	if (loop->stopping)
		drain_turn(loop);
	else
		sessions_expire(loop);
	stats_publish(loop->worker->slot, &loop->worker->tally);
	worker_beat(loop->worker, loop->now);
	return 0;
}

static int loop_open(struct loop *loop)
{
	struct worker *worker = loop->worker;
	int r;

	loop->ops = worker->model->ready;
	loop->now = clock_coarse_usec();
	list_init(&loop->sessions);
	loop->sort_at = INT64_MAX;
	pool_init(&loop->pool, sizeof(struct session));
	intake_init(&loop->intake, worker);
	loop->listeners = calloc(worker->listener_count + 1, sizeof *loop->listeners);
	if (!loop->listeners)
		return -ENOMEM;
	r = turn_open(&loop->turn, worker->conf->buffer_size, worker->pipes, &worker->tally);
	if (r < 0)
		return r;
	r = loop->ops->open(&loop->ready, (size_t) worker->admission.max_connections + worker->listener_count + 16);
	if (r < 0)
		return r;
	r = watch_begin(loop, &loop->stop, worker->stop_fd, WATCH_STOP, false);
	intake_follow(loop);
	return r < 0 ? r : loop->intake.open ? 0 : -ENOMEM;
}

static void loop_close(struct loop *loop)
{
	intake_close(&loop->intake);
	if (loop->ready)
		loop->ops->close(loop->ready);
	turn_close(&loop->turn);
	pool_free(&loop->pool);
	free(loop->listeners);
}

int loop_run(struct worker *worker)
{
	struct loop loop = { .worker = worker };
	int r = loop_open(&loop);

	if (r == 0) {
		worker_ready(worker);
		while (r == 0 && !(loop.stopping && list_empty(&loop.sessions)))
			r = loop_turn(&loop);
	}
	loop_close(&loop);
	return r;
}
