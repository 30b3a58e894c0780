/* SPDX-License-Identifier: ISC */
/* epoll_base.c - see epoll_base.h */
#include <config.h>

#include "client/load/epoll_base.h"

#include <errno.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "base/compat.h"

#define BATCH 512
#define WAKEUP UINT32_MAX /* epoll data of the wake-up descriptor */

int epoll_base_watch(struct load_worker *worker, struct load_conn *conn, int how, bool out)
{
	struct epoll_base *base = worker->engine;
	struct epoll_event event = { .events = EPOLLIN | (out ? EPOLLOUT : 0u) };

	event.data.u32 = (uint32_t) (conn - worker->conns);
	if (how == EPOLL_CTL_MOD && conn->send_armed == out)
		return 0;
	conn->send_armed = out;
	return epoll_ctl(base->fd, how, conn->fd, &event) < 0 ? -errno : 0;
}

static int base_open(struct load_worker *worker, struct epoll_base *base)
{
	struct epoll_event wakeup = { .events = EPOLLIN, .data.u32 = WAKEUP };
	int r = 0;

	base->fd = epoll_create1(EPOLL_CLOEXEC);
	if (base->fd < 0 || epoll_ctl(base->fd, EPOLL_CTL_ADD, worker->wake, &wakeup) < 0)
		return -errno;
	for (unsigned i = 0; r == 0 && i < worker->count; i++)
		if (worker->conns[i].fd >= 0)
			r = epoll_base_watch(worker, &worker->conns[i], EPOLL_CTL_ADD, false);
	return r;
}

static int base_loop(struct load_worker *worker, struct epoll_base *base)
{
	struct epoll_event events[BATCH];

	for (;;) {
		uint64_t next = load_worker_turn(worker, base->kick), wakeups;
		struct timespec wait;
		int n;

		if (worker->phase == LOAD_PHASE_OVER)
			return 0;
		if (base->timer)
			next = nsec_earlier(next, base->timer(worker));
		n = compat_epoll_wait(base->fd, events, BATCH, nsec_timespec(&wait, worker->now, next));
		if (n < 0 && errno != EINTR)
			return -errno;
		worker->now = nsec_now();
		for (int i = 0; i < n; i++) {
			if (events[i].data.u32 != WAKEUP)
				base->event(worker, &worker->conns[events[i].data.u32], events[i].events);
			else if (read(worker->wake, &wakeups, sizeof wakeups) < 0)
				continue;
		}
	}
}

int epoll_base_run(struct load_worker *worker, struct epoll_base *base)
{
	int r = base_open(worker, base);

	if (r == 0)
		r = base_loop(worker, base);
	if (base->fd >= 0)
		close(base->fd);
	return r;
}
