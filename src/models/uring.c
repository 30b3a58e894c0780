/* uring.c - the body of io_uring: a loop over completions
 *
 * While a session's echo flows, it has a receive in flight that takes one of the ring's buffers
 * when data come, and then a send of that buffer beside the next receive: an idle session holds
 * nothing. Sends never wait in the ring: when one is cut short, or buffers have run out, or
 * the data come in bulk, the session stops flowing and is polled, and then served by
 * turn_step() as the readiness bodies do, until it owes nothing. So a client that does not
 * read holds its own memory and never a buffer of the ring, and what it may have in flight is
 * the same as in every other model.
 *
 * A session goes away only after its last operation has completed: neither its slot, nor its
 * descriptor, nor its memory can be somebody else's while the kernel still knows them.
 */
#include <config.h>

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/pool.h"
#include "models/datagram.h"
#include "models/handover.h"
#include "models/intake.h"
#include "models/model.h"
#include "models/turn.h"
#include "models/uring_ring.h"

/* Connections taken from one listener a turn, as in loop.c. */
#define ACCEPT_ALONE 256
#define ACCEPT_SHARED 8

/* How often draining sessions are looked at, and cancellation is repeated. */
#define TICK (10 * USEC_PER_MSEC)

/* Completions dealt with before the clock is read again. */
#define EVENTS_MAX 1024

struct flow {
	struct session session;
	uint16_t buffer;  /* of the ring: what is owed lies in it, while `lent` */
	uint8_t ops;      /* in flight: 1 << enum ring_op */
	bool lent : 1;
	bool ending : 1;  /* ended; goes away with its last operation */
	bool halting : 1; /* its receive is being cancelled: it stops flowing */
	bool starved : 1; /* found no buffer: is polled once */
};

/* A stream listener. */
struct door {
	struct watch watch;
	bool armed;       /* an operation is in flight: */
	bool multishot;   /* a multishot accept, else a poll */
	bool cancelling;
};

struct ready {
	struct uring *uring;
};

struct uring {
	struct worker *worker;
	struct ring ring;
	struct turn turn;
	struct intake intake;
	struct datagram datagram;
	struct ready ready;        /* what the datagrams see of it */
	struct pool pool;
	struct list sessions;      /* by last activity, the longest idle first */
	struct list ending;
	struct door *doors;        /* one for each of the worker's listeners */
	struct watch stop, inbox, room;
	bool in_room;
	int *parked;               /* accepted when no place was left: they wait for one */
	size_t parked_count, parked_size;
	bool stop_seen, stopping;
	bool halting;              /* stop seen: nothing is begun until all operations have ended */
	int64_t now;               /* coarse, taken once a turn */
	int64_t drain_until;
};

#define BIT(op) (uint8_t) (1U << (op))

static struct flow *flow_of(struct watch *watch)
{
	return LIST_ENTRY(LIST_ENTRY(watch, struct session, watch), struct flow, session);
}

/* --- sessions -------------------------------------------------------------------------- */

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

static void flow_end(struct uring *uring, struct flow *flow)
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

/* Nothing of it is in flight: do what `want` says. */
static void flow_follow(struct uring *uring, struct flow *flow, unsigned want)
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

/* Serve it as the readiness bodies do. */
static void flow_turn(struct uring *uring, struct flow *flow, bool readable)
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

/* --- completions of sessions ----------------------------------------------------------- */

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

