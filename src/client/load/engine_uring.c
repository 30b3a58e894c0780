/* SPDX-License-Identifier: ISC */
/* engine_uring.c - load engine for streams on io_uring(7)
 *
 * At most one send and one receive are in flight on a connection. A descriptor is closed only when nothing
 * is in flight on it, so that a completion never belongs to an earlier descriptor of the connection. All
 * operations of a turn are submitted by the call that waits for completions.
 */
#include <config.h>

#include <errno.h>
#include <fcntl.h>
#include <liburing.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "client/load/worker.h"

#define SQ_ENTRIES_MAX 8192u

enum op { OP_WAKEUP, OP_CONNECT, OP_SEND, OP_RECEIVE, OP_SHUTDOWN };

/* State of a connection that only this engine needs. */
struct uring_conn {
	const uint8_t *unsent; /* bytes of the send in flight */
	size_t unsent_length;
	bool failing;  /* to be closed when nothing is in flight */
	bool readable; /* the last receive left data in the socket */
};

struct uring_engine {
	struct io_uring ring;
	struct uring_conn *conns;
	uint8_t *buffers;   /* run->buffer bytes for each connection */
	unsigned in_flight; /* operations, except for OP_WAKEUP */
	bool poll_first;    /* the kernel supports IORING_RECVSEND_POLL_FIRST */
};

static void conn_kick(struct load_worker *worker, struct load_conn *conn);

static struct io_uring_sqe *sqe_get(struct load_worker *worker, enum op op)
{
	struct uring_engine *engine = worker->engine;
	struct io_uring_sqe *sqe = io_uring_get_sqe(&engine->ring);

	while (!sqe) {
		io_uring_submit(&engine->ring);
		/* Operations may have completed in the call. Their completions are handled after this
		 * time. */
		worker->now = nsec_now();
		sqe = io_uring_get_sqe(&engine->ring);
	}
	engine->in_flight += op != OP_WAKEUP;
	return sqe;
}

static void sqe_tag(const struct load_worker *worker, struct io_uring_sqe *sqe, enum op op,
		    const struct load_conn *conn)
{
	io_uring_sqe_set_data64(sqe, (uint64_t) op << 32 | (conn ? (uint32_t) (conn - worker->conns) : 0));
}

static void wakeup_arm(struct load_worker *worker)
{
	struct io_uring_sqe *sqe = sqe_get(worker, OP_WAKEUP);

	io_uring_prep_poll_add(sqe, worker->wake, POLLIN);
	sqe_tag(worker, sqe, OP_WAKEUP, NULL);
}

static struct uring_conn *conn_state(const struct load_worker *worker, const struct load_conn *conn)
{
	struct uring_engine *engine = worker->engine;

	return &engine->conns[conn - worker->conns];
}

/* Close a failed connection on which nothing is in flight. */
static void conn_release(struct load_worker *worker, struct load_conn *conn)
{
	struct uring_conn *state = conn_state(worker, conn);

	close(conn->fd);
	conn->fd = -1;
	state->failing = false;
	load_worker_lost(worker, conn, NULL, 0);
}

static void conn_fail(struct load_worker *worker, struct load_conn *conn, const char *what, int error)
{
	struct uring_conn *state = conn_state(worker, conn);

	if (state->failing)
		return;
	state->failing = true;
	if (what) {
		load_worker_fault(worker, conn, what, error);
		counter_add(&worker->counters.errors, 1);
	}
	if (conn->send_armed || conn->recv_armed)
		shutdown(conn->fd, SHUT_RDWR);
	else
		conn_release(worker, conn);
}

static void send_submit(struct load_worker *worker, struct load_conn *conn)
{
	struct uring_conn *state = conn_state(worker, conn);
	struct io_uring_sqe *sqe = sqe_get(worker, OP_SEND);

	/* With MSG_WAITALL the kernel continues after a short send; with an older kernel on_sent() does. */
	io_uring_prep_send(sqe, conn->fd, state->unsent, state->unsent_length, MSG_NOSIGNAL | MSG_WAITALL);
	sqe_tag(worker, sqe, OP_SEND, conn);
	conn->send_armed = true;
}

