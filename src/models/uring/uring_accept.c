/* SPDX-License-Identifier: ISC */
/* uring_accept.c - take connections in the io_uring body */
#include <config.h>

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "models/accept/accept_token.h"
#include "models/fault.h"
#include "models/uring/uring.h"

/* Maximum number of deferred connections admitted in one iteration. */
#define ADMIT_MAX 64

/* --- accepted by a completion ---------------------------------------------------------- */

/* Get the peer's address as accept(2) does: also of a connection that was reset meanwhile, for which
 * getpeername(2) fails. SO_PEERNAME then has it, but only for the exact size of the address. */
static void peer_address(int fd, struct addr *addr)
{
	const socklen_t sizes[] = { sizeof addr->in6, sizeof addr->in };

	addr->len = sizeof addr->un;
	if (getpeername(fd, &addr->sa, &addr->len) == 0)
		return;
	for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
		addr->len = sizes[i];
		if (getsockopt(fd, SOL_SOCKET, SO_PEERNAME, &addr->sa, &addr->len) == 0)
			return;
	}
	addr->len = 0;
}

/* Serve a connection for which a slot was taken. */
static void admit(struct uring *uring, int fd)
{
	struct addr addr = { .len = 0 };
	struct new_conn new_conn;

	peer_address(fd, &addr);
	if (accept_admit(&uring->body.accept, fd, &addr, &new_conn))
		body_begin(&uring->body, &new_conn);
}

/* Keep an accepted connection until a slot is free. Returns false where there is no memory. */
static bool defer(struct uring *uring, int fd)
{
	if (uring->deferred_count == uring->deferred_size) {
		size_t size = uring->deferred_size * 2 + 16;
		int *deferred = realloc(uring->deferred, size * sizeof *deferred);

		if (!deferred)
			return false;
		uring->deferred = deferred;
		uring->deferred_size = size;
	}
	uring->deferred[uring->deferred_count++] = fd;
	return true;
}

void uring_admit_deferred(struct uring *uring)
{
	struct accept_state *accept = &uring->body.accept;
	size_t n = 0;

	while (n < uring->deferred_count) {
		if (uring->body.stopping)
			admission_slot_force(&uring->body.worker->admission);
		else if (n == ADMIT_MAX || accept->waiting || !accept_take_slot(accept))
			break;
		admit(uring, uring->deferred[n++]);
	}
	if (n == 0)
		return;
	uring->deferred_count -= n;
	memmove(uring->deferred, uring->deferred + n, uring->deferred_count * sizeof *uring->deferred);
}

static void accepted(struct uring *uring, int result)
{
	struct accept_state *accept = &uring->body.accept;

	if (result == -ECANCELED)
		return;
	if (result < 0) {
		accept_error(accept, -result);
		return;
	}
	if (uring->deferred_count == 0 && !accept->waiting && accept_take_slot(accept)) {
		admit(uring, result);
	} else if (!defer(uring, result)) {
		close(result);
		accept_error(accept, ENOMEM);
	}
}

/* --- listeners ------------------------------------------------------------------------- */

/* Whether a multishot accept, which has no limit, can be used: twice the backlogs of the listeners must fit
 * into the free slots, and there must be no other loop in the process, with which connections are shared. */
static bool may_multishot(const struct uring *uring)
{
	const struct worker *worker = uring->body.worker;
	uint64_t spare = fault_number("ECHOD_FAULT_URING_SPARE",
	                              2 * (uint64_t) worker->conf->backlog * worker->listener_count);

	return worker->workers == 1 &&
	       admission_slots_taken(worker->admission.shared) + spare < admission_limit(&worker->admission);
}

static void listener_arm(struct uring *uring, struct uring_listener *listener)
{
	listener->armed = true;
	listener->multishot = may_multishot(uring);
	if (listener->multishot)
		ring_accept(&uring->ring, &listener->watch);
	else
		ring_poll(&uring->ring, &listener->watch);
}

static void listener_cancel(struct uring *uring, struct uring_listener *listener)
{
	if (!listener->cancelling)
		ring_cancel(&uring->ring, &listener->watch, RING_ACCEPT);
	listener->cancelling = true;
}

void uring_listener_event(struct uring *uring, const struct ring_event *event)
{
	struct uring_listener *listener = LIST_ENTRY(event->watch, struct uring_listener, watch);

	if (event->last)
		listener->armed = listener->cancelling = false;
	if (event->op == RING_ACCEPT)
		accepted(uring, event->result);
	else if (event->result != -ECANCELED && uring->body.accept.open)
		body_accept(&uring->body, (size_t) (listener - uring->listeners));
}

