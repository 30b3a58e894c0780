/* SPDX-License-Identifier: ISC */
/* uring_session.c - serve a session in the ring: receive, send, receive; by polling where that is not
 * possible
 *
 * Invariants of struct uring_state, which state_check() checks in builds with fault points:
 *   - data in the receive queue, a queued FIN and MULTISHOT_RECEIVING exist only where there are small
 *     buffers;
 *   - a single receive is never in flight together with a multishot receive;
 *   - the session owes data if `borrowed` is set;
 *   - URING_NO_BUFFER only without a multishot receive.
 */
#include <config.h>

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "models/uring/uring.h"

/* Maximum number of buffers in the receive queue; beyond it the multishot receive is ended. */
#define QUEUED_MAX 4

/* Number of consecutive short single receives before the next multishot receive: after a long message, after
 * a full queue, and where a multishot receive found no buffer at all. A multishot receive that had received
 * data is started again at once after it found no buffer, because most buffers are free again after one
 * iteration. */
#define BACKOFF 7

static struct uring_state *state_of(const struct uring *uring, const struct session *session)
{
	return ring_state(&uring->ring, &session->watch);
}

const char *uring_state_print(const struct uring_state *state, char text[static URING_STATE_TEXT_MAX])
{
	static const char *const modes[URING_MODES] = {
		[URING_FLOWING] = "flowing",
		[URING_LEAVING] = "leaving",
		[URING_NO_BUFFER] = "no-buffer",
		[URING_ENDING] = "ending",
	};
	static const char *const multishots[MULTISHOT_STATES] = {
		[MULTISHOT_NONE] = "none", [MULTISHOT_ARMED] = "armed", [MULTISHOT_RECEIVING] = "receiving",
		[MULTISHOT_CANCELLED] = "cancelled",
	};
	static const char *const ops[] = {
		[RING_NONE] = "none", [RING_POLL] = "poll", [RING_RECV] = "receive", [RING_SEND] = "send",
	};

	snprintf(text, URING_STATE_TEXT_MAX, "%s, operation %s, multishot %s, %u queued%s%s, backoff %u",
	         modes[state->mode], ops[state->op], multishots[state->multishot], state->queued,
	         state->fin_queued ? " and FIN" : "", state->borrowed ? ", borrowed" : "", state->backoff);
	return text;
}

static void state_check(const struct uring *uring, const struct session *session)
{
#ifdef ECHOD_FAULTS
	const struct uring_state *state = state_of(uring, session);
	char text[URING_STATE_TEXT_MAX];

	if ((uring->ring.small.count > 0 || (state->queued == 0 && state->multishot == MULTISHOT_NONE)) &&
	    (state->op != RING_RECV || state->multishot == MULTISHOT_NONE) &&
	    (!state->borrowed || session->conn.owed > 0 || session->conn.reason != CONN_OPEN) &&
	    (state->mode != URING_NO_BUFFER || state->multishot == MULTISHOT_NONE))
		return;
	log_event(LOG_ERR, EVENT_INTERNAL, "Invalid state of a session: %s", uring_state_print(state, text));
	abort();
#else
	(void) uring;
	(void) session;
#endif
}

static bool is_no_error(int result)
{
	return result == -EAGAIN || result == -EINTR || result == -ECANCELED;
}

static bool in_flight(const struct uring_state *state)
{
	return state->op != RING_NONE || state->multishot != MULTISHOT_NONE;
}

/* Return the borrowed buffer that contains `data`, the first owed byte, or ends there if all bytes were
 * sent. */
static void buffer_return(struct uring *uring, struct session *session, const uint8_t *data)
{
	struct uring_state *state = state_of(uring, session);

	if (state->borrowed)
		ring_buffer_give(&uring->ring, ring_buffer_at(&uring->ring, data));
	state->borrowed = false;
}

/* --- end ------------------------------------------------------------------------------- */

