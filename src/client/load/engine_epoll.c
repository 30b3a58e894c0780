/* load_epoll.c - the load engine on epoll(7): level-triggered, EPOLLOUT asked for only while a send is short */
#include <config.h>

#include <errno.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/compat.h"
#include "client/load/worker.h"

#define BATCH 512
#define WAKE UINT32_MAX /* the epoll data of the wake-up descriptor */

struct epoll_engine {
	int fd;
	uint8_t *buffer;
	struct epoll_event events[BATCH];
};

static int interest_set(struct load_worker *worker, struct load_conn *conn, int how, bool out)
{
	struct epoll_engine *engine = worker->engine;
	struct epoll_event event = { .events = EPOLLIN | (out ? EPOLLOUT : 0u) };

	event.data.u32 = (uint32_t) (conn - worker->conns);
	if (how == EPOLL_CTL_MOD && conn->send_armed == out)
		return 0;
	conn->send_armed = out;
	return epoll_ctl(engine->fd, how, conn->fd, &event) < 0 ? -errno : 0;
}

static void conn_close(struct load_conn *conn)
{
	if (conn->fd >= 0)
		close(conn->fd); /* which takes it out of the epoll set too */
	conn->fd = -1;
	conn->state = LOAD_CONN_CLOSED;
	conn->send_armed = false;
}

static void conn_fail(struct load_worker *worker, struct load_conn *conn, const char *what, int error)
{
	conn_close(conn);
	load_worker_lost(worker, conn, what, error);
}

static void conn_send(struct load_worker *worker, struct load_conn *conn)
{
	size_t length;
	const uint8_t *bytes = load_conn_out(conn, PATTERN_RUN, &length);
	ssize_t n;
	int r;

	if (length == 0) {
		interest_set(worker, conn, EPOLL_CTL_MOD, false);
		return;
	}
	n = send(conn->fd, bytes, length, MSG_NOSIGNAL);
	if (n < 0 && errno != EAGAIN) {
		conn_fail(worker, conn, "send", errno);
		return;
	}
	if (n > 0)
		load_worker_sent(worker, conn, (size_t) n);
	r = interest_set(worker, conn, EPOLL_CTL_MOD, conn->granted > conn->sent);
	if (r < 0)
		conn_fail(worker, conn, "epoll_ctl", -r);
}

/* Connect mode: a connection for the one message that is begun. */
static void conn_connect(struct load_worker *worker, struct load_conn *conn)
{
	const struct load_run *run = worker->run;
	const char *what = "connect";
	int r = target_socket(&run->options->sockopts, &run->to, &what);

	if (r >= 0) {
		conn->fd = r;
		conn->state = LOAD_CONN_CONNECTING;
		r = connect(conn->fd, &run->to.sa, run->to.len) == 0 || errno == EINPROGRESS ? 0 : -errno;
	}
	/* A unix socket's backlog is full: the connection was not begun, and is a little later. */
	if (r == -EAGAIN) {
		conn_close(conn);
		load_worker_backoff(worker, conn);
		return;
	}
	if (r == 0)
		r = interest_set(worker, conn, EPOLL_CTL_ADD, true);
	if (r < 0)
		conn_fail(worker, conn, what, -r);
}

static void conn_kick(struct load_worker *worker, struct load_conn *conn)
{
	if (conn->dead)
		return;
	load_worker_refill(worker, conn);
	if (conn->state == LOAD_CONN_OPEN && !conn->send_armed)
		conn_send(worker, conn);
	else if (conn->state == LOAD_CONN_CLOSED && conn->granted > conn->sent)
		conn_connect(worker, conn);
}

static void conn_connected(struct load_worker *worker, struct load_conn *conn)
{
	int error = 0;
	socklen_t length = sizeof error;

	if (getsockopt(conn->fd, SOL_SOCKET, SO_ERROR, &error, &length) < 0)
		error = errno;
	if (error != 0) {
		conn_fail(worker, conn, "connect", error);
		return;
	}
	counter_add(&worker->counters.connections, 1);
	conn->state = LOAD_CONN_OPEN;
	conn_send(worker, conn);
}