static void conn_send(struct load_worker *worker, struct load_conn *conn)
{
	struct uring_conn *state = conn_state(worker, conn);

	state->unsent = load_conn_out(conn, PATTERN_RUN, &state->unsent_length);
	if (state->unsent_length == 0)
		return;
	load_worker_sent(worker, conn, state->unsent_length);
	send_submit(worker, conn);
}

static void conn_receive_arm(struct load_worker *worker, struct load_conn *conn)
{
	struct uring_engine *engine = worker->engine;
	struct uring_conn *state = conn_state(worker, conn);
	struct io_uring_sqe *sqe = sqe_get(worker, OP_RECEIVE);
	size_t size = worker->run->buffer;

	io_uring_prep_recv(sqe, conn->fd, engine->buffers + (size_t) (conn - worker->conns) * size, size, 0);
	/* The answer is not there before the message has been sent: do not try to receive at once. */
	if (engine->poll_first && conn->depth != 0 && !state->readable)
		sqe->ioprio |= IORING_RECVSEND_POLL_FIRST;
	sqe_tag(worker, sqe, OP_RECEIVE, conn);
	conn->recv_armed = true;
}

/* Connect mode: open a connection for the message that has been started. */
static void conn_connect(struct load_worker *worker, struct load_conn *conn)
{
	const struct load_run *run = worker->run;
	const char *what = "connect";
	int fd = target_socket(&run->options->sockopts, &run->to, &what);
	struct io_uring_sqe *sqe;

	if (fd < 0) {
		load_worker_lost(worker, conn, what, -fd);
		return;
	}
	/* With O_NONBLOCK, io_uring would return EAGAIN instead of waiting. */
	fcntl(fd, F_SETFL, 0);
	conn->fd = fd;
	conn->state = LOAD_CONN_CONNECTING;
	conn->send_armed = true;
	sqe = sqe_get(worker, OP_CONNECT);
	io_uring_prep_connect(sqe, fd, &run->to.sa, run->to.len);
	sqe_tag(worker, sqe, OP_CONNECT, conn);
}

static void conn_kick(struct load_worker *worker, struct load_conn *conn)
{
	if (conn->dead || conn_state(worker, conn)->failing)
		return;
	load_worker_refill(worker, conn);
	if (conn->state == LOAD_CONN_OPEN && !conn->send_armed)
		conn_send(worker, conn);
	else if (conn->state == LOAD_CONN_CLOSED && conn->granted > conn->sent)
		conn_connect(worker, conn);
}

static void on_connected(struct load_worker *worker, struct load_conn *conn, int result)
{
	conn->send_armed = false;
	if (result < 0 && load_worker_can_retry(-result)) {
		close(conn->fd);
		conn->fd = -1;
		load_worker_backoff(worker, conn, -result);
		return;
	}
	if (result < 0) {
		conn_fail(worker, conn, "connect", -result);
		return;
	}
	counter_add(&worker->counters.connections, 1);
	conn->state = LOAD_CONN_OPEN;
	conn_send(worker, conn);
	conn_receive_arm(worker, conn);
}

static void on_sent(struct load_worker *worker, struct load_conn *conn, int result)
{
	struct uring_conn *state = conn_state(worker, conn);

	conn->send_armed = false;
	if (state->failing) {
		if (!conn->recv_armed)
			conn_release(worker, conn);
	} else if (result < 0) {
		conn_fail(worker, conn, "send", -result);
	} else if ((size_t) result < state->unsent_length) {
		state->unsent += result;
		state->unsent_length -= (size_t) result;
		send_submit(worker, conn);
	} else if (conn->granted > conn->sent) {
		conn_send(worker, conn);
	}
}

/* Connect mode: everything came back. Close our side and wait until the server closes its side. */
static void conn_finish(struct load_worker *worker, struct load_conn *conn)
{
	struct io_uring_sqe *sqe = sqe_get(worker, OP_SHUTDOWN);

	conn->state = LOAD_CONN_CLOSING;
	io_uring_prep_shutdown(sqe, conn->fd, SHUT_WR);
	sqe_tag(worker, sqe, OP_SHUTDOWN, conn);
	conn_receive_arm(worker, conn);
}

