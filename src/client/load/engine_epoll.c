/* load_epoll.c - the load engine on epoll(7): level-triggered, EPOLLOUT asked for only while a send is short */
#include <config.h>

#include <errno.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "client/load/worker.h"

#define BATCH 512
#define WAKE UINT32_MAX /* the epoll data of the wake-up descriptor */

struct epoll_engine {
	int fd;
	uint8_t *buffer;
	struct epoll_event events[BATCH];
};

static int interest_set(struct worker *worker, struct flow *flow, int how, bool out)
{
	struct epoll_engine *engine = worker->engine;
	struct epoll_event event = { .events = EPOLLIN | (out ? EPOLLOUT : 0u) };

	event.data.u32 = (uint32_t) (flow - worker->flows);
	if (how == EPOLL_CTL_MOD && flow->armed == out)
		return 0;
	flow->armed = out;
	return epoll_ctl(engine->fd, how, flow->fd, &event) < 0 ? -errno : 0;
}

static void flow_close(struct flow *flow)
{
	if (flow->fd >= 0)
		close(flow->fd); /* which takes it out of the epoll set too */
	flow->fd = -1;
	flow->state = FLOW_CLOSED;
	flow->armed = false;
}

static void flow_fail(struct worker *worker, struct flow *flow, const char *what, int error)
{
	flow_close(flow);
	worker_lost(worker, flow, what, error);
}

static void flow_send(struct worker *worker, struct flow *flow)
{
	size_t length;
	const uint8_t *bytes = flow_out(flow, PATTERN_RUN, &length);
	ssize_t n;
	int r;

	if (length == 0) {
		interest_set(worker, flow, EPOLL_CTL_MOD, false);
		return;
	}
	n = send(flow->fd, bytes, length, MSG_NOSIGNAL);
	if (n < 0 && errno != EAGAIN) {
		flow_fail(worker, flow, "send", errno);
		return;
	}
	if (n > 0)
		worker_sent(worker, flow, (size_t) n);
	r = interest_set(worker, flow, EPOLL_CTL_MOD, flow->granted > flow->sent);
	if (r < 0)
		flow_fail(worker, flow, "epoll_ctl", -r);
}

/* Connect mode: a connection for the one message that is begun. */
static void flow_connect(struct worker *worker, struct flow *flow)
{
	const struct run *run = worker->run;
	const char *what = "connect";
	int r = target_socket(&run->options->wish, &run->to, &what);

	if (r >= 0) {
		flow->fd = r;
		flow->state = FLOW_CONNECTING;
		r = connect(flow->fd, &run->to.sa, run->to.len) == 0 || errno == EINPROGRESS ? 0 : -errno;
	}
	/* A unix socket's backlog is full: the connection was not begun, and is a little later. */
	if (r == -EAGAIN) {
		flow_close(flow);
		worker_rest(worker, flow);
		return;
	}
	if (r == 0)
		r = interest_set(worker, flow, EPOLL_CTL_ADD, true);
	if (r < 0)
		flow_fail(worker, flow, what, -r);
}

static void flow_push(struct worker *worker, struct flow *flow)
{
	if (flow->dead)
		return;
	worker_refill(worker, flow);
	if (flow->state == FLOW_OPEN && !flow->armed)
		flow_send(worker, flow);
	else if (flow->state == FLOW_CLOSED && flow->granted > flow->sent)
		flow_connect(worker, flow);
}

static void flow_connected(struct worker *worker, struct flow *flow)
{
	int error = 0;
	socklen_t length = sizeof(error);

	if (getsockopt(flow->fd, SOL_SOCKET, SO_ERROR, &error, &length) < 0)
		error = errno;
	if (error != 0) {
		flow_fail(worker, flow, "connect", error);
		return;
	}
	tally_add(&worker->tally.connections, 1);
	flow->state = FLOW_OPEN;
	flow_send(worker, flow);
}

/* Connect mode: the server closed its side as well, so the next connection may begin. */
static void flow_closed(struct worker *worker, struct flow *flow)
{
	flow_close(flow);
	flow_push(worker, flow);
}

static void flow_receive(struct worker *worker, struct flow *flow)
{
	struct epoll_engine *engine = worker->engine;
	ssize_t n = recv(flow->fd, engine->buffer, worker->run->buffer, 0);

	if (n < 0 && errno == EAGAIN)
		return;
	if (n == 0 && flow->state == FLOW_CLOSING) {
		flow_closed(worker, flow);
		return;
	}
	if (n <= 0) {
		flow_fail(worker, flow, n == 0 ? "the server closed it" : "receive", n == 0 ? 0 : errno);
		return;
	}
	worker->now = ticks_now();
	if (worker_received(worker, flow, engine->buffer, (size_t) n) < 0) {
		flow_fail(worker, flow, NULL, 0);
		return;
	}
	if (worker->phase == PHASE_DRAIN)
		worker_settle(worker, flow);
	if (worker->run->options->mode == LOAD_CONNECT && flow->granted == flow->received) {
		flow->state = FLOW_CLOSING;
		shutdown(flow->fd, SHUT_WR);
	} else {
		flow_push(worker, flow);
	}
}

static void flow_event(struct worker *worker, struct flow *flow, uint32_t events)
{
	if (flow->state == FLOW_CONNECTING) {
		flow_connected(worker, flow);
		return;
	}
	if (events & (EPOLLIN | EPOLLERR | EPOLLHUP))
		flow_receive(worker, flow);
	if (events & EPOLLOUT && flow->state == FLOW_OPEN && flow->armed)
		flow_send(worker, flow);
}

static int engine_loop(struct worker *worker)
{
	struct epoll_engine *engine = worker->engine;

	for (;;) {
		uint64_t next = worker_turn(worker, flow_push), news;
		struct timespec wait;
		int n;

		if (worker->phase == PHASE_OVER)
			return 0;
		n = epoll_pwait2(engine->fd, engine->events, BATCH, ticks_wait(&wait, worker->now, next), NULL);
		if (n < 0 && errno != EINTR)
			return -errno;
		worker->now = ticks_now();
		for (int i = 0; i < n; i++) {
			if (engine->events[i].data.u32 != WAKE)
				flow_event(worker, &worker->flows[engine->events[i].data.u32], engine->events[i].events);
			else if (read(worker->wake, &news, sizeof(news)) < 0)
				continue;
		}
	}
}

static int epoll_run(struct worker *worker)
{
	struct epoll_engine engine = { .fd = -1 };
	struct epoll_event wake = { .events = EPOLLIN, .data.u32 = WAKE };
	int r = -ENOMEM;

	/* cppcheck-suppress autoVariables ; reset below */
	worker->engine = &engine;
	engine.buffer = malloc(worker->run->buffer);
	if (engine.buffer == NULL)
		goto done;
	engine.fd = epoll_create1(EPOLL_CLOEXEC);
	if (engine.fd < 0 || epoll_ctl(engine.fd, EPOLL_CTL_ADD, worker->wake, &wake) < 0) {
		r = -errno;
		goto done;
	}
	r = 0;
	for (unsigned i = 0; r == 0 && i < worker->count; i++)
		if (worker->flows[i].fd >= 0)
			r = interest_set(worker, &worker->flows[i], EPOLL_CTL_ADD, false);
	if (r == 0)
		r = engine_loop(worker);
done:
	if (engine.fd >= 0)
		close(engine.fd);
	free(engine.buffer);
	worker->engine = NULL;
	return r;
}

static int epoll_probe(char *why, size_t size)
{
	(void) why;
	(void) size;
	return 0;
}

const struct engine engine_epoll = { .name = "epoll", .probe = epoll_probe, .run = epoll_run };
