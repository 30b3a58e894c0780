/* uring.c - the body of io_uring: a loop over completions */
#include <config.h>

#include "models/uring.h"

#include <errno.h>
#include <limits.h>

#include "base/clock.h"
#include "models/handover.h"
#include "models/model.h"

/* How often draining sessions are looked at, and cancellation is repeated. */
#define TICK (10 * USEC_PER_MSEC)

/* Completions dealt with before the clock is read again. */
#define EVENTS_MAX 1024

/* --- the end --------------------------------------------------------------------------- */

/* Apply `act` to every session that is there now, though it may end or move some of them. */
static void sessions_each(struct uring *uring, void (*act)(struct uring *, struct session *))
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
		act(uring, session);
	}
}

static void sessions_expire(struct uring *uring)
{
	sessions_sort(&uring->sessions, uring->now, &uring->sort_at);
	while (!list_empty(&uring->sessions)) {
		struct session *session = LIST_ENTRY(uring->sessions.next, struct session, link);

		if (session_idle_deadline(session, uring->worker->conf, uring->now) > uring->now)
			return;
		conn_end(&session->conn, CONN_IDLE);
		flow_end(uring, session);
	}
}

/* Returns whether the session is gone. */
static bool flow_hand_over(struct uring *uring, struct session *session)
{
	if (turn_empty_pipe(&uring->turn, session) < 0 || handover_send_wait(uring->worker, session) < 0)
		return false;
	flow_forget(uring, session);
	return true;
}

static void flow_drain(struct uring *uring, struct session *session)
{
	if (flow_keep(uring, session) == 0)
		turn_drain(session);
	flow_turn(uring, session, true);
}

static void flow_stop(struct uring *uring, struct session *session)
{
	/* the FIN behind what its stream has brought may be its end */
	if (flow_keep(uring, session) < 0 || session->conn.reason != CONN_OPEN)
		flow_end(uring, session);
	else if (!flow_hand_over(uring, session))
		flow_drain(uring, session);
}

static void flow_drain_again(struct uring *uring, struct session *session)
{
	if (session->watch.op == RING_NONE)
		flow_follow(uring, session, conn_want(&session->conn, uring->turn.limit));
}

static void flow_too_late(struct uring *uring, struct session *session)
{
	session_cut(session, uring->worker);
	flow_end(uring, session);
}

/* The order to stop has come. What a session owes and what its peer has sent is only certain
 * when no operation of it is in flight: so end them all first, losing nothing. */
static void halt(struct uring *uring)
{
	uring->halting = true;
	ring_cancel_all(&uring->ring);
}

/* All that is left to do for the sessions of a stopping worker. */
static void drain_turn(struct uring *uring)
{
	sessions_each(uring, worker_may_drain(uring->worker, uring->now) ? flow_drain_again : flow_too_late);
	turn_note_unsent(&uring->turn, &uring->sessions, uring->worker->slot, uring->now);
}

static void stop_begin(struct uring *uring)
{
	enum stats_stop order = worker_stop_order(uring->worker);

	uring->stopping = true;
	doors_unpark_all(uring);
	uring->halting = false;
	if (order == STOP_HAND_OVER)
		intake_pass_on(&uring->intake, UINT_MAX, true);
	sessions_each(uring, order == STOP_HAND_OVER ? flow_stop : flow_drain);
}

/* --- the loop -------------------------------------------------------------------------- */

static void dispatch(struct uring *uring, const struct ring_event *event)
{
	struct watch *watch = event->watch;

	switch ((enum watch_kind) watch->kind) {
	case WATCH_SESSION:
		flow_event(uring, event);
		break;
	case WATCH_LISTENER:
		doors_event(uring, event);
		break;
	case WATCH_INBOX:
		inbox_event(uring, event);
		break;
	case WATCH_ROOM:
		room_event(uring);
		break;
	case WATCH_STOP:
		uring->stop_seen = true;
		uring->worker->tally.work++;
		break;
	case WATCH_OTHER:
		break;
	}
}

/* Handle a completion, and count it if it led to nothing. A listener that the loop has just stopped watching may stay ready;
 * while all operations are being cancelled, nothing is done on purpose. */
static void handle(struct uring *uring, const struct ring_event *event)
{
	uint64_t before = uring->worker->tally.work;
	unsigned kind = event->watch->kind, interest = event->watch->interest;
	int fd = event->watch->fd;

	dispatch(uring, event);
	if (event->op != RING_POLL && event->result >= 0)
		uring->worker->tally.work++;
	if (uring->halting || (kind == WATCH_LISTENER && !uring->intake.open) ||
	    (kind == WATCH_INBOX && !uring->intake.inheriting) || event->result == -ECANCELED)
		return;
	worker_check_work(uring->worker, before, fd, interest);
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
		if (uring->sort_at < deadline)
			deadline = uring->sort_at;
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
			handle(uring, &event);
		else if (event.buffered)
			ring_buffer_give(&uring->ring, event.buffer);
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
	doors_unpark(uring);
	doors_follow(uring);
	if (uring->stopping)
		drain_turn(uring);
	else if (!uring->halting)
		sessions_expire(uring);
	stats_publish(uring->worker->slot, &uring->worker->tally);
	worker_beat(uring->worker, uring->now);
	return 0;
}

static int uring_open(struct uring *uring)
{
	struct worker *worker = uring->worker;
	int r;

	uring->now = clock_coarse_usec();
	list_init(&uring->sessions);
	uring->sort_at = INT64_MAX;
	list_init(&uring->ending);
	pool_init(&uring->pool, sizeof(struct session));
	intake_init(&uring->intake, worker);
	r = turn_open(&uring->turn, worker->conf->buffer_size, worker->pipes, &worker->tally);
	if (r == 0)
		r = ring_open(&uring->ring, worker->conf->buffer_size);
	if (r == 0)
		r = doors_make(uring);
	if (r == 0)
		r = watch_begin(uring, &uring->stop, worker->stop_fd, WATCH_STOP);
	if (r == 0 && worker->inbox_fd >= 0)
		r = watch_begin(uring, &uring->inbox, worker->inbox_fd, WATCH_INBOX);
	if (r < 0)
		return r;
	ring_poll(&uring->ring, &uring->stop, false);
	doors_follow(uring);
	return 0;
}

static void uring_close(struct uring *uring)
{
	intake_close(&uring->intake);
	ring_close(&uring->ring);
	turn_close(&uring->turn);
	pool_free(&uring->pool);
	doors_free(uring);
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
