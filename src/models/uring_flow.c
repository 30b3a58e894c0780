/* uring_flow.c - a session in the ring: receive, send, receive, and out of it when that does not flow */
#include <config.h>

#include <errno.h>
#include <poll.h>
#include <string.h>

#include "models/uring.h"

static bool is_no_error(int result)
{
	return result == -EAGAIN || result == -EINTR || result == -ECANCELED;
}

/* What lay at `data`, or ended there once all of it was sent, needs its buffer no more. */
static void buffer_return(struct uring *uring, struct session *session, const uint8_t *data)
{
	if (session->watch.lent)
		ring_buffer_give(&uring->ring, ring_buffer_at(&uring->ring, data));
	session->watch.lent = false;
}

/* Nothing of it is in flight, and nobody shall find it any more. */
static void flow_leave(struct uring *uring, struct session *session)
{
	buffer_return(uring, session, session->conn.data);
	turn_drop_pipe(&uring->turn, session);
	ring_leave(&uring->ring, &session->watch);
	list_remove(&session->link);
}

static void flow_release(struct uring *uring, struct session *session)
{
	flow_leave(uring, session);
	session_close(session, uring->worker);
	pool_give(&uring->pool, session);
}

void flow_end(struct uring *uring, struct session *session)
{
	if (session->watch.op == RING_NONE) {
		flow_release(uring, session);
		return;
	}
	session->watch.ending = true;
	list_move_last(&uring->ending, &session->link);
	ring_cancel(&uring->ring, &session->watch, (enum ring_op) session->watch.op);
}

int flow_keep(struct uring *uring, struct session *session)
{
	const uint8_t *data = session->conn.data;
	int r = conn_keep(&session->conn);

	buffer_return(uring, session, data);
	return r;
}

static void flow_touch(struct uring *uring, struct session *session)
{
	uint32_t before = session->active;

	session_touch(session, uring->now);
	if (session->active != before)
		list_move_last(&uring->sessions, &session->link);
}

static void flow_poll(struct uring *uring, struct session *session, unsigned want)
{
	unsigned interest = (want & CONN_RECV ? (unsigned) WATCH_READ : 0) | (want & CONN_SEND ? (unsigned) WATCH_WRITE : 0);

	/* one that only lingers is looked at every TICK */
	if (interest == 0)
		return;
	session->watch.interest = interest & (WATCH_READ | WATCH_WRITE);
	session->watch.op = RING_POLL;
	ring_poll(&uring->ring, &session->watch, false);
}

void flow_follow(struct uring *uring, struct session *session, unsigned want)
{

	if (want & CONN_CLOSE || (want & CONN_LINGER && turn_linger(session))) {
		flow_end(uring, session);
	} else if (uring->halting) {
		return;
	} else if (want == CONN_RECV && !session->bulk && !session->watch.starved && !session->conn.draining) {
		session->watch.op = RING_RECV;
		ring_recv(&uring->ring, &session->watch);
	} else {
		session->watch.starved = false;
		flow_poll(uring, session, want);
	}
}

void flow_turn(struct uring *uring, struct session *session, bool readable)
{
	uint32_t before = session->active;
	unsigned want = turn_step(&uring->turn, session, readable, uring->now);

	if (session->active != before)
		list_move_last(&uring->sessions, &session->link);
	flow_follow(uring, session, want);
}

static void flow_send(struct uring *uring, struct session *session)
{
	const uint8_t *data;
	size_t owed = conn_owed(&session->conn, &data);

	session->watch.op = RING_SEND;
	ring_send(&uring->ring, &session->watch, data, owed);
}

/* Its operation has completed: see what is to be done next. */
static void flow_next(struct uring *uring, struct session *session)
{
	struct conn *conn = &session->conn;

	if (session->watch.ending)
		flow_release(uring, session);
	else if (conn->reason != CONN_OPEN)
		flow_end(uring, session);
	else if (uring->halting)
		return;
	else if (session->watch.lent)
		flow_send(uring, session);
	else if (session->bulk && conn->owed == 0)
		flow_turn(uring, session, true);
	else
		flow_follow(uring, session, conn_want(conn, uring->turn.limit));
}

/* --- completions ----------------------------------------------------------------------- */

static void received(struct uring *uring, struct session *session, const struct ring_event *event)
{
	size_t n = (size_t) event->result;

	conn_received(&session->conn, ring_buffer(&uring->ring, event->buffer), n);
	session->watch.lent = true;
	turn_note_size(&uring->turn, session, n, uring->ring.buffer_size);
	uring->worker->tally.received += n;
	flow_touch(uring, session);
}

static void on_recv(struct uring *uring, struct session *session, const struct ring_event *event)
{
	if (event->result > 0 && !session->watch.ending) {
		received(uring, session, event);
		return;
	}
	if (event->buffered)
		ring_buffer_give(&uring->ring, event->buffer);
	if (event->result == 0)
		conn_eof(&session->conn);
	else if (event->result == -ENOBUFS)
		session->watch.starved = true;
	else if (event->result < 0 && !is_no_error(event->result))
		conn_error(&session->conn, -event->result);
}

static void on_send(struct uring *uring, struct session *session, const struct ring_event *event)
{
	struct conn *conn = &session->conn;

	if (event->result > 0) {
		conn_sent(conn, (size_t) event->result);
		uring->worker->tally.echoed += (uint64_t) event->result;
		flow_touch(uring, session);
	} else if (event->result < 0 && !is_no_error(event->result)) {
		conn_error(conn, -event->result);
	}
	/* what could not be sent is the client's doing: it waits in memory of its own */
	(void) flow_keep(uring, session);
}

void flow_event(struct uring *uring, const struct ring_event *event)
{
	struct session *session = LIST_ENTRY(event->watch, struct session, watch);

	session->watch.op = RING_NONE;
	if (event->op == RING_RECV) {
		on_recv(uring, session, event);
	} else if (event->op == RING_SEND) {
		on_send(uring, session, event);
	} else if (!session->watch.ending && !uring->halting) {
		flow_turn(uring, session, event->result < 0 || event->result & (POLLIN | POLLHUP | POLLERR));
		return;
	}
	flow_next(uring, session);
}

/* --- beginning and end ------------------------------------------------------------------ */

void flow_begin(struct uring *uring, const struct arrival *arrival)
{
	struct session *session = pool_take(&uring->pool);
	struct session lost;

	if (session) {
		session_open(session, arrival);
		if (ring_join(&uring->ring, &session->watch) == 0) {
			session_enlist(&uring->sessions, session, uring->now, &uring->sort_at);
			flow_follow(uring, session, conn_want(&session->conn, uring->turn.limit));
			return;
		}
		lost = *session;
		pool_give(&uring->pool, session);
	} else {
		session_open(&lost, arrival);
	}
	conn_error(&lost.conn, ENOMEM);
	session_close(&lost, uring->worker);
	intake_failed(&uring->intake, ENOMEM);
}

void flow_forget(struct uring *uring, struct session *session)
{
	flow_leave(uring, session);
	session_forget(session, uring->worker);
	pool_give(&uring->pool, session);
}
