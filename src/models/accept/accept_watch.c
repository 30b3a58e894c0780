/* SPDX-License-Identifier: ISC */
#include <config.h>

#include "models/accept/accept_watch.h"

#include <errno.h>
#include <stdlib.h>

#include "models/accept/accept_token.h"

static int watch_add(struct accept_watch *self, struct watch *watch, int fd, enum watch_kind kind)
{
	bool is_shared = kind == WATCH_LISTENER || kind == WATCH_INBOX;
	int r;

	*watch = (struct watch) { .fd = fd, .kind = (uint8_t) kind, .interest = WATCH_READ };
	r = self->ops->add(self->poller, watch, is_shared ? self->wake : POLLER_WAKE_ALL);
	if (r == -EEXIST)
		r = 0; /* an earlier removal has failed */
	if (r < 0)
		watch->fd = -1;
	return r;
}

/* Start or stop to watch `fd`, according to `want`. */
static int watch_set(struct accept_watch *self, struct watch *watch, int fd, enum watch_kind kind, bool want)
{
	if (want == (watch->fd >= 0))
		return 0;
	if (want)
		return watch_add(self, watch, fd, kind);
	self->ops->remove(self->poller, watch, POLLER_STAYS_OPEN);
	watch->fd = -1;
	return 0;
}

static int listeners_set(struct accept_watch *self, bool want)
{
	const struct worker *worker = self->accept->worker;
	int r = 0;

	for (size_t i = 0; i < worker->listener_count && r == 0; i++)
		if (worker->listeners[i].kind == LISTENER_STREAM)
			r = watch_set(self, &self->listeners[i], worker->listeners[i].fd, WATCH_LISTENER,
			              want);
	self->listening = want && r == 0;
	if (r < 0)
		(void) listeners_set(self, false);
	return r;
}

static int update(struct accept_watch *self, bool listening, bool inheriting)
{
	const struct accept_state *accept = self->accept;
	int inbox = accept->worker->inbox_fd;
	int r = watch_set(self, &self->inbox, inbox, WATCH_INBOX, inheriting && inbox >= 0);

	if (r == 0)
		r = watch_set(self, &self->slot, accept->slot_fd, WATCH_SLOT, accept->waiting);
	if (r == 0 && listening != self->listening)
		r = listeners_set(self, listening);
	return r;
}

void accept_watch_update(struct accept_watch *self)
{
	if (update(self, self->accept->open, self->accept->inheriting) < 0) {
		accept_error(self->accept, ENOMEM);
		(void) update(self, false, false);
	}
}

void accept_watch_rearm(struct accept_watch *self)
{
	(void) update(self, false, false);
	accept_watch_update(self);
}

int accept_watch_open(struct accept_watch *self, struct accept_state *accept, const struct poller_ops *ops,
                      struct poller *poller, enum poller_wake wake)
{
	struct worker *worker = accept->worker;

	*self = (struct accept_watch) {
		.accept = accept, .ops = ops, .poller = poller, .wake = wake,
		.inbox = { .fd = -1 }, .slot = { .fd = -1 }, .token = { .fd = -1 },
	};
	self->listeners = calloc(worker->listener_count + 1, sizeof *self->listeners);
	if (!self->listeners)
		return -ENOMEM;
	for (size_t i = 0; i < worker->listener_count; i++)
		self->listeners[i].fd = -1;
	if (worker->token) {
		int r = watch_add(self, &self->token, accept_token_fd(worker->token, worker->index),
		                  WATCH_TOKEN);

		if (r < 0)
			return r;
	}
	return update(self, accept->open, accept->inheriting);
}

void accept_watch_close(struct accept_watch *self)
{
	free(self->listeners);
}

size_t accept_watch_index(const struct accept_watch *self, const struct watch *listener)
{
	return (size_t) (listener - self->listeners);
}
