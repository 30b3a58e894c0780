/* SPDX-License-Identifier: ISC */
/* uring.c - the body of io_uring: a loop over completions */
#include <config.h>

#include "models/uring/uring.h"

#include <errno.h>
#include <stdlib.h>

#include "base/clock.h"
#include "base/log.h"
#include "models/model.h"

#ifdef ECHOD_FAULTS
static void fault_try_forbidden_operations(struct ring *ring)
{
	if (getenv("ECHOD_FAULT_URING_FORBIDDEN"))
		ring_try_forbidden(ring);
}
#else
#define fault_try_forbidden_operations(ring) ((void) (ring))
#endif

/* Maximum number of completions handled in one iteration. */
#define EVENTS_MAX 1024

/* --- stop ------------------------------------------------------------------------------ */

/* At the end of a drain an operation may be in flight: then no other one is started, and this is tried
 * again. */
static bool session_is_quiet(struct body *body, const struct session *session)
{
	struct uring *uring = uring_of(body);

	if (ring_state(&uring->ring, &session->watch)->op == RING_NONE)
		return true;
	if (!uring->quiescing)
		ring_cancel_all(&uring->ring);
	uring->quiescing = true;
	return false;
}

static void session_stop(struct body *body, struct session *session, bool hand_over)
{
	struct uring *uring = uring_of(body);

	/* a FIN received behind queued data may be the end of the session */
	if (uring_session_own_data(uring, session) < 0 || session->conn.reason != CONN_OPEN) {
		uring_session_end(body, session);
		return;
	}
	if (hand_over && body_hand_over(body, session) == 0)
		return;
	body_drain_begin(body, session);
	uring_session_serve(uring, session, true);
}

static void session_drain(struct body *body, struct session *session)
{
	if (ring_state(&uring_of(body)->ring, &session->watch)->op == RING_NONE)
		uring_session_update(uring_of(body), session, conn_want(&session->conn, body->io.limit));
}

static const struct body_ops uring_body_ops = {
	.start = uring_session_start,
	.end = uring_session_end,
	.stop = session_stop,
	.is_quiet = session_is_quiet,
	.detach = uring_session_detach,
	.drain = session_drain,
};

/* After a stop request: end all operations without losing data, because the bytes that a session owes, and
 * those in its socket, are only certain while no operation of it is in flight. */
static void quiesce(struct uring *uring)
{
	uring->quiescing = true;
	accept_stop(&uring->body.accept);
	ring_cancel_all(&uring->ring);
}

static void stop_begin(struct uring *uring)
{
	body_stop(&uring->body);
	uring_admit_deferred(uring);
	uring->quiescing = false;
	/* a multishot accept may have consumed a wake-up for a connection after it was cancelled */
	worker_wake_other(uring->body.worker);
}

/* --- the loop -------------------------------------------------------------------------- */

static void dispatch(struct uring *uring, const struct ring_event *event)
{
	switch ((enum watch_kind) event->watch->kind) {
	case WATCH_SESSION:
		uring_session_event(uring, event);
		break;
	case WATCH_LISTENER:
		uring_listener_event(uring, event);
		break;
	case WATCH_INBOX:
		uring_inbox_event(uring, event);
		break;
	case WATCH_SLOT:
		uring_slot_event(uring);
		break;
	case WATCH_TOKEN:
		uring_token_event(uring);
		break;
	case WATCH_STOP:
		uring->body.stop_seen = true;
		worker_trace_stop(uring->body.worker);
		uring->body.worker->local_stats.work++;
		break;
	case WATCH_WAKEUP:
		uring_wakeup_event(uring);
		break;
	case WATCH_OTHER:
		uring_writable_event(uring);
		break;
	}
}

/* Handle a completion, and count it as an idle wake-up if nothing was done. A descriptor from which accepting
 * was just stopped may stay ready; while operations are being cancelled, nothing is started. */
static void handle(struct uring *uring, const struct ring_event *event)
{
	struct worker *worker = uring->body.worker;
	uint64_t before = worker->local_stats.work;
	unsigned kind = event->watch->kind, interest = event->watch->interest;
	int fd = event->watch->fd;

	dispatch(uring, event);
	if (event->op != RING_POLL && event->result >= 0)
		worker->local_stats.work++;
	if (!uring->quiescing && event->result != -ECANCELED && accept_is_watched(&uring->body.accept, kind))
		worker_check_work(worker, before, fd, interest);
}

/* Returns the number of completions handled. */
static size_t reap_completions(struct uring *uring)
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

static int uring_iterate(struct uring *uring)
{
	struct body *body = &uring->body;
	int r = ring_wait(&uring->ring, clock_poll_timeout(body_deadline(body), body->now));
	size_t n;

	if (r < 0)
		return r;
	body->now = clock_coarse_usec();
	n = reap_completions(uring);
	if (body->stop_seen && !body->stopping) {
		if (uring->ring.in_flight == 0 && uring->quiescing)
			stop_begin(uring);
		else if (!uring->quiescing || n == 0)
			quiesce(uring);
	}
	body_iteration_end(body);
	uring_admit_deferred(uring);
	uring_accept_update(uring);
	return 0;
}

int uring_prepare(struct worker *worker)
{
	struct uring *uring = calloc(1, sizeof *uring);
	int r;

	if (!uring)
		return -ENOMEM;
	r = ring_open(&uring->ring, worker->conf->buffer_size);
	if (r == -ENOMEM)
		log_event(LOG_ERR, EVENT_WORKER_FAILED,
		          "Cannot create the ring of worker %u: it exceeds the limit of locked memory; raise "
		          "LimitMEMLOCK= (ulimit -l), or set workers lower",
		          worker->index);
	if (r == 0)
		r = uring_writable_open(uring);
	if (r < 0) {
		ring_close(&uring->ring);
		free(uring);
		return r;
	}
	worker->prepared = uring;
	return 0;
}

static int uring_open(struct uring *uring, struct worker *worker)
{
	int r;

	list_init(&uring->ending);
	r = body_open(&uring->body, worker, &uring_body_ops);
	if (r == 0)
		r = ring_enable(&uring->ring);
	if (r == 0)
		fault_try_forbidden_operations(&uring->ring);
	if (r == 0)
		r = uring_accept_open(uring);
	if (r == 0)
		r = uring_writable_register(uring);
	if (r == 0)
		r = uring_register(uring, &uring->stop, worker->stop_fd, WATCH_STOP);
	if (r < 0)
		return r;
	ring_poll(&uring->ring, &uring->stop);
	uring_accept_update(uring);
	return 0;
}

int uring_run(struct worker *worker)
{
	struct uring *uring = worker->prepared;
	int r = uring_open(uring, worker);

	if (r == 0) {
		worker_ready(worker);
		while (r == 0 &&
		       !(body_done(&uring->body) && uring->deferred_count == 0 && list_empty(&uring->ending)))
			r = uring_iterate(uring);
	}
	ring_close(&uring->ring);
	uring_accept_close(uring);
	body_close(&uring->body);
	uring_writable_close(uring);
	free(uring);
	return r;
}
