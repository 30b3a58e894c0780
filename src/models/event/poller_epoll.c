#include <config.h>

#include <errno.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "models/event/poller.h"

/* Events taken from the kernel at once. */
#define BATCH 256

struct ready {
	int fd;
	struct epoll_event batch[BATCH];
};

static int ready_epoll_open(struct ready **ready, size_t most)
{
	struct ready *self = calloc(1, sizeof *self);

	(void) most;
	if (!self)
		return -ENOMEM;
	self->fd = epoll_create1(EPOLL_CLOEXEC);
	if (self->fd < 0) {
		int error = errno;

		free(self);
		return -error;
	}
	*ready = self;
	return 0;
}

static void ready_epoll_close(struct ready *self)
{
	if (!self)
		return;
	close(self->fd);
	free(self);
}

static uint32_t to_epoll(unsigned interest)
{
	return (interest & WATCH_READ ? (uint32_t) EPOLLIN : 0) | (interest & WATCH_WRITE ? (uint32_t) EPOLLOUT : 0);
}

static int control(struct ready *self, int operation, struct watch *watch, uint32_t flags)
{
	struct epoll_event event = { .events = to_epoll(watch->interest) | flags, .data.ptr = watch };

	return epoll_ctl(self->fd, operation, watch->fd, &event) < 0 ? -errno : 0;
}

static int ready_epoll_add(struct ready *self, struct watch *watch, bool exclusive)
{
	return control(self, EPOLL_CTL_ADD, watch, exclusive ? (uint32_t) EPOLLEXCLUSIVE : 0);
}

static int ready_epoll_change(struct ready *self, struct watch *watch)
{
	return control(self, EPOLL_CTL_MOD, watch, 0);
}

static void ready_epoll_remove(struct ready *self, struct watch *watch, bool closing)
{
	if (!closing || watch->foreign)
		(void) control(self, EPOLL_CTL_DEL, watch, 0);
}

static int ready_epoll_wait(struct ready *self, struct watch_event *events, int most, int timeout)
{
	int n = epoll_wait(self->fd, self->batch, most < BATCH ? most : BATCH, timeout);

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

const struct ready_ops ready_epoll = {
	.open = ready_epoll_open,
	.close = ready_epoll_close,
	.add = ready_epoll_add,
	.change = ready_epoll_change,
	.remove = ready_epoll_remove,
	.wait = ready_epoll_wait,
};
