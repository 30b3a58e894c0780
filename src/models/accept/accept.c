/* SPDX-License-Identifier: ISC */
#include <config.h>

#include "models/accept/accept.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "models/accept/accept_token.h"
#include "models/fault.h"
#include "models/handover/handover.h"
#include "net/sockopt.h"

/* Pause in accepting after descriptors or memory have run out. */
#define PAUSE_USEC (100 * USEC_PER_MSEC)

/* Interval at which a worker that waits for a slot also tries without an event, because the eventfd that
 * reports a free slot is shared with other processes, which may consume the event. */
#define SLOT_WAIT_USEC USEC_PER_SEC

/* Maximum number of connections taken from one listener, or from the queue, in one iteration: large where one
 * worker takes all connections, small where it shares them with other loops. Powers of two. */
#define BATCH_ALONE 256
#define BATCH_SHARED 4

/* An iteration accepts one connection from a listener at first, and twice as many after FULL_BATCHES full
 * batches: accept(2) makes the socket before it checks the backlog, so a failed call costs as much as a
 * successful one. */
#define FULL_BATCHES 4

/* Minimum interval between two log lines about the same kind of pause. */
#define LINE_INTERVAL (10 * USEC_PER_SEC)

/* Whether this loop may take connections for its process now. */
static bool is_holder(const struct worker *worker)
{
	return !worker->token || accept_token_held(worker->token, worker->index);
}

static void update(struct accept_state *accept)
{
	accept->inheriting = !accept->stopped && accept->scope != ACCEPT_NOTHING && !accept->paused &&
	                     is_holder(accept->worker);
	accept->open = accept->inheriting && accept->scope == ACCEPT_ANY && !accept->waiting;
}

static bool any_adopted(const struct worker *worker)
{
	bool any = false;

	for (size_t i = 0; i < worker->listener_count; i++)
		any |= worker->listeners[i].adopted;
	return any;
}

void accept_init(struct accept_state *accept, struct worker *worker)
{
	*accept = (struct accept_state) {
		.worker = worker,
		.retry_at = INT64_MAX,
		.slot_fd = admission_slot_fd(worker->admission.shared),
		.own = { .size = 1 },
		.prepare = any_adopted(worker),
		.batch_max = worker->token ? BATCH_SHARED : BATCH_ALONE,
	};
	accept->batch = worker->token ? accept_token_batch(worker->token) : &accept->own;
	update(accept);
}

void accept_close(struct accept_state *accept)
{
	if (accept->waiting)
		admission_wait_done(&accept->worker->admission);
	accept->waiting = false;
}

void accept_set_scope(struct accept_state *accept, enum accept_scope scope)
{
	accept->scope = scope;
	update(accept);
}

void accept_stop(struct accept_state *accept)
{
	accept->stopped = true;
	accept_close(accept);
	update(accept);
}

void accept_limit_reached(struct accept_state *accept)
{
	struct worker *worker = accept->worker;

	stats_add(worker->slot, STAT_LIMITED, 1);
	if (ratelimit_allow(&worker->log_limits->limit, clock_usec(), LINE_INTERVAL, 1))
		log_event(LOG_NOTICE, EVENT_LIMIT_REACHED,
		          "Reached max-connections, %u: new clients wait in the backlog until a connection "
		          "ends",
		          admission_limit(&worker->admission));
}

bool accept_take_slot(struct accept_state *accept)
{
	struct worker *worker = accept->worker;

	bool taken = admission_slot_acquire(&worker->admission);

	if (!taken) {
		/* a slot may have become free before admission_wait() */
		admission_wait(&worker->admission);
		taken = admission_slot_acquire(&worker->admission);
		if (taken)
			admission_wait_done(&worker->admission);
	}
	if (taken) {
		accept->limited = false;
		return true;
	}
	accept->waiting = true;
	accept->retry_at = clock_usec() + (int64_t) fault_number("ECHOD_FAULT_SLOT_WAIT", SLOT_WAIT_USEC);
	update(accept);
	if (!accept->limited)
		accept_limit_reached(accept);
	accept->limited = true;
	return false;
}

void accept_retry(struct accept_state *accept)
{
	if (accept->waiting) {
		admission_wait_done(&accept->worker->admission);
		accept->waiting = false;
	}
	accept->paused = false;
	accept->retry_at = INT64_MAX;
	update(accept);
}

void accept_error(struct accept_state *accept, int error)
{
	struct worker *worker = accept->worker;

	switch (error) {
	case EINTR:
	case ECONNABORTED:
	case EPROTO:
	case EPERM: /* a firewall rule */
	case ENOPROTOOPT:
	case EHOSTDOWN:
	case ENONET:
	case EHOSTUNREACH:
	case EOPNOTSUPP:
	case ENETDOWN:
	case ENETUNREACH:
	case ETIMEDOUT:
		return; /* an error of one connection, which is gone: accept(2), "Error handling" */
	}
	accept->paused = true;
	accept->retry_at = clock_usec() + PAUSE_USEC;
	update(accept);
	if (error == EINVAL)
		return; /* the supervisor has shut the listener down: the stop request follows */
	stats_add(worker->slot, STAT_EXHAUSTED, 1);
	if (ratelimit_allow(&worker->log_limits->exhausted, clock_usec(), LINE_INTERVAL, 1))
		log_event(LOG_WARNING, EVENT_EXHAUSTED,
		          "Cannot accept connections: %s; trying again every %d ms, clients wait in the "
		          "backlog",
		          strerror(error), PAUSE_USEC / USEC_PER_MSEC);
}

