/* uring_flow.c - a session in the ring: receive, send, receive, and out of it when that does not flow */
#include <config.h>

#include <errno.h>
#include <poll.h>
#include <string.h>

#include "models/uring.h"

#define BIT(op) (uint8_t) (1U << (op))

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

static void flow_cancel(struct uring *uring, struct flow *flow, enum ring_op op)
{
	if (flow->ops & BIT(op))
		ring_cancel(&uring->ring, &flow->session.watch, op);
}

void flow_end(struct uring *uring, struct flow *flow)
{
	if (flow->ops == 0) {
		flow_release(uring, flow);
		return;
	}
	flow->ending = true;
	list_move_last(&uring->ending, &flow->session.link);
	if (!flow->halting)
		flow_cancel(uring, flow, RING_RECV);
	flow_cancel(uring, flow, RING_POLL);
}

static void flow_touch(struct uring *uring, struct flow *flow)
{
	uint32_t before = flow->session.active;

	session_touch(&flow->session, uring->now);
	if (flow->session.active != before)
		list_move_last(&uring->sessions, &flow->session.link);
}

static void flow_recv(struct uring *uring, struct flow *flow, size_t most, bool now)
{
	flow->ops |= BIT(RING_RECV);
	ring_recv(&uring->ring, &flow->session.watch, most, now);
}