static void on_end_of_file(struct load_worker *worker, struct load_conn *conn)
{
	if (conn->state != LOAD_CONN_CLOSING) {
		conn_fail(worker, conn, "closed by the server", 0);
		return;
	}
	close(conn->fd);
	conn->fd = -1;
	conn->state = LOAD_CONN_CLOSED;
	conn_kick(worker, conn);
}

static void on_received(struct load_worker *worker, struct load_conn *conn, int result, unsigned flags)
{
	struct uring_engine *engine = worker->engine;
	struct uring_conn *state = conn_state(worker, conn);

	conn->recv_armed = false;
	if (state->failing) {
		if (!conn->send_armed)
			conn_release(worker, conn);
		return;
	}
	if (result == 0) {
		on_end_of_file(worker, conn);
		return;
	}
	if (result < 0) {
		conn_fail(worker, conn, "receive", -result);
		return;
	}
	if (load_worker_received(worker, conn,
				 engine->buffers + (size_t) (conn - worker->conns) * worker->run->buffer,
				 (size_t) result)
	    < 0) {
		conn_fail(worker, conn, NULL, 0);
		return;
	}
	state->readable = (flags & IORING_CQE_F_SOCK_NONEMPTY) != 0;
	load_worker_check_drained(worker, conn);
	/* The completion of the send may come after the answer. */
	if (worker->run->options->mode == LOAD_CONNECT && conn->granted == conn->received) {
		conn_finish(worker, conn);
		return;
	}
	conn_kick(worker, conn);
	if (!state->failing && conn->state == LOAD_CONN_OPEN)
		conn_receive_arm(worker, conn);
}

static void completion(struct load_worker *worker, const struct io_uring_cqe *cqe)
{
	struct uring_engine *engine = worker->engine;
	struct load_conn *conn = &worker->conns[(uint32_t) cqe->user_data];
	enum op op = (enum op)(cqe->user_data >> 32);
	uint64_t wakeups;

	engine->in_flight -= op != OP_WAKEUP;
	switch (op) {
	case OP_WAKEUP:
		if (read(worker->wake, &wakeups, sizeof wakeups) > 0 || errno == EAGAIN)
			wakeup_arm(worker);
		break;
	case OP_CONNECT:
		on_connected(worker, conn, cqe->res);
		break;
	case OP_SEND:
		on_sent(worker, conn, cqe->res);
		break;
	case OP_RECEIVE:
		on_received(worker, conn, cqe->res, cqe->flags);
		break;
	case OP_SHUTDOWN:
		break;
	}
}

static int completions_wait(struct load_worker *worker, uint64_t next)
{
	struct uring_engine *engine = worker->engine;
	struct __kernel_timespec limit;
	struct io_uring_cqe *cqe;
	struct timespec wait;
	unsigned head, count = 0;
	int r;

	if (next == NSEC_NEVER) {
		r = io_uring_submit_and_wait(&engine->ring, 1);
	} else {
		nsec_timespec(&wait, worker->now, next);
		limit = (struct __kernel_timespec) { .tv_sec = wait.tv_sec, .tv_nsec = wait.tv_nsec };
		r = io_uring_submit_and_wait_timeout(&engine->ring, &cqe, 1, &limit, NULL);
	}
	if (r < 0 && r != -ETIME && r != -EINTR && r != -EAGAIN && r != -EBUSY)
		return r;
	worker->now = nsec_now();
	io_uring_for_each_cqe(&engine->ring, head, cqe)
	{
		completion(worker, cqe);
		count++;
	}
	io_uring_cq_advance(&engine->ring, count);
	return 0;
}

/* Wait until nothing is in flight, because the kernel would write to the buffers. */
static void engine_stop(struct load_worker *worker)
{
	struct uring_engine *engine = worker->engine;
	struct io_uring_cqe *cqe;
	int r = 0;

	for (unsigned i = 0; i < worker->count; i++)
		if (worker->conns[i].fd >= 0)
			shutdown(worker->conns[i].fd, SHUT_RDWR);
	while (engine->in_flight > 0 && r >= 0) {
		r = io_uring_submit_and_wait(&engine->ring, 1);
		r = r == -EINTR ? 0 : r;
		while (io_uring_peek_cqe(&engine->ring, &cqe) == 0) {
			engine->in_flight -= cqe->user_data >> 32 != OP_WAKEUP;
			io_uring_cqe_seen(&engine->ring, cqe);
		}
	}
}

