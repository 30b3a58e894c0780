/* SPDX-License-Identifier: ISC */
#include <config.h>

#include <errno.h>
#include <poll.h>
#include <stdlib.h>

#include "base/clock.h"
#include "models/poller.h"

/* Two parallel arrays without gaps, because poll(2) walks all of them at each call. They grow as needed. */
struct poller {
	struct pollfd *fds;
	struct watch **watches;
	size_t count, size;
	size_t next; /* index at which the last wait() stopped reporting */
	int left;    /* number of ready entries not reported yet */
};

static void poller_poll_close(struct poller *self)
{
	if (!self)
		return;
	free(self->fds);
	free((void *) self->watches);
	free(self);
}

static int poller_poll_open(struct poller **poller, size_t max_watches)
{
	(void) max_watches; /* only a hint */
	*poller = calloc(1, sizeof **poller);
	return *poller ? 0 : -ENOMEM;
}

static int grow(struct poller *self)
{
	size_t size = self->size > 0 ? 2 * self->size : 64;
	struct pollfd *fds = realloc(self->fds, size * sizeof *fds);
	struct watch **watches;

	if (!fds)
		return -ENOMEM;
	self->fds = fds;
	watches = realloc((void *) self->watches, size * sizeof(struct watch *));
	if (!watches)
		return -ENOMEM;
	self->watches = watches;
	self->size = size;
	return 0;
}

static int poller_poll_change(struct poller *self, struct watch *watch)
{
	self->fds[watch->slot].events = (short) ((watch->interest & WATCH_READ ? POLLIN : 0) |
	                                         (watch->interest & WATCH_WRITE ? POLLOUT : 0));
	return 0;
}

static int poller_poll_add(struct poller *self, struct watch *watch, enum poller_wake wake)
{
	(void) wake;
	if (self->count == self->size && grow(self) < 0)
		return -ENOMEM;
	watch->slot = (uint32_t) self->count++;
	self->watches[watch->slot] = watch;
	self->fds[watch->slot] = (struct pollfd) { .fd = watch->fd };
	return poller_poll_change(self, watch);
}

static void poller_poll_remove(struct poller *self, struct watch *watch, enum poller_removal removal)
{
	size_t last = --self->count, slot = watch->slot;

	(void) removal;
	self->fds[slot] = self->fds[last];
	self->watches[slot] = self->watches[last];
	self->watches[slot]->slot = (uint32_t) slot;
}

static int report(struct poller *self, struct watch_event *events, int max_events)
{
	int n = 0;

	for (; self->left > 0 && self->next < self->count && n < max_events; self->next++) {
		short got = self->fds[self->next].revents;

		if (got == 0)
			continue;
		self->left--;
		self->fds[self->next].revents = 0;
		events[n].watch = self->watches[self->next];
		events[n].readable = got & (POLLIN | POLLHUP | POLLERR | POLLNVAL);
		events[n].writable = got & (POLLOUT | POLLHUP | POLLERR | POLLNVAL);
		n++;
	}
	return n;
}

static int poller_poll_wait(struct poller *self, struct watch_event *events, int max_events, int timeout)
{
	/* report events beyond `max_events` of the last poll(2) before the next one; events of entries that a
	 * removal moved in between are found again, because poll(2) is level-triggered */
	if (self->left > 0 && self->next < self->count) {
		int n = report(self, events, max_events);

		if (n > 0)
			return n;
	}
	self->left = poll(self->fds, self->count, timeout);
	self->next = 0;
	if (self->left < 0) {
		self->left = 0;
		return clock_poll_retry(errno) ? 0 : -errno;
	}
	return report(self, events, max_events);
}

const struct poller_ops poller_poll = {
	.open = poller_poll_open,
	.close = poller_poll_close,
	.add = poller_poll_add,
	.change = poller_poll_change,
	.remove = poller_poll_remove,
	.wait = poller_poll_wait,
};
