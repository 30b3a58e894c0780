/* SPDX-License-Identifier: ISC */
#include <config.h>

#include "models/blocking/serve.h"

#include <errno.h>
#include <poll.h>

#include "base/clock.h"
#include "models/handover/handover.h"

/* Interval between two checks of a draining session, because no event reports that a peer has
 * acknowledged. */
#define DRAIN_TICK (10 * USEC_PER_MSEC)

/* Maximum time to wait for space in the queue for a session that its parent must admit. The parent makes
 * space (spawn.c), so the wait is short unless a process does not respond. */
#define HAND_BACK_WAIT (10 * USEC_PER_SEC)

/* Interval between two attempts: the queue becomes writable only when most of it is free (unix(7)), and no
 * event reports that descriptors in flight were received. */
#define HAND_BACK_TICK (20 * USEC_PER_MSEC)

int serve_io_open(struct session_io *io, struct worker *worker)
{
	int r = session_io_open(io, worker->conf->buffer_size, 1, &worker->local_stats);

	io->worker = worker;
	return r;
}

/* Hand the session over. Returns false where that is not possible now. */
static bool hand_over(struct worker *worker, struct session_io *io, struct session *session)
{
	if (handover_send(worker, io, session) < 0)
		return false;
	session_forget(session, worker);
	return true;
}

/* The header of the session was received: hand it over to the parent process, which admits its peer. While
 * the queue is full, the session waits, and the caller tries again after HAND_BACK_TICK. Returns false where
 * the session was not handed over; it has ended if it cannot be at all. `*until`: clock_usec() at which to
 * give up, set at the first attempt; INT64_MAX before. */
static bool hand_back(struct worker *worker, struct session *session, int64_t now, int64_t *until)
{
	struct new_conn new_conn;
	int r;

	new_conn_from_session(&new_conn, session);
	r = handover_pass(worker->outbox_fd, &new_conn);
	if (r == 0) {
		stats_publish(worker->slot, &worker->local_stats);
		session_forget(session, worker);
		return true;
	}
	if (*until == INT64_MAX)
		*until = now + HAND_BACK_WAIT;
	if ((r != -EAGAIN && r != -ETOOMANYREFS) || now >= *until)
		conn_error(&session->conn, -r);
	atomic_store(&worker->slot->blocked, 1);
	worker_wake_other(worker);
	return false;
}

/* Act on a stop request: hand the session over or drain it. Returns whether it was handed over. */
static bool stop(struct worker *worker, struct session_io *io, struct session *session)
{
	worker_trace_stop(worker);
	if (worker_stop_requested(worker) == STOP_HAND_OVER && hand_over(worker, io, session))
		return true;
	/* its parent stops as well */
	if (session->readmit)
		session_admit(session, worker);
	session_io_drain(session);
	return false;
}

/* Hand a draining session over instead of closing it, when it owes nothing or the time for draining is over.
 * Returns whether it was handed over. */
static bool hand_over_drained(struct worker *worker, struct session_io *io, struct session *session,
                              int64_t now)
{
	io->flush = worker_stop_requested(worker) == STOP_FLUSH;
	return io->flush && session->conn.reason == CONN_OPEN &&
	       (session_io_flushed(io, session) || !worker_may_drain(worker, now)) &&
	       hand_over(worker, io, session);
}

static int64_t next_deadline(const struct worker *worker, const struct session *session, int64_t now)
{
	int64_t deadline;

	if (session->conn.draining)
		return now + DRAIN_TICK;
	if (session->readmit)
		return now + HAND_BACK_TICK;
	deadline = session_idle_deadline(session, worker->conf, now);
	return worker->next_heartbeat < deadline ? worker->next_heartbeat : deadline;
}

/* Wait until the socket is ready for `want`, the worker must stop, or a deadline. Returns the poll(2) events
 * of the socket, and sets `*stopping`.
 *
 * A blocking recv(2) would make this call unnecessary, but cannot wait for the stop pipe as well: it would
 * have to end by SO_RCVTIMEO to look there, which delays a stop and wakes an idle connection once more. An
 * echo is not measurably cheaper that way, as the context switch costs much more than the call. */
static short wait_for(const struct worker *worker, const struct session *session, unsigned want,
                      bool *stopping)
{
	int64_t now = clock_coarse_usec();
	struct pollfd fds[] = {
		{ .fd = session->watch.fd },
		{ .fd = worker->stop_fd, .events = POLLIN },
	};
	nfds_t count = 2;
	int n;

	fds[0].events = (short) ((want & CONN_RECV ? POLLIN : 0) | (want & CONN_SEND ? POLLOUT : 0));
	if (want & CONN_LINGER)
		count = 0; /* a hang-up would always be ready */
	else if (session->conn.draining)
		count = 1; /* the stop request was seen already */
	if (session->readmit)
		fds[0].fd = -1; /* nothing is received before it was handed over */
	n = poll(fds, count, clock_poll_timeout(next_deadline(worker, session, now), now));
	if (n < 0)
		(void) clock_poll_retry(errno);
	if (n <= 0)
		return 0;
	*stopping = fds[1].revents != 0;
	return fds[0].revents;
}

static void expire(const struct worker *worker, struct session *session, int64_t now)
{
	if (session->conn.reason != CONN_OPEN)
		return;
	if (session->conn.draining) {
		if (!worker_may_drain(worker, now))
			session_cut(session, worker);
	} else if (now >= session_idle_deadline(session, worker->conf, now)) {
		conn_end(&session->conn, CONN_IDLE);
	}
}

bool serve(struct worker *worker, struct session_io *io, const struct new_conn *new_conn)
{
	struct session session;
	int64_t back_until = INT64_MAX;
	bool stopping = false;
	unsigned want;

	session_open(&session, new_conn);
	want = conn_want(&session.conn, io->limit);
	while (!(want & CONN_CLOSE)) {
		short got = wait_for(worker, &session, want, &stopping);
		int64_t now = clock_coarse_usec();
		uint64_t before = worker->local_stats.work;
		unsigned waited = (want & CONN_RECV ? (unsigned) WATCH_READ : 0) |
		                  (want & CONN_SEND ? (unsigned) WATCH_WRITE : 0);

		if (stopping && !session.conn.draining && stop(worker, io, &session))
			return true;
		want = session_io_step(io, &session,
		                       got & (POLLIN | POLLHUP | POLLERR) || session.conn.draining, now);
		if (session.readmit && hand_back(worker, &session, now, &back_until))
			return true;
		if (got && !stopping)
			worker_check_work(worker, before, session.watch.fd, waited);
		stats_publish(worker->slot, &worker->local_stats);
		worker_heartbeat(worker, now);
		if (session.conn.draining && hand_over_drained(worker, io, &session, now))
			return true;
		if (want & CONN_LINGER)
			(void) session_io_linger(io, &session);
		if (session.conn.draining) {
			session_io_unsent_add(io, &session);
			session_io_unsent_publish(io, worker->slot, now);
		}
		expire(worker, &session, now);
		want = session.conn.reason != CONN_OPEN ? (unsigned) CONN_CLOSE : want;
	}
	session_io_drop_pipe(io, &session);
	session_close(&session, worker);
	return false;
}
