/* uring_flow.c - a session in the ring: receive, send, receive, and out of it when that does not flow */
#include <config.h>

#include <errno.h>
#include <poll.h>
#include <string.h>

#include "models/uring.h"

/* A stream that has more than so many receives waiting for a send to complete is none. */
#define HELD_MOST 4

/* After a long message, or too many, or where there was no buffer for a stream to begin with, so many short ones before
 * the next. One that did begin is only made anew when buffers run out: most are back after a turn. */
#define CALM 7

static struct stream *stream_of(const struct uring *uring, const struct session *session)
{
	return ring_stream(&uring->ring, &session->watch);
}

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

/* --- ending and leaving ---------------------------------------------------------------- */

/* Nothing of it is in flight, and nobody shall find it any more. */
static void flow_leave(struct uring *uring, struct session *session)
{
	buffer_return(uring, session, session->conn.data);
	held_drop(&uring->ring, stream_of(uring, session));
	turn_drop_pipe(&uring->body.turn, session);
	ring_leave(&uring->ring, &session->watch);
	list_remove(&session->link);
}

static void flow_release(struct uring *uring, struct session *session)
{
	flow_leave(uring, session);
	session_close(session, uring->body.worker);
	pool_give(&uring->body.pool, session);
}

static void stream_end(struct uring *uring, struct session *session)
{
	struct stream *stream = stream_of(uring, session);

	if (stream->in_flight && !stream->cancelled)
		ring_cancel(&uring->ring, &session->watch, RING_STREAM);
	stream->cancelled = stream->in_flight;
}

/* The session stops flowing as soon as its stream has ended. */
static void stream_stick(struct uring *uring, struct session *session)
{
	stream_of(uring, session)->stuck = true;
	stream_end(uring, session);
}

void flow_end(struct body *body, struct session *session)
{
	struct uring *uring = uring_of(body);
	struct watch *watch = &session->watch;

	if (watch->op == RING_NONE && !stream_of(uring, session)->in_flight) {
		flow_release(uring, session);
		return;
	}
	watch->ending = true;
	list_move_last(&uring->ending, &session->link);
	stream_end(uring, session);
	if (watch->op != RING_NONE)
		ring_cancel(&uring->ring, watch, (enum ring_op) watch->op);
}

/* Take what is owed, and what is held as far as it may, into memory of its own. */
static void keep(struct uring *uring, struct session *session, size_t limit)
{
	const uint8_t *data = session->conn.data;
	int r = conn_keep(&session->conn);

	buffer_return(uring, session, data);
	if (r == 0)
		held_keep(&uring->ring, session, limit);
}

int flow_keep(struct uring *uring, struct session *session)
{
	keep(uring, session, CONN_LIMIT_MAX);
	if (stream_of(uring, session)->held > 0)
		conn_error(&session->conn, ENOMEM);
	return session->conn.reason == CONN_ERROR ? -ENOMEM : 0;
}

/* --- what comes next ------------------------------------------------------------------- */

static void flow_touch(struct uring *uring, struct session *session)
{
	uint32_t before = session->active;

	session_touch(session, uring->body.now);
	body_served(&uring->body, session, before);
}

static void flow_poll(struct uring *uring, struct session *session, unsigned want)
{
	unsigned interest = (want & CONN_RECV ? (unsigned) WATCH_READ : 0) | (want & CONN_SEND ? (unsigned) WATCH_WRITE : 0);

	/* one that only lingers is looked at every TICK */
	if (interest == 0)
		return;
	session->watch.interest = interest & (WATCH_READ | WATCH_WRITE);
	session->watch.op = RING_POLL;
	ring_poll(&uring->ring, &session->watch);
}

/* What it wants when what is held has gone on as far as it can. */
static unsigned flow_want(struct uring *uring, struct session *session)
{
	unsigned want;

	held_keep(&uring->ring, session, uring->body.turn.limit);
	want = conn_want(&session->conn, uring->body.turn.limit);
	return stream_of(uring, session)->held > 0 ? want & ~(unsigned) CONN_RECV : want;
}