void uring_session_detach(struct body *body, struct session *session)
{
	struct uring *uring = uring_of(body);

	buffer_return(uring, session, session->conn.data);
	rxq_clear(&uring->ring, state_of(uring, session));
	uring_writable_forget(uring, session);
	session_io_drop_pipe(&body->io, session);
	ring_unregister(&uring->ring, &session->watch);
	list_remove(&session->link);
}

static void release(struct uring *uring, struct session *session)
{
	uring_session_detach(&uring->body, session);
	session_close(session, uring->body.worker);
	pool_free(&uring->body.pool, session);
}

static void multishot_cancel(struct uring *uring, struct session *session)
{
	struct uring_state *state = state_of(uring, session);

	if (state->multishot == MULTISHOT_NONE || state->multishot == MULTISHOT_CANCELLED)
		return;
	ring_cancel(&uring->ring, &session->watch, RING_MULTISHOT);
	state->multishot = MULTISHOT_CANCELLED;
}

/* End the multishot receive; then copy pending data into owned memory. */
static void leave(struct uring *uring, struct session *session)
{
	state_of(uring, session)->mode = URING_LEAVING;
	multishot_cancel(uring, session);
}

void uring_session_end(struct body *body, struct session *session)
{
	struct uring *uring = uring_of(body);
	struct uring_state *state = state_of(uring, session);

	if (!in_flight(state)) {
		release(uring, session);
		return;
	}
	state->mode = URING_ENDING;
	list_move_last(&uring->ending, &session->link);
	multishot_cancel(uring, session);
	if (state->op != RING_NONE)
		ring_cancel(&uring->ring, &session->watch, (enum ring_op) state->op);
}

/* Copy pending data, and the receive queue as far as `limit` allows, into owned memory. */
static void copy_pending(struct uring *uring, struct session *session, size_t limit)
{
	const uint8_t *data = session->conn.data;
	int r = conn_own_data(&session->conn);

	buffer_return(uring, session, data);
	if (r == 0)
		rxq_copy(&uring->ring, session, limit);
}

int uring_session_own_data(struct uring *uring, struct session *session)
{
	copy_pending(uring, session, CONN_LIMIT_MAX);
	if (state_of(uring, session)->queued > 0)
		conn_error(&session->conn, ENOMEM);
	return session->conn.reason == CONN_ERROR ? -ENOMEM : 0;
}

/* --- the next operation ---------------------------------------------------------------- */

static void touch(struct uring *uring, struct session *session)
{
	uint32_t before = session->active;

	session_touch(session, uring->body.now);
	body_served(&uring->body, session, before);
}

static void start_poll(struct uring *uring, struct session *session, unsigned want)
{
	unsigned interest = (want & CONN_RECV ? (unsigned) WATCH_READ : 0) |
	                    (want & CONN_SEND ? (unsigned) WATCH_WRITE : 0);

	/* a lingering session is checked by time */
	if (interest == 0)
		return;
	session->watch.interest = interest & (WATCH_READ | WATCH_WRITE);
	if (interest == WATCH_WRITE && state_of(uring, session)->half_closed &&
	    uring_writable_watch(uring, session))
		return;
	uring_writable_forget(uring, session);
	state_of(uring, session)->op = RING_POLL;
	ring_poll(&uring->ring, &session->watch);
}

/* Copy the receive queue as far as possible. Returns what the session wants then. */
static unsigned want_after_queue(struct uring *uring, struct session *session)
{
	unsigned want;

	rxq_copy(&uring->ring, session, uring->body.io.limit);
	want = conn_want(&session->conn, uring->body.io.limit);
	return state_of(uring, session)->queued > 0 ? want & ~(unsigned) CONN_RECV : want;
}

static void start_receive(struct uring *uring, struct session *session)
{
	struct uring_state *state = state_of(uring, session);

	if (state->multishot != MULTISHOT_NONE)
		return;
	if (state->backoff == 0 && uring->ring.small.count > 0) {
		state->multishot = MULTISHOT_ARMED;
		ring_recv_multishot(&uring->ring, &session->watch);
	} else {
		state->op = RING_RECV;
		ring_recv(&uring->ring, &session->watch);
	}
}

