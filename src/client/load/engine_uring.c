/* load_uring.c - the load engine on io_uring(7): at most one send and one receive in flight on a connection
 *
 * A descriptor is closed only when nothing is in flight on it, so no completion ever meets the connection's next
 * connection. All that a turn wants is handed over in the one call that also waits.
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

#define SQ_MOST 8192u

enum op { OP_WAKE, OP_CONNECT, OP_SEND, OP_RECEIVE, OP_NONE };

/* What the engine knows of a connection besides. */
struct uring_conn {
	const uint8_t *rest; /* being sent, and how much */
	size_t rest_length;
	bool failing; /* to be closed once nothing is in flight */
	bool more;    /* the last receive left something in the socket */
};

struct uring_engine {
	struct io_uring ring;
	struct uring_conn *conns;
	uint8_t *buffers; /* one slot of run->buffer bytes a connection */
	unsigned flying;  /* operations in flight, the wake-up's apart */
	bool poll_first;  /* the kernel knows IORING_RECVSEND_POLL_FIRST */
};

static void conn_kick(struct load_worker *worker, struct load_conn *conn);

static struct io_uring_sqe *sqe_get(struct load_worker *worker, enum op op)
{
	struct uring_engine *engine = worker->engine;
	struct io_uring_sqe *sqe = io_uring_get_sqe(&engine->ring);

	while (!sqe) {
		io_uring_submit(&engine->ring);
		/* Some may have completed inside: what is handled from now on is not older than now. */
		worker->now = nsec_now();
		sqe = io_uring_get_sqe(&engine->ring);
	}
	engine->flying += op != OP_WAKE;
	return sqe;
}

static void tag(const struct load_worker *worker, struct io_uring_sqe *sqe, enum op op,
		const struct load_conn *conn)
{
	io_uring_sqe_set_data64(sqe, (uint64_t) op << 32 | (conn ? (uint32_t) (conn - worker->conns) : 0));
}

static void wake_arm(struct load_worker *worker)
{
	struct io_uring_sqe *sqe = sqe_get(worker, OP_WAKE);

	io_uring_prep_poll_add(sqe, worker->wake, POLLIN);
	tag(worker, sqe, OP_WAKE, NULL);
}

static struct uring_conn *own(const struct load_worker *worker, const struct load_conn *conn)
{
	struct uring_engine *engine = worker->engine;

	return &engine->conns[conn - worker->conns];
}

/* Nothing is in flight any more on a connection that is to go. */
static void conn_release(struct load_worker *worker, struct load_conn *conn)
{
	struct uring_conn *mine = own(worker, conn);

	close(conn->fd);
	conn->fd = -1;
	mine->failing = false;
	load_worker_lost(worker, conn, NULL, 0);
}

static void conn_fail(struct load_worker *worker, struct load_conn *conn, const char *what, int error)
{
	struct uring_conn *mine = own(worker, conn);

	if (mine->failing)
		return;
	mine->failing = true;
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
	struct uring_conn *mine = own(worker, conn);
	struct io_uring_sqe *sqe = sqe_get(worker, OP_SEND);

	/* With MSG_WAITALL the kernel goes on after a short send by itself; where it is too old to, we do. */
	io_uring_prep_send(sqe, conn->fd, mine->rest, mine->rest_length, MSG_NOSIGNAL | MSG_WAITALL);
	tag(worker, sqe, OP_SEND, conn);
	conn->send_armed = true;
}

static void conn_send(struct load_worker *worker, struct load_conn *conn)
{
	struct uring_conn *mine = own(worker, conn);

	mine->rest = load_conn_out(conn, PATTERN_RUN, &mine->rest_length);
	if (mine->rest_length == 0)
		return;
	load_worker_sent(worker, conn, mine->rest_length);
	send_submit(worker, conn);
}

static void conn_receive_arm(struct load_worker *worker, struct load_conn *conn)
{
	struct uring_engine *engine = worker->engine;
	struct uring_conn *mine = own(worker, conn);
	struct io_uring_sqe *sqe = sqe_get(worker, OP_RECEIVE);
	size_t size = worker->run->buffer;

	io_uring_prep_recv(sqe, conn->fd, engine->buffers + (size_t) (conn - worker->conns) * size, size, 0);
	/* An answer cannot be there before the question has left: do not look in vain. */
	if (engine->poll_first && conn->depth != 0 && !mine->more)
		sqe->ioprio |= IORING_RECVSEND_POLL_FIRST;
	tag(worker, sqe, OP_RECEIVE, conn);
	conn->recv_armed = true;
}

/* Connect mode: a connection for the one message that is begun. */
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
	/* On a non-blocking one io_uring would say EAGAIN instead of waiting. */
	fcntl(fd, F_SETFL, 0);
	conn->fd = fd;
	conn->state = LOAD_CONN_CONNECTING;
	conn->send_armed = true;
	sqe = sqe_get(worker, OP_CONNECT);
	io_uring_prep_connect(sqe, fd, &run->to.sa, run->to.len);
	tag(worker, sqe, OP_CONNECT, conn);
}