static void flow_receive(struct uring *uring, struct session *session)
{
	struct stream *stream = stream_of(uring, session);

	if (stream->in_flight)
		return;
	if (stream->calm == 0 && uring->ring.small.count > 0) {
		stream->in_flight = true;
		stream->flowing = false;
		ring_recv_stream(&uring->ring, &session->watch);
	} else {
		session->watch.op = RING_RECV;
		ring_recv(&uring->ring, &session->watch);
	}
}

void flow_follow(struct uring *uring, struct session *session, unsigned want)
{
	struct watch *watch = &session->watch;

	if (want & CONN_CLOSE || (want & CONN_LINGER && turn_linger(session))) {
		flow_end(&uring->body, session);
	} else if (uring->quiescing) {
		return;
	} else if (want == CONN_RECV && !session->bulk && !watch->starved && !session->conn.draining) {
		flow_receive(uring, session);
	} else if (stream_of(uring, session)->in_flight) {
		stream_stick(uring, session);
	} else {
		watch->starved = false;
		flow_poll(uring, session, want);
	}
}

void flow_turn(struct uring *uring, struct session *session, bool readable)
{
	const struct stream *stream = stream_of(uring, session);
	uint32_t before = session->active;
	/* what is held came before what is still in the socket */
	unsigned want = turn_step(&uring->body.turn, session, readable && stream->held == 0, uring->body.now);

	body_served(&uring->body, session, before);
	if (stream->held > 0 || stream->finished)
		want = flow_want(uring, session);
	flow_follow(uring, session, want);
}

static void flow_send(struct uring *uring, struct session *session)
{
	const uint8_t *data;
	size_t owed = conn_owed(&session->conn, &data);

	session->watch.op = RING_SEND;
	ring_send(&uring->ring, &session->watch, data, owed);
}

/* Nothing of it is in flight but, perhaps, a stream, and it goes on. */
static void flow_on(struct uring *uring, struct session *session)
{
	struct stream *stream = stream_of(uring, session);
	const struct conn *conn = &session->conn;

	if (stream->stuck && stream->in_flight)
		return;
	if (stream->stuck)
		keep(uring, session, uring->body.turn.limit);
	else if (stream->held > 0 && conn->owed == 0)
		held_lend(&uring->ring, session);
	stream->stuck = false;
	if (session->watch.lent)
		flow_send(uring, session);
	else if (session->bulk && conn->owed == 0)
		flow_turn(uring, session, true);
	else
		flow_follow(uring, session, flow_want(uring, session));
}

/* An operation has completed: see what is to be done next. */
static void flow_next(struct uring *uring, struct session *session)
{
	const struct watch *watch = &session->watch;

	if (watch->ending) {
		if (watch->op == RING_NONE && !stream_of(uring, session)->in_flight)
			flow_release(uring, session);
	} else if (session->conn.reason != CONN_OPEN) {
		flow_end(&uring->body, session);
	} else if (!uring->quiescing && watch->op == RING_NONE) {
		flow_on(uring, session);
	}
}

/* --- completions ----------------------------------------------------------------------- */

static void received(struct uring *uring, struct session *session, const struct ring_event *event)
{
	uring->body.worker->tally.received += (size_t) event->result;
	flow_touch(uring, session);
}

/* What is owed lies in the buffer of the completion. */
static void lend(struct uring *uring, struct session *session, const struct ring_event *event)
{
	conn_received(&session->conn, ring_buffer(&uring->ring, event->buffer), (size_t) event->result);
	session->watch.lent = true;
}

/* A receive that brought nothing. */
static void on_nothing(struct uring *uring, const struct ring_event *event, struct conn *conn)
{
	if (event->buffered)
		ring_buffer_give(&uring->ring, event->buffer);
	if (event->result < 0 && event->result != -ENOBUFS && !is_no_error(event->result))
		conn_error(conn, -event->result);
}