static void start_send(struct uring *uring, struct session *session)
{
	const uint8_t *data;
	size_t owed = conn_pending(&session->conn, &data);

	state_of(uring, session)->op = RING_SEND;
	ring_send(&uring->ring, &session->watch, data, owed);
}

void uring_session_update(struct uring *uring, struct session *session, unsigned want)
{
	struct uring_state *state = state_of(uring, session);

	if (want & CONN_CLOSE || (want & CONN_LINGER && session_io_linger(&uring->body.io, session))) {
		uring_session_end(&uring->body, session);
	} else if (uring->quiescing) {
		return;
	} else if (want == CONN_RECV && !session->bulk && !session->conn.header &&
	           state->mode != URING_NO_BUFFER && !session->conn.draining) {
		start_receive(uring, session);
	} else if (state->multishot != MULTISHOT_NONE) {
		leave(uring, session);
	} else {
		state->mode = URING_FLOWING;
		start_poll(uring, session, want);
	}
}

void uring_session_serve(struct uring *uring, struct session *session, bool readable)
{
	const struct uring_state *state = state_of(uring, session);
	uint32_t before = session->active;
	/* data in the receive queue are older than data in the socket */
	unsigned want =
		session_io_step(&uring->body.io, session, readable && state->queued == 0, uring->body.now);

	body_served(&uring->body, session, before);
	if (state->queued > 0 || state->fin_queued)
		want = want_after_queue(uring, session);
	uring_session_update(uring, session, want);
}

/* Start the next operation of a session of which at most a multishot receive is in flight. */
static void go_on(struct uring *uring, struct session *session)
{
	struct uring_state *state = state_of(uring, session);
	const struct conn *conn = &session->conn;

	if (state->mode == URING_LEAVING) {
		if (state->multishot != MULTISHOT_NONE)
			return;
		copy_pending(uring, session, uring->body.io.limit);
		state->mode = URING_FLOWING;
	} else if (state->queued > 0 && conn->owed == 0) {
		rxq_borrow(&uring->ring, session);
	}
	if (state->borrowed)
		start_send(uring, session);
	else if (session->bulk && conn->owed == 0)
		uring_session_serve(uring, session, true);
	else
		uring_session_update(uring, session, want_after_queue(uring, session));
}

/* After the completion of an operation: free, end or continue the session. */
static void next_operation(struct uring *uring, struct session *session)
{
	const struct uring_state *state = state_of(uring, session);

	state_check(uring, session);
	if (state->mode == URING_ENDING) {
		if (!in_flight(state))
			release(uring, session);
	} else if (session->conn.reason != CONN_OPEN) {
		uring_session_end(&uring->body, session);
	} else if (!uring->quiescing && state->op == RING_NONE) {
		go_on(uring, session);
	}
}

/* --- completions ----------------------------------------------------------------------- */

static void received(struct uring *uring, struct session *session, const struct ring_event *event)
{
	uring->body.worker->local_stats.received += (size_t) event->result;
	touch(uring, session);
}

/* Let the session owe the data in the buffer of the completion. */
static void borrow(struct uring *uring, struct session *session, const struct ring_event *event)
{
	conn_received(&session->conn, ring_buffer(&uring->ring, event->buffer), (size_t) event->result);
	state_of(uring, session)->borrowed = true;
}

/* Handle a receive without data. */
static void received_nothing(struct uring *uring, const struct ring_event *event, struct conn *conn)
{
	if (event->buffered)
		ring_buffer_give(&uring->ring, event->buffer);
	if (event->result < 0 && event->result != -ENOBUFS && !is_no_error(event->result))
		conn_error(conn, -event->result);
}