/* Open a ring with the best flags that the kernel supports. Returns 0 or -errno. */
static int engine_ring_open(struct uring_engine *engine, unsigned conns)
{
	static const unsigned flags[] = {
		IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN,
		IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_COOP_TASKRUN,
		IORING_SETUP_COOP_TASKRUN,
		0,
	};
	unsigned room = 2 * conns + 8;
	int r = -EINVAL;

	for (size_t i = 0; r == -EINVAL && i < sizeof flags / sizeof flags[0]; i++) {
		/* Entries for everything that can be in flight, so that the queue does not overflow. */
		struct io_uring_params params = {
			.flags = flags[i] | IORING_SETUP_CQSIZE | IORING_SETUP_CLAMP,
			.cq_entries = 2 * room,
		};

		r = io_uring_queue_init_params(room < SQ_ENTRIES_MAX ? room : SQ_ENTRIES_MAX, &engine->ring,
					       &params);
		engine->poll_first = (flags[i] & IORING_SETUP_SINGLE_ISSUER)
				  != 0; /* Linux 6.0; POLL_FIRST: 5.19 */
	}
	if (r == 0)
		io_uring_register_ring_fd(&engine->ring); /* optional: saves a look-up in each call */
	return r;
}

static int engine_uring_run(struct load_worker *worker)
{
	struct uring_engine engine = { .in_flight = 0 };
	int r = engine_ring_open(&engine, worker->count);

	if (r < 0)
		return r;
	/* cppcheck-suppress autoVariables ; reset below */
	worker->engine = &engine;
	engine.conns = calloc(worker->count, sizeof *engine.conns);
	engine.buffers = malloc(worker->count * worker->run->buffer);
	if (!engine.conns || !engine.buffers) {
		r = -ENOMEM;
		goto done;
	}
	wakeup_arm(worker);
	for (unsigned i = 0; i < worker->count; i++) {
		if (worker->conns[i].fd < 0)
			continue;
		fcntl(worker->conns[i].fd, F_SETFL, 0);
		conn_receive_arm(worker, &worker->conns[i]);
	}
	while (r == 0) {
		uint64_t next = load_worker_turn(worker, conn_kick);

		if (worker->phase == LOAD_PHASE_OVER)
			break;
		r = completions_wait(worker, next);
	}
	engine_stop(worker);
done:
	io_uring_queue_exit(&engine.ring);
	free(engine.conns);
	free(engine.buffers);
	worker->engine = NULL;
	return r;
}

static int engine_uring_probe(char *why, size_t size)
{
	static const int needed[] = { IORING_OP_SEND, IORING_OP_RECV, IORING_OP_CONNECT, IORING_OP_SHUTDOWN,
				      IORING_OP_POLL_ADD };
	struct io_uring ring;
	struct io_uring_probe *probe;
	int r = io_uring_queue_init(2, &ring, 0);

	if (r < 0) {
		snprintf(why, size, "%s",
			 r == -ENOSYS  ? "the kernel does not support it"
			 : r == -EPERM ? "the kernel denies it (sysctl kernel.io_uring_disabled, or a "
					 "seccomp filter)"
				       : strerror(-r));
		return r;
	}
	probe = io_uring_get_probe_ring(&ring);
	if (!probe)
		r = -EOPNOTSUPP;
	for (size_t i = 0; r == 0 && i < sizeof needed / sizeof needed[0]; i++)
		if (!io_uring_opcode_supported(probe, needed[i]))
			r = -EOPNOTSUPP;
	if (r < 0)
		snprintf(why, size, "the kernel is too old (5.11 is needed)");
	if (probe)
		io_uring_free_probe(probe);
	io_uring_queue_exit(&ring);
	return r;
}

const struct load_engine engine_uring = { .name = "io_uring",
					  .probe = engine_uring_probe,
					  .run = engine_uring_run };