/* Connect mode: the server closed its side as well, so the next connection may begin. */
static void conn_closed(struct load_worker *worker, struct load_conn *conn)
{
	conn_close(conn);
	conn_kick(worker, conn);
}

static void conn_receive(struct load_worker *worker, struct load_conn *conn)
{
	struct epoll_engine *engine = worker->engine;
	ssize_t n = recv(conn->fd, engine->buffer, worker->run->buffer, 0);

	if (n < 0 && errno == EAGAIN)
		return;
	if (n == 0 && conn->state == LOAD_CONN_CLOSING) {
		conn_closed(worker, conn);
		return;
	}
	if (n <= 0) {
		conn_fail(worker, conn, n == 0 ? "the server closed it" : "receive", n == 0 ? 0 : errno);
		return;
	}
	worker->now = nsec_now();
	if (load_worker_received(worker, conn, engine->buffer, (size_t) n) < 0) {
		conn_fail(worker, conn, NULL, 0);
		return;
	}
	if (worker->phase == LOAD_PHASE_DRAIN)
		load_worker_check_drained(worker, conn);
	if (worker->run->options->mode == LOAD_CONNECT && conn->granted == conn->received) {
		conn->state = LOAD_CONN_CLOSING;
		shutdown(conn->fd, SHUT_WR);
	} else {
		conn_kick(worker, conn);
	}
}

static void conn_event(struct load_worker *worker, struct load_conn *conn, uint32_t events)
{
	if (conn->state == LOAD_CONN_CONNECTING) {
		conn_connected(worker, conn);
		return;
	}
	if (events & (EPOLLIN | EPOLLERR | EPOLLHUP))
		conn_receive(worker, conn);
	if (events & EPOLLOUT && conn->state == LOAD_CONN_OPEN && conn->send_armed)
		conn_send(worker, conn);
}

static int engine_loop(struct load_worker *worker)
{
	struct epoll_engine *engine = worker->engine;

	for (;;) {
		uint64_t next = load_worker_turn(worker, conn_kick), events;
		struct timespec wait;
		int n;

		if (worker->phase == LOAD_PHASE_OVER)
			return 0;
		n = compat_epoll_wait(engine->fd, engine->events, BATCH, nsec_timespec(&wait, worker->now, next));
		if (n < 0 && errno != EINTR)
			return -errno;
		worker->now = nsec_now();
		for (int i = 0; i < n; i++) {
			if (engine->events[i].data.u32 != WAKE)
				conn_event(worker, &worker->conns[engine->events[i].data.u32],
					   engine->events[i].events);
			else if (read(worker->wake, &events, sizeof events) < 0)
				continue;
		}
	}
}

static int engine_epoll_run(struct load_worker *worker)
{
	struct epoll_engine engine = { .fd = -1 };
	struct epoll_event wake = { .events = EPOLLIN, .data.u32 = WAKE };
	int r = -ENOMEM;

	/* cppcheck-suppress autoVariables ; reset below */
	worker->engine = &engine;
	engine.buffer = malloc(worker->run->buffer);
	if (!engine.buffer)
		goto done;
	engine.fd = epoll_create1(EPOLL_CLOEXEC);
	if (engine.fd < 0 || epoll_ctl(engine.fd, EPOLL_CTL_ADD, worker->wake, &wake) < 0) {
		r = -errno;
		goto done;
	}
	r = 0;
	for (unsigned i = 0; r == 0 && i < worker->count; i++)
		if (worker->conns[i].fd >= 0)
			r = interest_set(worker, &worker->conns[i], EPOLL_CTL_ADD, false);
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

const struct load_engine engine_epoll = { .name = "epoll", .probe = epoll_probe, .run = engine_epoll_run };