static void conn_kick(struct load_worker *worker, struct load_conn *conn)
{
	if (conn->dead || own(worker, conn)->failing)
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
	struct uring_conn *mine = own(worker, conn);

	conn->send_armed = false;
	if (mine->failing) {
		if (!conn->recv_armed)
			conn_release(worker, conn);
	} else if (result < 0) {
		conn_fail(worker, conn, "send", -result);
	} else if ((size_t) result < mine->rest_length) {
		mine->rest += result;
		mine->rest_length -= (size_t) result;
		send_submit(worker, conn);
	} else if (conn->granted > conn->sent) {
		conn_send(worker, conn);
	}
}

/* Connect mode: all came back, so say the end, and await the server's. */
static void conn_finish(struct load_worker *worker, struct load_conn *conn)
{
	struct io_uring_sqe *sqe = sqe_get(worker, OP_NONE);

	conn->state = LOAD_CONN_CLOSING;
	io_uring_prep_shutdown(sqe, conn->fd, SHUT_WR);
	tag(worker, sqe, OP_NONE, conn);
	conn_receive_arm(worker, conn);
}

static void on_end_of_file(struct load_worker *worker, struct load_conn *conn)
{
	if (conn->state != LOAD_CONN_CLOSING) {
		conn_fail(worker, conn, "the server closed it", 0);
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
	struct uring_conn *mine = own(worker, conn);

	conn->recv_armed = false;
	if (mine->failing) {
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
	mine->more = (flags & IORING_CQE_F_SOCK_NONEMPTY) != 0;
	if (worker->phase == LOAD_PHASE_DRAIN)
		load_worker_check_drained(worker, conn);
	/* The send's completion may still be on its way though its bytes are back. */
	if (worker->run->options->mode == LOAD_CONNECT && conn->granted == conn->received) {
		conn_finish(worker, conn);
		return;
	}
	conn_kick(worker, conn);
	if (!mine->failing && conn->state == LOAD_CONN_OPEN)
		conn_receive_arm(worker, conn);
}

static void completion(struct load_worker *worker, const struct io_uring_cqe *cqe)
{
	struct uring_engine *engine = worker->engine;
	struct load_conn *conn = &worker->conns[(uint32_t) cqe->user_data];
	enum op op = (enum op)(cqe->user_data >> 32);
	uint64_t events;

	engine->flying -= op != OP_WAKE;
	switch (op) {
	case OP_WAKE:
		if (read(worker->wake, &events, sizeof events) > 0 || errno == EAGAIN)
			wake_arm(worker);
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
	case OP_NONE:
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
		limit = (struct __kernel_timespec){ .tv_sec = wait.tv_sec, .tv_nsec = wait.tv_nsec };
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

/* The kernel still writes to our buffers while something is in flight: end it all first. */
static void engine_settle(struct load_worker *worker)
{
	struct uring_engine *engine = worker->engine;
	struct io_uring_cqe *cqe;
	int r = 0;

	for (unsigned i = 0; i < worker->count; i++)
		if (worker->conns[i].fd >= 0)
			shutdown(worker->conns[i].fd, SHUT_RDWR);
	while (engine->flying > 0 && r >= 0) {
		r = io_uring_submit_and_wait(&engine->ring, 1);
		r = r == -EINTR ? 0 : r;
		while (io_uring_peek_cqe(&engine->ring, &cqe) == 0) {
			engine->flying -= cqe->user_data >> 32 != OP_WAKE;
			io_uring_cqe_seen(&engine->ring, cqe);
		}
	}
}

/* The best this kernel has. Returns 0 or -errno. */
static int ring_make(struct uring_engine *engine, unsigned conns)
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
		/* A completion for all that can be in flight: the queue never overflows. */
		struct io_uring_params params = {
			.flags = flags[i] | IORING_SETUP_CQSIZE | IORING_SETUP_CLAMP,
			.cq_entries = 2 * room,
		};

		r = io_uring_queue_init_params(room < SQ_MOST ? room : SQ_MOST, &engine->ring, &params);
		engine->poll_first = (flags[i] & IORING_SETUP_SINGLE_ISSUER) != 0; /* 6.0; that is 5.19 */
	}
	if (r == 0)
		io_uring_register_ring_fd(&engine->ring); /* saves a look-up a call, where it can be */
	return r;
}

static int engine_uring_run(struct load_worker *worker)
{
	struct uring_engine engine = { .flying = 0 };
	int r = ring_make(&engine, worker->count);

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
	wake_arm(worker);
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
	engine_settle(worker);
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
			 r == -ENOSYS  ? "this kernel has none"
			 : r == -EPERM ? "the kernel refuses it here (sysctl kernel.io_uring_disabled, or a "
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
		snprintf(why, size, "this kernel's is too old (5.11 is needed)");
	if (probe)
		io_uring_free_probe(probe);
	io_uring_queue_exit(&ring);
	return r;
}

const struct load_engine engine_uring = { .name = "io_uring",
					  .probe = engine_uring_probe,
					  .run = engine_uring_run };
