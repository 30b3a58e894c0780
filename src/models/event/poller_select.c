/* SPDX-License-Identifier: ISC */
#include <config.h>

#include <errno.h>
#include <stdlib.h>
#include <sys/select.h>

#include "base/clock.h"
#include "models/poller.h"

struct poller {
	fd_set read, write; /* the watched sets */
	fd_set got_read, got_write;
	struct watch *watches[FD_SETSIZE];
	int highest; /* highest watched descriptor plus 1 */
	int next;    /* descriptor at which the last wait() stopped reporting */
	int left;    /* number of bits not reported yet */
};

static int poller_select_open(struct poller **poller, size_t max_watches)
{
	struct poller *self = calloc(1, sizeof *self);

	(void) max_watches; /* add() refuses descriptors that do not fit */
	if (!self)
		return -ENOMEM;
	FD_ZERO(&self->read);
	FD_ZERO(&self->write);
	*poller = self;
	return 0;
}

static void poller_select_close(struct poller *self)
{
	free(self);
}

static int poller_select_change(struct poller *self, struct watch *watch)
{
	FD_CLR(watch->fd, &self->read);
	FD_CLR(watch->fd, &self->write);
	if (watch->interest & WATCH_READ)
		FD_SET(watch->fd, &self->read);
	if (watch->interest & WATCH_WRITE)
		FD_SET(watch->fd, &self->write);
	return 0;
}

static int poller_select_add(struct poller *self, struct watch *watch, enum poller_wake wake)
{
	(void) wake;
	/* checked before every FD_SET: select(2), "BUGS" */
	if (watch->fd < 0 || watch->fd >= FD_SETSIZE)
		return -EMFILE;
	self->watches[watch->fd] = watch;
	if (watch->fd >= self->highest)
		self->highest = watch->fd + 1;
	return poller_select_change(self, watch);
}

static void poller_select_remove(struct poller *self, struct watch *watch, enum poller_removal removal)
{
	int fd = watch->fd;

	(void) removal;
	FD_CLR(fd, &self->read);
	FD_CLR(fd, &self->write);
	FD_CLR(fd, &self->got_read);
	FD_CLR(fd, &self->got_write);
	self->watches[fd] = NULL;
	while (self->highest > 0 && !self->watches[self->highest - 1])
		self->highest--;
}

static int report(struct poller *self, struct watch_event *events, int max_events)
{
	int n = 0;

	for (; self->left > 0 && self->next < self->highest && n < max_events; self->next++) {
		bool readable = FD_ISSET(self->next, &self->got_read),
		     writable = FD_ISSET(self->next, &self->got_write);

		if (!readable && !writable)
			continue;
		self->left -= readable + writable;
		events[n++] = (struct watch_event) { self->watches[self->next], readable, writable };
	}
	return n;
}

static int poller_select_wait(struct poller *self, struct watch_event *events, int max_events, int timeout)
{
	struct timeval limit = { .tv_sec = timeout / 1000, .tv_usec = timeout % 1000 * 1000 };

	if (self->left > 0 && self->next < self->highest) {
		int n = report(self, events, max_events);

		if (n > 0)
			return n;
	}
	self->got_read = self->read;
	self->got_write = self->write;
	self->left =
		select(self->highest, &self->got_read, &self->got_write, NULL, timeout < 0 ? NULL : &limit);
	self->next = 0;
	if (self->left < 0) {
		self->left = 0;
		return clock_poll_retry(errno) ? 0 : -errno;
	}
	return report(self, events, max_events);
}

const struct poller_ops poller_select = {
	.open = poller_select_open,
	.close = poller_select_close,
	.add = poller_select_add,
	.change = poller_select_change,
	.remove = poller_select_remove,
	.wait = poller_select_wait,
};