static void on_session(struct uring *uring, struct flow *flow, const struct ring_event *event)
{
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

/* --- where sessions come from ---------------------------------------------------------- */

static void session_begin(struct uring *uring, const struct arrival *arrival)
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

static void take_arrivals(struct uring *uring, const struct watch *watch)
{
	int most = uring->worker->workers == 1 ? ACCEPT_ALONE : ACCEPT_SHARED;
	struct arrival arrival;

	for (int i = 0; i < most; i++) {
		int got;

		if (watch == &uring->inbox)
			got = intake_inherit(&uring->intake, &arrival);
		else
			got = intake_accept(&uring->intake, (size_t) (LIST_ENTRY(watch, struct door, watch) - uring->doors), &arrival);
		if (got == 0)
			return;
		session_begin(uring, &arrival);
	}
}

/* Serve a connection whose place has been taken. */
static void admit(struct uring *uring, int fd)
{
	struct addr addr = { .len = sizeof addr.un };
	struct arrival arrival;

	/* one that was reset since has no name any more, but is an accepted connection all the same */
	if (getpeername(fd, &addr.sa, &addr.len) < 0)
		addr = (struct addr) { .len = 0 };
	if (intake_admit(&uring->intake, fd, &addr, &arrival))
		session_begin(uring, &arrival);
}

/* Returns false where there is no memory for it. */
static bool park(struct uring *uring, int fd)
{
	if (uring->parked_count == uring->parked_size) {
		size_t size = uring->parked_size * 2 + 16;
		int *parked = realloc(uring->parked, size * sizeof *parked);

		if (!parked)
			return false;
		uring->parked = parked;
		uring->parked_size = size;
	}
	uring->parked[uring->parked_count++] = fd;
	return true;
}

/* Let those in for whom there are places by now, or all of them if `forced`. */
static void unpark(struct uring *uring, bool forced)
{
	size_t n = 0;

	while (n < uring->parked_count) {
		if (forced)
			admission_force_place(&uring->worker->admission);
		else if (uring->intake.waiting || !intake_place(&uring->intake))
			break;
		admit(uring, uring->parked[n++]);
	}
	if (n == 0)
		return;
	uring->parked_count -= n;
	memmove(uring->parked, uring->parked + n, uring->parked_count * sizeof *uring->parked);
}

static void on_accept(struct uring *uring, const struct ring_event *event)
{
	if (event->result == -ECANCELED)
		return;
	if (event->result < 0) {
		intake_failed(&uring->intake, -event->result);
		return;
	}
	if (uring->parked_count == 0 && !uring->intake.waiting && intake_place(&uring->intake)) {
		admit(uring, event->result);
	} else if (!park(uring, event->result)) {
		close(event->result);
		intake_failed(&uring->intake, ENOMEM);
	}
}

/* Whether a multishot accept, which knows no limit, can be trusted not to reach it: what lies
 * in the backlogs and as much again would still find places. Where workers share listeners it
 * would take every connection, because the kernel wakes the one that waits longest, which it
 * always is. */
static bool is_roomy(const struct uring *uring)
{
	const struct worker *worker = uring->worker;
	uint64_t spare = 2 * (uint64_t) worker->conf->backlog * worker->listener_count;

	return worker->workers == 1 &&
	       admission_places_taken(worker->admission.shared) + spare < worker->admission.max_connections;
}

static void door_open(struct uring *uring, struct door *door)
{
	door->armed = true;
	door->multishot = is_roomy(uring);
	if (door->multishot)
		ring_accept(&uring->ring, &door->watch);
	else
		ring_poll(&uring->ring, &door->watch, true);
}

static void door_shut(struct uring *uring, struct door *door)
{
	if (!door->cancelling)
		ring_cancel(&uring->ring, &door->watch, door->multishot ? RING_ACCEPT : RING_POLL);
	door->cancelling = true;
}

static void on_door(struct uring *uring, struct door *door, const struct ring_event *event)
{
	if (event->last)
		door->armed = door->cancelling = false;
	if (event->op == RING_ACCEPT)
		on_accept(uring, event);
	else if (event->result != -ECANCELED)
		take_arrivals(uring, &door->watch);
}

static int watch_begin(struct uring *uring, struct watch *watch, int fd, enum watch_kind kind)
{
	*watch = (struct watch) { .fd = fd, .kind = (uint8_t) kind, .interest = WATCH_READ };
	return ring_join(&uring->ring, watch);
}

static void room_watch(struct uring *uring)
{
	if (watch_begin(uring, &uring->room, uring->intake.room_fd, WATCH_ROOM) < 0) {
		intake_failed(&uring->intake, ENOMEM);
		return;
	}
	ring_poll(&uring->ring, &uring->room, false);
	uring->in_room = true;
}

static void room_unwatch(struct uring *uring)
{
	ring_cancel(&uring->ring, &uring->room, RING_POLL);
	ring_leave(&uring->ring, &uring->room);
	uring->in_room = false;
}

/* Watch the stream listeners and the room for as long as the intake wants them watched. */
static void intake_follow(struct uring *uring)
{
	bool open = uring->intake.open && !uring->stopping && !uring->halting;
	bool waiting = uring->intake.waiting && !uring->stopping && !uring->halting;
	const struct worker *worker = uring->worker;

	for (size_t i = 0; i < worker->listener_count; i++) {
		struct door *door = &uring->doors[i];

		if (worker->listeners[i].kind != LISTENER_STREAM)
			continue;
		if (open && !door->armed)
			door_open(uring, door);
		else if (door->armed && (!open || (door->multishot && !is_roomy(uring))))
			door_shut(uring, door);
	}
	if (waiting && !uring->in_room)
		room_watch(uring);
	else if (!waiting && uring->in_room)
		room_unwatch(uring);
}

/* --- datagrams: what datagram.h needs of a readiness back-end ---------------------------- */

static int datagram_add(struct ready *ready, struct watch *watch, bool shared)
{
	int r = ring_join(&ready->uring->ring, watch);

	if (r == 0)
		ring_poll(&ready->uring->ring, watch, shared);
	return r;
}

static void datagram_remove(struct ready *ready, struct watch *watch, bool closing)
{
	(void) closing;
	ring_cancel(&ready->uring->ring, watch, RING_POLL);
	ring_leave(&ready->uring->ring, watch);
}

static int datagram_change(struct ready *ready, struct watch *watch)
{
	datagram_remove(ready, watch, false);
	return datagram_add(ready, watch, true);
}

static const struct ready_ops datagram_ready = {
	.add = datagram_add,
	.change = datagram_change,
	.remove = datagram_remove,
};

/* --- the end --------------------------------------------------------------------------- */

/* Apply `act` to every session that is there now, though it may end or move some of them. */
static void sessions_each(struct uring *uring, void (*act)(struct uring *, struct flow *))
{
	struct list all;

	if (list_empty(&uring->sessions))
		return;
	all = uring->sessions;
	all.next->prev = all.prev->next = &all;
	list_init(&uring->sessions);
	while (!list_empty(&all)) {
		struct session *session = LIST_ENTRY(all.next, struct session, link);

		list_remove(&session->link);
		list_append(&uring->sessions, &session->link);
		act(uring, LIST_ENTRY(session, struct flow, session));
	}
}

static void sessions_expire(struct uring *uring)
{
	while (!list_empty(&uring->sessions)) {
		struct session *session = LIST_ENTRY(uring->sessions.next, struct session, link);

		if (session_idle_deadline(session, uring->worker->conf, uring->now) > uring->now)
			return;
		conn_end(&session->conn, CONN_IDLE);
		flow_end(uring, LIST_ENTRY(session, struct flow, session));
	}
}

/* Returns whether the session is gone. */
static bool flow_hand_over(struct uring *uring, struct flow *flow)
{
	struct worker *worker = uring->worker;
	int64_t until = atomic_load(&worker->orders->hand_until);

	if (worker->outbox_fd < 0 || turn_empty_pipe(&uring->turn, &flow->session) < 0)
		return false;
	if (handover_send_wait(worker->outbox_fd, &flow->session, until) < 0)
		return false;
	flow_leave(uring, flow);
	session_forget(&flow->session, worker);
	pool_give(&uring->pool, flow);
	return true;
}

static void flow_drain(struct uring *uring, struct flow *flow)
{
	if (conn_keep(&flow->session.conn) == 0)
		turn_drain(&flow->session);
	buffer_return(uring, flow);
	flow_turn(uring, flow, true);
}

static void flow_stop(struct uring *uring, struct flow *flow)
{
	if (!flow_hand_over(uring, flow))
		flow_drain(uring, flow);
}

static void flow_drain_again(struct uring *uring, struct flow *flow)
{
	if (flow->ops == 0)
		flow_follow(uring, flow, conn_want(&flow->session.conn, uring->turn.limit));
}

static void flow_cut(struct uring *uring, struct flow *flow)
{
	conn_end(&flow->session.conn, CONN_DRAIN);
	flow_end(uring, flow);
}

/* The order to stop has come. What a session owes and what its peer has sent is only certain
 * when no operation of it is in flight: so end them all first, losing nothing. */
static void halt(struct uring *uring)
{
	if (!uring->halting)
		datagram_unwatch(&uring->datagram);
	uring->halting = true;
	ring_cancel_all(&uring->ring);
}

static void stop_begin(struct uring *uring)
{
	struct worker *worker = uring->worker;
	enum stats_stop order = worker_stop_order(worker);

	uring->stopping = true;
	uring->drain_until = atomic_load(&worker->orders->drain_until);
	/* a client whose knock was for this worker alone may have been cancelled with its operation */
	for (size_t i = 0; order == STOP_HAND_OVER && i < worker->listener_count; i++)
		if (worker->listeners[i].kind == LISTENER_STREAM)
			take_arrivals(uring, &uring->doors[i].watch);
	unpark(uring, true);
	uring->halting = false;
	sessions_each(uring, order == STOP_HAND_OVER ? flow_stop : flow_drain);
}

/* --- the loop -------------------------------------------------------------------------- */

/* Poll it again; nothing is begun while all is being ended. */
static void watch_again(struct uring *uring, const struct watch *watch, bool shared)
{
	if (!uring->halting && !uring->stopping && watch->slot != RING_NO_SLOT)
		ring_poll(&uring->ring, watch, shared);
}

static void dispatch(struct uring *uring, const struct ring_event *event)
{
	struct watch *watch = event->watch;

	switch ((enum watch_kind) watch->kind) {
	case WATCH_SESSION:
		on_session(uring, flow_of(watch), event);
		break;
	case WATCH_LISTENER:
		on_door(uring, LIST_ENTRY(watch, struct door, watch), event);
		break;
	case WATCH_INBOX:
		if (event->result != -ECANCELED)
			take_arrivals(uring, watch);
		watch_again(uring, watch, true);
		break;
	case WATCH_DATAGRAM:
		datagram_turn(&uring->datagram, watch->fd);
		watch_again(uring, watch, true);
		break;
	case WATCH_ROOM:
		ring_leave(&uring->ring, watch);
		uring->in_room = false;
		intake_retry(&uring->intake);
		break;
	case WATCH_STOP:
		uring->stop_seen = true;
		break;
	case WATCH_OTHER:
		break;
	}
}

static void discard(struct uring *uring, const struct ring_event *event)
{
	if (event->buffered)
		ring_buffer_give(&uring->ring, event->buffer);
}

static int64_t next_deadline(const struct uring *uring)
{
	int64_t deadline = uring->intake.retry_at;

	if (uring->worker->next_beat < deadline)
		deadline = uring->worker->next_beat;
	if (uring->stopping || uring->halting)
		return uring->now + TICK < deadline ? uring->now + TICK : deadline;
	if (!list_empty(&uring->sessions)) {
		struct session *oldest = LIST_ENTRY(uring->sessions.next, struct session, link);
		int64_t idle = session_idle_deadline(oldest, uring->worker->conf, uring->now);

		if (idle < deadline)
			deadline = idle;
	}
	return deadline;
}

/* Returns how many completions there were. */
static size_t harvest(struct uring *uring)
{
	struct ring_event event;
	size_t n = 0;

	while (n < EVENTS_MAX && ring_next(&uring->ring, &event)) {
		n++;
		if (event.watch)
			dispatch(uring, &event);
		else
			discard(uring, &event);
	}
	return n;
}

static int uring_turn(struct uring *uring)
{
	int r = ring_wait(&uring->ring, clock_poll_timeout(next_deadline(uring), uring->now));
	size_t n;

	if (r < 0)
		return r;
	uring->now = clock_coarse_usec();
	n = harvest(uring);
	if (uring->stop_seen && !uring->stopping) {
		if (uring->ring.in_flight == 0 && uring->halting)
			stop_begin(uring);
		else if (!uring->halting || n == 0)
			halt(uring);
	}
	if (uring->now >= uring->intake.retry_at)
		intake_retry(&uring->intake);
	if (uring->parked_count > 0)
		unpark(uring, false);
	intake_follow(uring);
	if (uring->stopping)
		sessions_each(uring, uring->now < uring->drain_until ? flow_drain_again : flow_cut);
	else if (!uring->halting)
		sessions_expire(uring);
	stats_publish(uring->worker->slot, &uring->worker->tally);
	worker_beat(uring->worker, uring->now);
	return 0;
}

static int doors_open(struct uring *uring)
{
	const struct worker *worker = uring->worker;
	int r = 0;

	uring->doors = calloc(worker->listener_count + 1, sizeof *uring->doors);
	if (!uring->doors)
		return -ENOMEM;
	for (size_t i = 0; r == 0 && i < worker->listener_count; i++)
		if (worker->listeners[i].kind == LISTENER_STREAM)
			r = watch_begin(uring, &uring->doors[i].watch, worker->listeners[i].fd, WATCH_LISTENER);
	return r;
}

static int uring_open(struct uring *uring)
{
	struct worker *worker = uring->worker;
	int r;

	uring->now = clock_coarse_usec();
	uring->ready.uring = uring;
	list_init(&uring->sessions);
	list_init(&uring->ending);
	pool_init(&uring->pool, sizeof(struct flow));
	intake_init(&uring->intake, worker);
	r = turn_open(&uring->turn, worker->conf->buffer_size, worker->model->pipes, &worker->tally);
	if (r == 0)
		r = ring_open(&uring->ring, worker->conf->buffer_size);
	if (r == 0)
		r = doors_open(uring);
	if (r == 0)
		r = watch_begin(uring, &uring->stop, worker->stop_fd, WATCH_STOP);
	if (r == 0 && worker->inbox_fd >= 0)
		r = watch_begin(uring, &uring->inbox, worker->inbox_fd, WATCH_INBOX);
	if (r == 0)
		r = datagram_open(&uring->datagram, worker);
	if (r == 0)
		r = datagram_watch(&uring->datagram, &datagram_ready, &uring->ready);
	if (r < 0)
		return r;
	ring_poll(&uring->ring, &uring->stop, false);
	if (worker->inbox_fd >= 0)
		ring_poll(&uring->ring, &uring->inbox, true);
	intake_follow(uring);
	return 0;
}

static void uring_close(struct uring *uring)
{
	intake_close(&uring->intake);
	datagram_close(&uring->datagram);
	ring_close(&uring->ring);
	turn_close(&uring->turn);
	free(uring->parked);
	free(uring->doors);
}

int uring_run(struct worker *worker)
{
	struct uring uring = { .worker = worker };
	int r;

	uring.ring.io.ring_fd = -1;
	r = uring_open(&uring);
	if (r == 0) {
		worker_ready(worker);
		while (r == 0 && !(uring.stopping && list_empty(&uring.sessions) && list_empty(&uring.ending)))
			r = uring_turn(&uring);
	}
	uring_close(&uring);
	return r;
}
