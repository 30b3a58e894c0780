/* SPDX-License-Identifier: ISC */
/* engine_epoll.c - load engine for streams on epoll(7) */
#include <config.h>

#include "client/load/epoll_base.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

struct epoll_engine {
	struct epoll_base base;
	uint8_t *buffer;
};

static void conn_close(struct load_conn *conn)
{
	if (conn->fd >= 0)
		close(conn->fd); /* this removes it from the epoll set */
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
		epoll_base_watch(worker, conn, EPOLL_CTL_MOD, false);
		return;
	}
	n = send(conn->fd, bytes, length, MSG_NOSIGNAL);
	if (n < 0 && errno != EAGAIN) {
		conn_fail(worker, conn, "send", errno);
		return;
	}
	if (n > 0)
		load_worker_sent(worker, conn, (size_t) n);
	r = epoll_base_watch(worker, conn, EPOLL_CTL_MOD, conn->granted > conn->sent);
	if (r < 0)
		conn_fail(worker, conn, "epoll_ctl", -r);
}

/* Connect mode: open a connection for the message that has been started. */
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
	if (r < 0 && conn->fd >= 0 && load_worker_can_retry(-r)) {
		conn_close(conn);
		load_worker_backoff(worker, conn, -r);
		return;
	}
	if (r == 0)
		r = epoll_base_watch(worker, conn, EPOLL_CTL_ADD, true);
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

static void conn_receive(struct load_worker *worker, struct load_conn *conn)
{
	struct epoll_engine *engine = worker->engine;
	ssize_t n = recv(conn->fd, engine->buffer, worker->run->buffer, 0);

	if (n < 0 && errno == EAGAIN)
		return;
	/* Connect mode: the server has closed its side, too. Start the next connection. */
	if (n == 0 && conn->state == LOAD_CONN_CLOSING) {
		conn_close(conn);
		conn_kick(worker, conn);
		return;
	}
	if (n <= 0) {
		conn_fail(worker, conn, n == 0 ? "closed by the server" : "receive", n == 0 ? 0 : errno);
		return;
	}
	worker->now = nsec_now();
	if (load_worker_received(worker, conn, engine->buffer, (size_t) n) < 0) {
		conn_fail(worker, conn, NULL, 0);
		return;
	}
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

static int engine_epoll_run(struct load_worker *worker)
{
	struct epoll_engine engine = { .base = { .fd = -1, .kick = conn_kick, .event = conn_event } };
	int r = -ENOMEM;

	/* cppcheck-suppress autoVariables ; reset below */
	worker->engine = &engine;
	engine.buffer = malloc(worker->run->buffer);
	if (engine.buffer)
		r = epoll_base_run(worker, &engine.base);
	free(engine.buffer);
	worker->engine = NULL;
	return r;
}

const struct load_engine engine_epoll = { .name = "epoll", .run = engine_epoll_run };
