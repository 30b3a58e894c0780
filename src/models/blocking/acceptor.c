/* SPDX-License-Identifier: ISC */
#include <config.h>

#include "models/blocking/acceptor.h"

#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/clock.h"
#include "models/model.h"

#define EVENTS_MAX 16

static int watch_begin(struct acceptor *acceptor, struct watch *watch, int fd, enum watch_kind kind,
                       enum poller_wake wake)
{
	*watch = (struct watch) { .fd = fd, .kind = (uint8_t) kind, .interest = WATCH_READ };
	return poller_epoll.add(acceptor->poller, watch, wake);
}

int acceptor_open(struct acceptor *acceptor, struct worker *worker, int other)
{
	int r;

	*acceptor = (struct acceptor) { .poller = NULL };
	accept_init(&acceptor->accept, worker);
	r = poller_epoll.open(&acceptor->poller, worker->listener_count + 5);
	if (r < 0)
		return r;
	r = watch_begin(acceptor, &acceptor->stop, worker->stop_fd, WATCH_STOP, POLLER_WAKE_ALL);
	if (r == 0)
		r = watch_begin(acceptor, &acceptor->wakeup, worker->wakeup_fd, WATCH_WAKEUP,
		                POLLER_WAKE_ONE);
	if (r == 0 && other >= 0)
		r = watch_begin(acceptor, &acceptor->other, other, WATCH_OTHER, POLLER_WAKE_ALL);
	if (r < 0)
		return r;
	return accept_watch_open(&acceptor->watched, &acceptor->accept, &poller_epoll, acceptor->poller,
	                         POLLER_WAKE_ONE);
}

void acceptor_close(struct acceptor *acceptor)
{
	accept_close(&acceptor->accept);
	poller_epoll.close(acceptor->poller);
	accept_watch_close(&acceptor->watched);
	/* this worker may have been the only one that was woken for a connection */
	if (acceptor->stopping)
		worker_wake_other(acceptor->accept.worker);
}

void acceptor_close_forked(struct acceptor *acceptor)
{
	poller_epoll_close_forked(acceptor->poller);
}

void acceptor_set_scope(struct acceptor *acceptor, enum accept_scope scope)
{
	accept_set_scope(&acceptor->accept, scope);
	accept_watch_update(&acceptor->watched);
}

/* Whether other workers of the same crew wait for the same connections. */
static bool is_one_of_many(const struct worker *worker)
{
	return worker->workers > 1 && worker->model->crew != MODEL_SPAWN;
}

/* Take one connection, from the queue first, because its client came first. */
static int take(struct acceptor *acceptor, const struct watch_event *events, int n, struct new_conn *new_conn)
{
	enum accept_result got = ACCEPT_NONE;
	struct worker *worker = acceptor->accept.worker;
	uint64_t before = worker->local_stats.work;
	bool more = acceptor->woken;

	for (int i = 0; i < n && got == ACCEPT_NONE; i++)
		if (events[i].watch->kind == WATCH_INBOX)
			got = accept_inherit(&acceptor->accept, new_conn);
	for (int i = 0; i < n; i++) {
		if (events[i].watch->kind != WATCH_LISTENER)
			continue;
		if (got == ACCEPT_NONE)
			got = accept_one(&acceptor->accept,
			                 accept_watch_index(&acceptor->watched, events[i].watch), new_conn);
		else
			more = true;
	}
	for (int i = 0; i < n; i++)
		if ((events[i].watch->kind == WATCH_LISTENER || events[i].watch->kind == WATCH_INBOX) &&
		    accept_is_watched(&acceptor->accept, events[i].watch->kind))
			worker_check_work(worker, before, events[i].watch->fd, WATCH_READ);
	acceptor->woken &= got != ACCEPT_NONE;
	/* this worker now serves one client: another worker must check the other ready descriptors */
	if (got == ACCEPT_CONNECTION && more && is_one_of_many(worker))
		worker_wake_other(worker);
	if (got == ACCEPT_CONNECTION)
		acceptor->woken = false;
	return got == ACCEPT_CONNECTION;
}

/* Returns whether listeners and queue must be watched again from the start. */
static bool dispatch(struct acceptor *acceptor, const struct watch_event *events, int n)
{
	bool rearm = false;
	uint64_t count;

	acceptor->other_ready = false;
	for (int i = 0; i < n; i++) {
		acceptor->other_ready |= events[i].watch->kind == WATCH_OTHER;
		if (events[i].watch->kind == WATCH_STOP) {
			acceptor->stopping = true;
			worker_trace_stop(acceptor->accept.worker);
		}
		if (events[i].watch->kind == WATCH_SLOT)
			accept_retry(&acceptor->accept);
		if (events[i].watch->kind == WATCH_WAKEUP)
			rearm |= read(acceptor->wakeup.fd, &count, sizeof count) == sizeof count;
	}
	return rearm;
}

int acceptor_wait(struct acceptor *acceptor, struct new_conn *new_conn)
{
	struct worker *worker = acceptor->accept.worker;
	int64_t now = clock_coarse_usec(),
		deadline = clock_earlier(worker->next_heartbeat, acceptor->accept.retry_at);
	struct watch_event events[EVENTS_MAX];
	bool rearm;
	int n, got = 0;

	n = poller_epoll.wait(acceptor->poller, events, EVENTS_MAX,
	                      acceptor->woken ? 0 : clock_poll_timeout(deadline, now));
	now = clock_coarse_usec();
	worker_heartbeat(worker, now);
	rearm = dispatch(acceptor, events, n);
	if (now >= acceptor->accept.retry_at)
		accept_retry(&acceptor->accept);
	if (!acceptor->stopping)
		got = take(acceptor, events, n, new_conn);
	accept_iteration_end(&acceptor->accept);
	if (rearm && !got) {
		accept_watch_rearm(&acceptor->watched);
		acceptor->woken = true;
	} else if (rearm) {
		worker_wake_other(worker);
	}
	accept_watch_update(&acceptor->watched);
	return n < 0 ? n : got;
}