static void on_recv(struct uring *uring, struct session *session, const struct ring_event *event)
{
	struct stream *stream = stream_of(uring, session);
	size_t n = (size_t) event->result;

	if (event->result > 0 && !session->watch.ending) {
		received(uring, session, event);
		lend(uring, session, event);
		turn_note_size(&uring->body.turn, session, n, uring->ring.large.size);
		if (n > uring->ring.small.size)
			stream->calm = CALM;
		else if (stream->calm > 0)
			stream->calm--;
		return;
	}
	on_nothing(uring, event, &session->conn);
	if (event->result == 0)
		conn_eof(&session->conn);
	session->watch.starved = event->result == -ENOBUFS;
}

/* Data have come while others are on their way, or held: whether they are part of a long message, or too many. */
static bool is_too_much(const struct uring *uring, const struct session *session)
{
	const struct stream *stream = stream_of(uring, session);
	size_t before = stream->held > 0 ? held_last_size(&uring->ring, stream) : session->conn.owed;

	return before >= uring->ring.small.size || stream->held >= HELD_MOST;
}

static void on_stream(struct uring *uring, struct session *session, const struct ring_event *event)
{
	struct stream *stream = stream_of(uring, session);

	if (event->last)
		stream->in_flight = stream->cancelled = false;
	if (event->result <= 0 || session->watch.ending) {
		on_nothing(uring, event, &session->conn);
		stream->finished = event->result == 0;
		if (event->result == -ENOBUFS)
			stream->calm = stream->flowing ? 0 : CALM;
		return;
	}
	received(uring, session, event);
	stream->flowing = true;
	if (session->watch.op == RING_NONE && session->conn.owed == 0 && stream->held == 0) {
		lend(uring, session, event);
		return;
	}
	if (is_too_much(uring, session)) {
		stream->calm = CALM;
		stream_stick(uring, session);
	}
	held_push(&uring->ring, stream, event->buffer, (size_t) event->result);
}

static void on_send(struct uring *uring, struct session *session, const struct ring_event *event)
{
	struct conn *conn = &session->conn;

	if (event->result > 0) {
		conn_sent(conn, (size_t) event->result);
		uring->body.worker->tally.echoed += (uint64_t) event->result;
		if (!session->watch.ending)
			flow_touch(uring, session);
	} else if (event->result < 0 && !is_no_error(event->result)) {
		conn_error(conn, -event->result);
	}
	if (conn->owed == 0) {
		buffer_return(uring, session, conn->data);
	} else {
		/* what could not be sent is the client's doing: it waits in memory of its own, with all that still comes */
		stream_stick(uring, session);
	}
}

void flow_event(struct uring *uring, const struct ring_event *event)
{
	struct session *session = LIST_ENTRY(event->watch, struct session, watch);

	if (event->op != RING_STREAM)
		session->watch.op = RING_NONE;
	if (event->op == RING_STREAM) {
		on_stream(uring, session, event);
	} else if (event->op == RING_RECV) {
		on_recv(uring, session, event);
	} else if (event->op == RING_SEND) {
		on_send(uring, session, event);
	} else if (!session->watch.ending && !uring->quiescing) {
		flow_turn(uring, session, event->result < 0 || event->result & (POLLIN | POLLHUP | POLLERR));
		return;
	}
	flow_next(uring, session);
}

/* --- beginning and end ------------------------------------------------------------------ */

int flow_start(struct body *body, struct session *session)
{
	struct uring *uring = uring_of(body);
	int r = ring_join(&uring->ring, &session->watch);

	if (r < 0)
		return r;
	session_enlist(&body->sessions, session, body->now, &body->sort_at);
	flow_follow(uring, session, conn_want(&session->conn, body->turn.limit));
	return 0;
}

void flow_forget(struct uring *uring, struct session *session)
{
	flow_leave(uring, session);
	session_forget(session, uring->body.worker);
	pool_give(&uring->body.pool, session);
}