static void flow_poll(struct uring *uring, struct flow *flow, unsigned want)
{
	uint8_t interest = (uint8_t) ((want & CONN_RECV ? WATCH_READ : 0) | (want & CONN_SEND ? WATCH_WRITE : 0));

	/* one that only lingers is looked at every TICK */
	if (interest == 0)
		return;
	flow->session.watch.interest = interest;
	flow->ops |= BIT(RING_POLL);
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
		flow_recv(uring, flow, 0, false);
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

/* Send what lies in the ring's buffer, and have the next bytes received meanwhile where they
 * may be held even if nothing can be sent. */
static void flow_send(struct uring *uring, struct flow *flow, bool more)
{
	struct conn *conn = &flow->session.conn;
	const uint8_t *data;
	size_t owed = conn_owed(conn, &data), room;

	flow->ops |= BIT(RING_SEND);
	ring_send(&uring->ring, &flow->session.watch, data, owed);
	if (flow->ops & BIT(RING_RECV) || flow->session.bulk)
		return;
	room = conn_room(conn, uring->turn.limit);
	if (room >= uring->turn.limit / 2)
		flow_recv(uring, flow, room, more);
}

/* An operation of it has completed: see what is to be done next. */
static void flow_next(struct uring *uring, struct flow *flow, bool more)
{
	struct session *session = &flow->session;
	struct conn *conn = &session->conn;

	if (flow->ending) {
		if (flow->ops == 0)
			flow_release(uring, flow);
	} else if (conn->reason != CONN_OPEN) {
		flow_end(uring, flow);
	} else if (uring->halting || flow->ops & BIT(RING_SEND)) {
		return;
	} else if (flow->lent) {
		flow_send(uring, flow, more);
	} else if (flow->ops & BIT(RING_RECV)) {
		/* a send was cut short: what is received now would come in addition */
		if (conn->owed > 0 && !flow->halting) {
			flow->halting = true;
			flow_cancel(uring, flow, RING_RECV);
		}
	} else if (session->bulk && conn->owed == 0) {
		flow_turn(uring, flow, true);
	} else {
		flow_follow(uring, flow, conn_want(conn, uring->turn.limit));
	}
}

/* --- completions ----------------------------------------------------------------------- */

/* What was received beside a send that was then cut short goes behind what is owed. */
static void append(struct uring *uring, struct conn *conn, const uint8_t *data, size_t n)
{
	if (conn_keep(conn) < 0)
		return;
	while (n > 0) {
		struct span span = conn_landing(conn, (struct span) { NULL, 0 }, uring->turn.limit);
		size_t part = n < span.size ? n : span.size;

		if (part == 0) {
			conn_error(conn, ENOMEM);
			return;
		}
		memcpy(span.data, data, part);
		conn_received(conn, span.data, part);
		data += part;
		n -= part;
	}
}

static void received(struct uring *uring, struct flow *flow, const struct ring_event *event)
{
	uint8_t *data = ring_buffer(&uring->ring, event->buffer);
	struct conn *conn = &flow->session.conn;
	size_t n = (size_t) event->result;

	uring->worker->tally.received += n;
	flow->session.bulk = n == uring->ring.buffer_size;
	flow_touch(uring, flow);
	if (flow->lent || conn->owed > 0) {
		append(uring, conn, data, n);
		ring_buffer_give(&uring->ring, event->buffer);
		return;
	}
	conn_received(conn, data, n);
	flow->buffer = event->buffer;
	flow->lent = true;
}

static void on_recv(struct uring *uring, struct flow *flow, const struct ring_event *event)
{
	struct conn *conn = &flow->session.conn;

	flow->ops &= (uint8_t) ~BIT(RING_RECV);
	flow->halting = false;
	if (event->result > 0 && conn->reason == CONN_OPEN) {
		received(uring, flow, event);
	} else {
		if (event->buffered)
			ring_buffer_give(&uring->ring, event->buffer);
		switch (event->result) {
		case 0:
			conn_eof(conn);
			break;
		case -ENOBUFS:
			flow->starved = true;
			break;
		case -ECANCELED:
		case -EINTR:
		case -EAGAIN:
			break;
		default:
			if (event->result < 0)
				conn_error(conn, -event->result);
		}
	}
	flow_next(uring, flow, event->more);
}

static void on_send(struct uring *uring, struct flow *flow, const struct ring_event *event)
{
	struct conn *conn = &flow->session.conn;

	flow->ops &= (uint8_t) ~BIT(RING_SEND);
	if (event->result > 0) {
		conn_sent(conn, (size_t) event->result);
		uring->worker->tally.echoed += (uint64_t) event->result;
		flow_touch(uring, flow);
	} else if (event->result < 0 && event->result != -EAGAIN && event->result != -EINTR && event->result != -ECANCELED) {
		conn_error(conn, -event->result);
	}
	(void) conn_keep(conn);
	buffer_return(uring, flow);
	flow_next(uring, flow, false);
}

static void on_poll(struct uring *uring, struct flow *flow, const struct ring_event *event)
{
	flow->ops &= (uint8_t) ~BIT(RING_POLL);
	if (flow->ending || uring->halting)
		flow_next(uring, flow, false);
	else
		flow_turn(uring, flow, event->result < 0 || event->result & (POLLIN | POLLHUP | POLLERR));
}

void flow_event(struct uring *uring, const struct ring_event *event)
{
	struct flow *flow = LIST_ENTRY(LIST_ENTRY(event->watch, struct session, watch), struct flow, session);

	switch (event->op) {
	case RING_RECV:
		on_recv(uring, flow, event);
		break;
	case RING_SEND:
		on_send(uring, flow, event);
		break;
	case RING_POLL:
		on_poll(uring, flow, event);
		break;
	case RING_ACCEPT:
	case RING_CANCEL:
		break;
	}
}

/* --- beginning and end ------------------------------------------------------------------ */

void flow_begin(struct uring *uring, const struct arrival *arrival)
{
	struct flow *flow = pool_take(&uring->pool);
	struct session lost;

	if (flow) {
		*flow = (struct flow) { .ops = 0 };
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

int flow_keep(struct uring *uring, struct flow *flow)
{
	int r = conn_keep(&flow->session.conn);

	buffer_return(uring, flow);
	return r;
}

void flow_forget(struct uring *uring, struct flow *flow)
{
	flow_leave(uring, flow);
	session_forget(&flow->session, uring->worker);
	pool_give(&uring->pool, flow);
}
