#include <config.h>

#include "models/blocking/serve.h"

#include <errno.h>
#include <poll.h>

#include "base/clock.h"
#include "models/handover/handover.h"

/* How often a draining session is looked at: nothing tells when a peer has acknowledged. */
#define DRAIN_TICK (10 * USEC_PER_MSEC)

int serve_turn_open(struct turn *turn, struct worker *worker)
{
	return turn_open(turn, worker->conf->buffer_size, 1, &worker->tally);
}

/* Returns whether the session is gone. */
static bool hand_over(struct worker *worker, struct turn *turn, struct session *session)
{
	if (turn_empty_pipe(turn, session) < 0 || handover_send_wait(worker, session) < 0)
		return false;
	session_forget(session, worker);
	return true;
}

/* The request to stop has come. Returns whether the session is gone. */
static bool stop(struct worker *worker, struct turn *turn, struct session *session)
{
	if (worker_stop_order(worker) == STOP_HAND_OVER && hand_over(worker, turn, session))
		return true;
	turn_drain(session);
	return false;
}

/* A draining session is handed over instead of being ended: once it owes nothing, or at the end of the time for draining.
 * Returns whether it is gone. */
static bool hand_over_drained(struct worker *worker, struct turn *turn, struct session *session, int64_t now)
{
	turn->flush = worker_stop_order(worker) == STOP_FLUSH;
	return turn->flush && session->conn.reason == CONN_OPEN &&
	       (turn_flushed(turn, session) || !worker_may_drain(worker, now)) && hand_over(worker, turn, session);
}

static int64_t next_deadline(const struct worker *worker, const struct session *session, int64_t now)
{
	int64_t deadline;

	if (session->conn.draining)
		return now + DRAIN_TICK;
	deadline = session_idle_deadline(session, worker->conf, now);
	return worker->next_beat < deadline ? worker->next_beat : deadline;
}

/* Wait until the socket is ready for what `want` says, until the order to stop, or until
 * something is due. Returns the poll(2) events of the socket; `*stopping` tells of the order. */
static short wait_for(const struct worker *worker, const struct session *session, unsigned want, bool *stopping)
{
	int64_t now = clock_coarse_usec();
	struct pollfd fds[] = {
		{ .fd = session->watch.fd },
		{ .fd = worker->stop_fd, .events = POLLIN },
	};
	int n;

	fds[0].events = (short) ((want & CONN_RECV ? POLLIN : 0) | (want & CONN_SEND ? POLLOUT : 0));
	/* a draining session has heard the order already; one that lingers has a hang-up pending */
	n = poll(fds + (want & CONN_LINGER ? 1 : 0), want & CONN_LINGER ? 0 : session->conn.draining ? 1 : 2,
	         clock_poll_timeout(next_deadline(worker, session, now), now));
	if (n < 0)
		(void) clock_may_wait_again(errno);
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

void serve(struct worker *worker, struct turn *turn, const struct arrival *arrival)
{
	struct session session;
	bool stopping = false;
	unsigned want;

	session_open(&session, arrival);
	want = conn_want(&session.conn, turn->limit);
	while (!(want & CONN_CLOSE)) {
		short got = wait_for(worker, &session, want, &stopping);
		int64_t now = clock_coarse_usec();
		uint64_t before = worker->tally.work;
		unsigned waited = (want & CONN_RECV ? (unsigned) WATCH_READ : 0) | (want & CONN_SEND ? (unsigned) WATCH_WRITE : 0);

		if (stopping && !session.conn.draining && stop(worker, turn, &session))
			return;
		want = turn_step(turn, &session, got & (POLLIN | POLLHUP | POLLERR) || session.conn.draining, now);
		if (got && !stopping)
			worker_check_work(worker, before, session.watch.fd, waited);
		stats_publish(worker->slot, &worker->tally);
		worker_beat(worker, now);
		if (session.conn.draining && hand_over_drained(worker, turn, &session, now))
			return;
		if (want & CONN_LINGER)
			(void) turn_linger(turn, &session);
		if (session.conn.draining) {
			turn_unsent_add(turn, &session);
			turn_unsent_publish(turn, worker->slot, now);
		}
		expire(worker, &session, now);
		want = session.conn.reason != CONN_OPEN ? (unsigned) CONN_CLOSE : want;
	}
	turn_drop_pipe(turn, &session);
	session_close(&session, worker);
}