static void on_receive(struct uring *uring, struct session *session, const struct ring_event *event)
{
	struct uring_state *state = state_of(uring, session);
	size_t n = (size_t) event->result;

	if (event->result > 0 && state->mode != URING_ENDING) {
		received(uring, session, event);
		borrow(uring, session, event);
		session_io_note_size(&uring->body.io, session, n, uring->ring.large.size);
		if (n > uring->ring.small.size)
			state->backoff = BACKOFF;
		else if (state->backoff > 0)
			state->backoff--;
		return;
	}
	received_nothing(uring, event, &session->conn);
	if (event->result == 0)
		conn_eof(&session->conn);
	if (event->result == -ENOBUFS && state->mode == URING_FLOWING)
		state->mode = URING_NO_BUFFER;
}

/* Whether data that arrive while others are sent or queued belong to a long message, or are too many. */
static bool is_too_much(const struct uring *uring, const struct session *session)
{
	const struct uring_state *state = state_of(uring, session);
	size_t before = state->queued > 0 ? rxq_last_size(&uring->ring, state) : session->conn.owed;

	return before >= uring->ring.small.size || state->queued >= QUEUED_MAX;
}

static void on_multishot(struct uring *uring, struct session *session, const struct ring_event *event)
{
	struct uring_state *state = state_of(uring, session);

	if (event->result == -ENOBUFS)
		state->backoff = state->multishot == MULTISHOT_ARMED ? BACKOFF : 0;
	if (event->last)
		state->multishot = MULTISHOT_NONE;
	else if (state->multishot == MULTISHOT_ARMED)
		state->multishot = MULTISHOT_RECEIVING;
	if (event->result <= 0 || state->mode == URING_ENDING) {
		received_nothing(uring, event, &session->conn);
		state->fin_queued = event->result == 0;
		return;
	}
	received(uring, session, event);
	if (state->op == RING_NONE && session->conn.owed == 0 && state->queued == 0) {
		borrow(uring, session, event);
		return;
	}
	if (is_too_much(uring, session)) {
		state->backoff = BACKOFF;
		leave(uring, session);
	}
	rxq_push(&uring->ring, state, event->buffer, (size_t) event->result);
}

static void on_send(struct uring *uring, struct session *session, const struct ring_event *event)
{
	struct conn *conn = &session->conn;
	bool ending = state_of(uring, session)->mode == URING_ENDING;

	if (event->result > 0) {
		conn_sent(conn, (size_t) event->result);
		uring->body.worker->local_stats.echoed += (uint64_t) event->result;
		if (!ending)
			touch(uring, session);
	} else if (event->result < 0 && !is_no_error(event->result)) {
		conn_error(conn, -event->result);
	}
	if (conn->owed == 0)
		buffer_return(uring, session, conn->data);
	else if (!ending)
		leave(uring, session); /* the client does not read: its data wait in owned memory */
}

void uring_session_event(struct uring *uring, const struct ring_event *event)
{
	struct session *session = LIST_ENTRY(event->watch, struct session, watch);
	struct uring_state *state = state_of(uring, session);

	if (event->op != RING_MULTISHOT)
		state->op = RING_NONE;
	if (event->op == RING_MULTISHOT) {
		on_multishot(uring, session, event);
	} else if (event->op == RING_RECV) {
		on_receive(uring, session, event);
	} else if (event->op == RING_SEND) {
		on_send(uring, session, event);
	} else if (state->mode != URING_ENDING && !uring->quiescing) {
		state->half_closed |= uring_writable_is_needed(&session->watch, event);
		uring_session_serve(uring, session,
		                    event->result < 0 || event->result & (POLLIN | POLLHUP | POLLERR));
		return;
	}
	next_operation(uring, session);
}

/* --- start ----------------------------------------------------------------------------- */

int uring_session_start(struct body *body, struct session *session)
{
	struct uring *uring = uring_of(body);
	int r = ring_register(&uring->ring, &session->watch);

	if (r < 0)
		return r;
	session_enlist(&body->sessions, session, body->now, &body->sort_at);
	uring_session_update(uring, session, conn_want(&session->conn, body->io.limit));
	return 0;
}