/* Whether the peer of an accepted connection may stay. Refuses, logs and closes the connection otherwise. */
static bool admit(struct accept_state *accept, const struct new_conn *new_conn)
{
	struct worker *worker = accept->worker;
	const struct peer *peer = &new_conn->peer;
	enum admission_verdict verdict = admission_admit(&worker->admission, peer);

	if (verdict == ADMISSION_SOURCE && accept->collect && accept->collect(accept, peer))
		verdict = admission_admit(&worker->admission, peer);
	if (verdict == ADMISSION_OK)
		return true;
	session_refused(worker, new_conn, verdict);
	close(new_conn->fd);
	admission_slot_release(&worker->admission);
	return false;
}

bool accept_admit(struct accept_state *accept, int fd, const struct addr *addr, struct new_conn *new_conn)
{
	struct worker *worker = accept->worker;

	accept->taken++;
	worker->local_stats.work++;
	peer_from_addr(&new_conn->peer, addr);
	new_conn_init(new_conn, fd);
	if (!new_conn_expect_header(new_conn, worker->conf) && !admit(accept, new_conn))
		return false;
	if (accept->prepare || new_conn->peer.family == AF_UNIX) {
		sockopt_prepare(fd);
		if (worker->conf->socket_buffer > 0)
			sockopt_set_buffers(fd, worker->conf->socket_buffer, -1);
		if (new_conn->peer.family != AF_UNIX)
			sockopt_set_keepalive(fd, worker->conf->tcp_keepalive);
	}
	if (!new_conn->conn.header)
		stats_add(worker->slot, STAT_ACCEPTED, 1);
	atomic_fetch_add_explicit(&worker->slot->live, 1, memory_order_relaxed);
	session_trace_accept(worker, new_conn);
	return true;
}

enum accept_result accept_one(struct accept_state *accept, size_t index, struct new_conn *new_conn)
{
	const struct listener *listener = &accept->worker->listeners[index];
	struct addr addr = { .len = sizeof addr.un };
	int fd;

	/* connections in the queue came first, and are counted for their source only when they are
	 * received */
	if (accept->open && admission_queue_pending(&accept->worker->admission) &&
	    accept_inherit(accept, new_conn) == ACCEPT_CONNECTION)
		return ACCEPT_CONNECTION;
	if (!accept->open || !accept_take_slot(accept))
		return ACCEPT_NONE;
	fd = accept4(listener->fd, &addr.sa, &addr.len, SOCK_NONBLOCK | SOCK_CLOEXEC);
	if (fd < 0) {
		int error = errno;

		admission_slot_release(&accept->worker->admission);
		if (error != EAGAIN && error != EWOULDBLOCK)
			accept_error(accept, error);
		return ACCEPT_NONE;
	}
	return accept_admit(accept, fd, &addr, new_conn) ? ACCEPT_CONNECTION : ACCEPT_REFUSED;
}

void accept_adapt(struct accept_state *accept, unsigned got)
{
	struct accept_batch *batch = accept->batch;

	if (got < batch->size) {
		batch->size = batch->size > 1 ? batch->size / 2 : 1;
		batch->full = 0;
	} else if (++batch->full == FULL_BATCHES) {
		batch->full = 0;
		if (batch->size < accept->batch_max)
			batch->size *= 2;
	}
}

enum accept_result accept_inherit(struct accept_state *accept, struct new_conn *new_conn)
{
	struct worker *worker = accept->worker;
	int r;

	/* where the queue is empty take no slot: to release it again would wake workers that wait for one,
	 * each of which would do the same */
	if (worker->inbox_fd < 0 || !accept->inheriting || handover_waiting(worker->inbox_fd) == 0)
		return ACCEPT_NONE;
	if (!admission_slot_acquire_capped(&worker->admission, worker->capacity)) {
		accept_error(accept, EMFILE);
		return ACCEPT_NONE;
	}
	r = handover_receive(worker->inbox_fd, worker, new_conn);
	if (r < 0)
		admission_slot_release(&worker->admission);
	if (r == -EAGAIN)
		return ACCEPT_NONE;
	accept->taken++;
	if (r < 0)
		return ACCEPT_REFUSED;
	if (new_conn->unadmitted && !new_conn->conn.header && !admit(accept, new_conn)) {
		conn_clear(&new_conn->conn);
		return ACCEPT_REFUSED;
	}
	atomic_fetch_add_explicit(&worker->slot->live, 1, memory_order_relaxed);
	/* one with conn.header set is counted as accepted once its peer is admitted */
	if (!new_conn->conn.header)
		stats_add(worker->slot, new_conn->unadmitted ? STAT_ACCEPTED : STAT_TAKEN_OVER, 1);
	if (new_conn->unadmitted)
		session_trace_accept(worker, new_conn);
	else
		session_trace_receive(worker, new_conn);
	return ACCEPT_CONNECTION;
}

bool accept_is_watched(const struct accept_state *accept, unsigned kind)
{
	return !(kind == WATCH_LISTENER && !accept->open) && !(kind == WATCH_INBOX && !accept->inheriting);
}

void accept_iteration_end(struct accept_state *accept)
{
	struct worker *worker = accept->worker;

	if (accept->taken > 0 && worker->token && is_holder(worker))
		accept_token_pass(worker->token, worker->index);
	accept->taken = 0;
	update(accept);
}