void uring_inbox_event(struct uring *uring, const struct ring_event *event)
{
	uring->inbox_armed = false;
	if (event->result != -ECANCELED)
		body_inherit(&uring->body);
}

void uring_slot_event(struct uring *uring)
{
	uring->slot_armed = false;
	if (uring->body.accept.waiting)
		accept_retry(&uring->body.accept);
	uring->body.worker->local_stats.work++;
}

void uring_token_event(struct uring *uring)
{
	const struct worker *worker = uring->body.worker;

	accept_token_clear(worker->token, worker->index);
	uring->body.worker->local_stats.work++;
	if (!uring->body.accept.stopped)
		ring_poll(&uring->ring, &uring->token);
}

/* Accept from all listeners. A multishot accept waits exclusively, as pools do (acceptor.h): the kernel may
 * have woken another worker for a connection which that worker has not accepted. */
void uring_wakeup_event(struct uring *uring)
{
	struct body *body = &uring->body;
	struct worker *worker = body->worker;
	unsigned before = body->accept.taken;
	uint64_t count;

	worker->local_stats.work++;
	if (body->accept.stopped)
		return; /* the event is for a worker that accepts */
	if (read(uring->wakeup.fd, &count, sizeof count) == sizeof count && body->accept.open) {
		for (size_t i = 0; i < worker->listener_count; i++)
			if (worker->listeners[i].kind == LISTENER_STREAM)
				body_accept(body, i);
		if (body->accept.taken > before)
			worker_wake_other(worker); /* more connections may be left */
	}
	ring_poll(&uring->ring, &uring->wakeup);
}

void uring_arm(struct uring *uring, const struct watch *watch, bool *armed)
{
	if (!*armed)
		ring_poll(&uring->ring, watch);
	*armed = true;
}

void uring_accept_update(struct uring *uring)
{
	const struct accept_state *accept = &uring->body.accept;
	const struct worker *worker = uring->body.worker;

	if (accept->inheriting && worker->inbox_fd >= 0)
		uring_arm(uring, &uring->inbox, &uring->inbox_armed);
	if (accept->waiting && !accept->stopped)
		uring_arm(uring, &uring->slot, &uring->slot_armed);
	for (size_t i = 0; i < worker->listener_count; i++) {
		struct uring_listener *listener = &uring->listeners[i];

		if (worker->listeners[i].kind != LISTENER_STREAM)
			continue;
		if (accept->open && !listener->armed)
			listener_arm(uring, listener);
		else if (listener->armed && listener->multishot && !(accept->open && may_multishot(uring)))
			listener_cancel(uring, listener);
	}
}

int uring_register(struct uring *uring, struct watch *watch, int fd, enum watch_kind kind)
{
	*watch = (struct watch) { .fd = fd, .kind = (uint8_t) kind, .interest = WATCH_READ };
	return ring_register(&uring->ring, watch);
}

static int register_polled(struct uring *uring, struct watch *watch, int fd, enum watch_kind kind)
{
	int r = uring_register(uring, watch, fd, kind);

	if (r == 0)
		ring_poll(&uring->ring, watch);
	return r;
}

int uring_accept_open(struct uring *uring)
{
	const struct worker *worker = uring->body.worker;
	int r = 0;

	uring->listeners = calloc(worker->listener_count + 1, sizeof *uring->listeners);
	if (!uring->listeners)
		return -ENOMEM;
	for (size_t i = 0; r == 0 && i < worker->listener_count; i++)
		if (worker->listeners[i].kind == LISTENER_STREAM)
			r = uring_register(uring, &uring->listeners[i].watch, worker->listeners[i].fd,
			                   WATCH_LISTENER);
	if (r == 0)
		r = uring_register(uring, &uring->inbox, worker->inbox_fd, WATCH_INBOX);
	if (r == 0)
		r = uring_register(uring, &uring->slot, uring->body.accept.slot_fd, WATCH_SLOT);
	if (r == 0 && worker->token)
		r = register_polled(uring, &uring->token, accept_token_fd(worker->token, worker->index),
		                    WATCH_TOKEN);
	else if (r == 0)
		r = register_polled(uring, &uring->wakeup, worker->wakeup_fd, WATCH_WAKEUP);
	return r;
}

void uring_accept_close(struct uring *uring)
{
	free(uring->deferred);
	free(uring->listeners);
}
