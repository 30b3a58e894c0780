/* SPDX-License-Identifier: ISC */
#include <config.h>

#include <errno.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "models/poller.h"

/* Maximum number of events read from the kernel at once. */
#define BATCH 256

struct poller {
	int fd;
	struct epoll_event batch[BATCH];
};

static int poller_epoll_open(struct poller **poller, size_t max_watches)
{
	struct poller *self = calloc(1, sizeof *self);

	(void) max_watches;
	if (!self)
		return -ENOMEM;
	self->fd = epoll_create1(EPOLL_CLOEXEC);
	if (self->fd < 0) {
		int error = errno;

		free(self);
		return -error;
	}
	*poller = self;
	return 0;
}

static void poller_epoll_close(struct poller *self)
{
	if (!self)
		return;
	close(self->fd);
	free(self);
}

void poller_epoll_close_forked(struct poller *self)
{
	close(self->fd);
}

int poller_epoll_fd(const struct poller *self)
{
	return self->fd;
}

static uint32_t to_epoll(unsigned interest)
{
	return (interest & WATCH_READ ? (uint32_t) EPOLLIN : 0) |
	       (interest & WATCH_WRITE ? (uint32_t) EPOLLOUT : 0);
}

static int control(struct poller *self, int operation, struct watch *watch, uint32_t flags)
{
	struct epoll_event event = { .events = to_epoll(watch->interest) | flags, .data.ptr = watch };

	return epoll_ctl(self->fd, operation, watch->fd, &event) < 0 ? -errno : 0;
}

static int poller_epoll_add(struct poller *self, struct watch *watch, enum poller_wake wake)
{
	return control(self, EPOLL_CTL_ADD, watch, wake == POLLER_WAKE_ONE ? (uint32_t) EPOLLEXCLUSIVE : 0);
}

static int poller_epoll_change(struct poller *self, struct watch *watch)
{
	return control(self, EPOLL_CTL_MOD, watch, 0);
}

static void poller_epoll_remove(struct poller *self, struct watch *watch, enum poller_removal removal)
{
	if (removal == POLLER_STAYS_OPEN || watch->shared_ofd)
		(void) control(self, EPOLL_CTL_DEL, watch, 0);
}

static int poller_epoll_wait(struct poller *self, struct watch_event *events, int max_events, int timeout)
{
	int n = epoll_wait(self->fd, self->batch, max_events < BATCH ? max_events : BATCH, timeout);

	if (n < 0)
		return errno == EINTR ? 0 : -errno;
	for (int i = 0; i < n; i++) {
		uint32_t got = self->batch[i].events;

		events[i].watch = self->batch[i].data.ptr;
		events[i].readable = got & (EPOLLIN | EPOLLHUP | EPOLLERR);
		events[i].writable = got & (EPOLLOUT | EPOLLHUP | EPOLLERR);
	}
	return n;
}

const struct poller_ops poller_epoll = {
	.open = poller_epoll_open,
	.close = poller_epoll_close,
	.add = poller_epoll_add,
	.change = poller_epoll_change,
	.remove = poller_epoll_remove,
	.wait = poller_epoll_wait,
};
