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

static void buffer_return(struct uring *uring, struct flow *flow)
{
	if (flow->lent)
		ring_buffer_give(&uring->ring, flow->buffer);
	flow->lent = false;
}

/* Nothing of it is in flight, and nobody shall find it any more. */
static void flow_leave(struct uring *uring, struct flow *flow)
{
	buffer_return(uring, flow);
	turn_drop_pipe(&uring->turn, &flow->session);
	ring_leave(&uring->ring, &flow->session.watch);
	list_remove(&flow->session.link);
}

static void flow_release(struct uring *uring, struct flow *flow)
{
	flow_leave(uring, flow);
	session_close(&flow->session, uring->worker);
	pool_give(&uring->pool, flow);
}

void flow_end(struct uring *uring, struct flow *flow)
{
	if (flow->op == RING_NONE) {
		flow_release(uring, flow);
		return;
	}
	flow->ending = true;
	list_move_last(&uring->ending, &flow->session.link);
	ring_cancel(&uring->ring, &flow->session.watch, (enum ring_op) flow->op);
}

int flow_keep(struct uring *uring, struct flow *flow)
{
	int r = conn_keep(&flow->session.conn);

	buffer_return(uring, flow);
	return r;
}

static void flow_touch(struct uring *uring, struct flow *flow)
{
	uint32_t before = flow->session.active;

	session_touch(&flow->session, uring->now);
	if (flow->session.active != before)
		list_move_last(&uring->sessions, &flow->session.link);
}

static void flow_poll(struct uring *uring, struct flow *flow, unsigned want)
{
	unsigned interest = (want & CONN_RECV ? (unsigned) WATCH_READ : 0) | (want & CONN_SEND ? (unsigned) WATCH_WRITE : 0);

	/* one that only lingers is looked at every TICK */
	if (interest == 0)
		return;
	flow->session.watch.interest = interest & (WATCH_READ | WATCH_WRITE);
	flow->op = RING_POLL;
	ring_poll(&uring->ring, &flow->session.watch, false);
}

void flow_follow(struct uring *uring, struct flow *flow, unsigned want)
{
	struct session *session = &flow->session;

	if (want & CONN_CLOSE || (want & CONN_LINGER && turn_linger(session))) {
		flow_end(uring, flow);
	} else if (uring->halting) {
		return;
	} else if (want == CONN_RECV && !session->bulk && !flow->starved && !session->conn.draining) {
		flow->op = RING_RECV;
		ring_recv(&uring->ring, &session->watch);
	} else {
		flow->starved = false;
		flow_poll(uring, flow, want);
	}
}

void flow_turn(struct uring *uring, struct flow *flow, bool readable)
{
	uint32_t before = flow->session.active;
	unsigned want = turn_step(&uring->turn, &flow->session, readable, uring->now);

	if (flow->session.active != before)
		list_move_last(&uring->sessions, &flow->session.link);
	flow_follow(uring, flow, want);
}

static void flow_send(struct uring *uring, struct flow *flow)
{
	const uint8_t *data;
	size_t owed = conn_owed(&flow->session.conn, &data);

	flow->op = RING_SEND;
	ring_send(&uring->ring, &flow->session.watch, data, owed);
}

/* Its operation has completed: see what is to be done next. */
static void flow_next(struct uring *uring, struct flow *flow)
{
	struct session *session = &flow->session;
	struct conn *conn = &session->conn;

	if (flow->ending)
		flow_release(uring, flow);
	else if (conn->reason != CONN_OPEN)
		flow_end(uring, flow);
	else if (uring->halting)
		return;
	else if (flow->lent)
		flow_send(uring, flow);
	else if (session->bulk && conn->owed == 0)
		flow_turn(uring, flow, true);
	else
		flow_follow(uring, flow, conn_want(conn, uring->turn.limit));
}

/* --- completions ----------------------------------------------------------------------- */

static void received(struct uring *uring, struct flow *flow, const struct ring_event *event)
{
	size_t n = (size_t) event->result;

	conn_received(&flow->session.conn, ring_buffer(&uring->ring, event->buffer), n);
	flow->buffer = event->buffer;
	flow->lent = true;
	turn_set_bulk(&uring->turn, &flow->session, n == uring->ring.buffer_size);
	uring->worker->tally.received += n;
	flow_touch(uring, flow);
}

static void on_recv(struct uring *uring, struct flow *flow, const struct ring_event *event)
{
	if (event->result > 0 && !flow->ending) {
		received(uring, flow, event);
		return;
	}
	if (event->buffered)
		ring_buffer_give(&uring->ring, event->buffer);
	if (event->result == 0)
		conn_eof(&flow->session.conn);
	else if (event->result == -ENOBUFS)
		flow->starved = true;
	else if (event->result < 0 && !is_no_error(event->result))
		conn_error(&flow->session.conn, -event->result);
}

static void on_send(struct uring *uring, struct flow *flow, const struct ring_event *event)
{
	struct conn *conn = &flow->session.conn;

	if (event->result > 0) {
		conn_sent(conn, (size_t) event->result);
		uring->worker->tally.echoed += (uint64_t) event->result;
		flow_touch(uring, flow);
	} else if (event->result < 0 && !is_no_error(event->result)) {
		conn_error(conn, -event->result);
	}
	/* what could not be sent is the client's doing: it waits in memory of its own */
	(void) flow_keep(uring, flow);
}

void flow_event(struct uring *uring, const struct ring_event *event)
{
	struct flow *flow = LIST_ENTRY(LIST_ENTRY(event->watch, struct session, watch), struct flow, session);

	flow->op = RING_NONE;
	if (event->op == RING_RECV) {
		on_recv(uring, flow, event);
	} else if (event->op == RING_SEND) {
		on_send(uring, flow, event);
	} else if (!flow->ending && !uring->halting) {
		flow_turn(uring, flow, event->result < 0 || event->result & (POLLIN | POLLHUP | POLLERR));
		return;
	}
	flow_next(uring, flow);
}

/* --- beginning and end ------------------------------------------------------------------ */

void flow_begin(struct uring *uring, const struct arrival *arrival)
{
	struct flow *flow = pool_take(&uring->pool);
	struct session lost;

	if (flow) {
		*flow = (struct flow) { .op = RING_NONE };
		session_open(&flow->session, arrival, uring->worker);
		if (ring_join(&uring->ring, &flow->session.watch) == 0) {
			list_append(&uring->sessions, &flow->session.link);
			flow_follow(uring, flow, conn_want(&flow->session.conn, uring->turn.limit));
			return;
		}
		lost = flow->session;
		pool_give(&uring->pool, flow);
	} else {
		session_open(&lost, arrival, uring->worker);
	}
	conn_error(&lost.conn, ENOMEM);
	session_close(&lost, uring->worker);
	intake_failed(&uring->intake, ENOMEM);
}

void flow_forget(struct uring *uring, struct flow *flow)
{
	flow_leave(uring, flow);
	session_forget(&flow->session, uring->worker);
	pool_give(&uring->pool, flow);
}
