/* load_uring.c - the load engine on io_uring(7): at most one send and one receive in flight on a connection
 *
 * A descriptor is closed only when nothing is in flight on it, so no completion ever meets the flow's next
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

/* What the engine knows of a flow besides. */
struct uring_flow {
	const uint8_t *rest; /* being sent, and how much */
	size_t rest_length;
	bool failing;        /* to be closed once nothing is in flight */
	bool more;           /* the last receive left something in the socket */
};

struct uring_engine {
	struct io_uring ring;
	struct uring_flow *flows;
	uint8_t *buffers; /* one slot of run->buffer bytes a flow */
	unsigned flying;  /* operations in flight, the wake-up's apart */
	bool poll_first;  /* the kernel knows IORING_RECVSEND_POLL_FIRST */
};

static void flow_push(struct worker *worker, struct flow *flow);

static struct io_uring_sqe *sqe_get(struct worker *worker, enum op op)
{
	struct uring_engine *engine = worker->engine;
	struct io_uring_sqe *sqe = io_uring_get_sqe(&engine->ring);

	while (sqe == NULL) {
		io_uring_submit(&engine->ring);
		/* Some may have completed inside: what is handled from now on is not older than now. */
		worker->now = ticks_now();
		sqe = io_uring_get_sqe(&engine->ring);
	}
	engine->flying += op != OP_WAKE;
	return sqe;
}

static void tag(const struct worker *worker, struct io_uring_sqe *sqe, enum op op, const struct flow *flow)
{
	io_uring_sqe_set_data64(sqe, (uint64_t) op << 32 | (flow != NULL ? (uint32_t) (flow - worker->flows) : 0));
}

static void wake_arm(struct worker *worker)
{
	struct io_uring_sqe *sqe = sqe_get(worker, OP_WAKE);

	io_uring_prep_poll_add(sqe, worker->wake, POLLIN);
	tag(worker, sqe, OP_WAKE, NULL);
}

static struct uring_flow *own(const struct worker *worker, const struct flow *flow)
{
	struct uring_engine *engine = worker->engine;

	return &engine->flows[flow - worker->flows];
}

/* Nothing is in flight any more on a flow that is to go. */
static void flow_bury(struct worker *worker, struct flow *flow)
{
	struct uring_flow *mine = own(worker, flow);

	close(flow->fd);
	flow->fd = -1;
	mine->failing = false;
	worker_lost(worker, flow, NULL, 0);
}

static void flow_fail(struct worker *worker, struct flow *flow, const char *what, int error)
{
	struct uring_flow *mine = own(worker, flow);

	if (mine->failing)
		return;
	mine->failing = true;
	if (what != NULL) {
		worker_fault(worker, flow, what, error);
		tally_add(&worker->tally.errors, 1);
	}
	if (flow->armed || flow->heard)
		shutdown(flow->fd, SHUT_RDWR);
	else
		flow_bury(worker, flow);
}

static void send_submit(struct worker *worker, struct flow *flow)
{
	struct uring_flow *mine = own(worker, flow);
	struct io_uring_sqe *sqe = sqe_get(worker, OP_SEND);

	/* With MSG_WAITALL the kernel goes on after a short send by itself; where it is too old to, we do. */
	io_uring_prep_send(sqe, flow->fd, mine->rest, mine->rest_length, MSG_NOSIGNAL | MSG_WAITALL);
	tag(worker, sqe, OP_SEND, flow);
	flow->armed = true;
}

static void flow_send(struct worker *worker, struct flow *flow)
{
	struct uring_flow *mine = own(worker, flow);

	mine->rest = flow_out(flow, PATTERN_RUN, &mine->rest_length);
	if (mine->rest_length == 0)
		return;
	worker_sent(worker, flow, mine->rest_length);
	send_submit(worker, flow);
}

static void flow_listen(struct worker *worker, struct flow *flow)
{
	struct uring_engine *engine = worker->engine;
	struct uring_flow *mine = own(worker, flow);
	struct io_uring_sqe *sqe = sqe_get(worker, OP_RECEIVE);
	size_t size = worker->run->buffer;

	io_uring_prep_recv(sqe, flow->fd, engine->buffers + (size_t) (flow - worker->flows) * size, size, 0);
	/* An answer cannot be there before the question has left: do not look in vain. */
	if (engine->poll_first && flow->depth != 0 && !mine->more)
		sqe->ioprio |= IORING_RECVSEND_POLL_FIRST;
	tag(worker, sqe, OP_RECEIVE, flow);
	flow->heard = true;
}

/* Connect mode: a connection for the one message that is begun. */
static void flow_connect(struct worker *worker, struct flow *flow)
{
	const struct run *run = worker->run;
	const char *what = "connect";
	int fd = target_socket(&run->options->wish, &run->to, &what);
	struct io_uring_sqe *sqe;

	if (fd < 0) {
		worker_lost(worker, flow, what, -fd);
		return;
	}
	/* On a non-blocking one io_uring would say EAGAIN instead of waiting. */
	fcntl(fd, F_SETFL, 0);
	flow->fd = fd;
	flow->state = FLOW_CONNECTING;
	flow->armed = true;
	sqe = sqe_get(worker, OP_CONNECT);
	io_uring_prep_connect(sqe, fd, &run->to.sa, run->to.len);
	tag(worker, sqe, OP_CONNECT, flow);
}

static void flow_push(struct worker *worker, struct flow *flow)
{
	if (flow->dead || own(worker, flow)->failing)
		return;
	worker_refill(worker, flow);
	if (flow->state == FLOW_OPEN && !flow->armed)
		flow_send(worker, flow);
	else if (flow->state == FLOW_CLOSED && flow->granted > flow->sent)
		flow_connect(worker, flow);
}

static void on_connected(struct worker *worker, struct flow *flow, int result)
{
	flow->armed = false;
	if (result < 0) {
		flow_fail(worker, flow, "connect", -result);
		return;
	}
	tally_add(&worker->tally.connections, 1);
	flow->state = FLOW_OPEN;
	flow_send(worker, flow);
	flow_listen(worker, flow);
}

static void on_sent(struct worker *worker, struct flow *flow, int result)
{
	struct uring_flow *mine = own(worker, flow);

	flow->armed = false;
	if (mine->failing) {
		if (!flow->heard)
			flow_bury(worker, flow);
	} else if (result < 0) {
		flow_fail(worker, flow, "send", -result);
	} else if ((size_t) result < mine->rest_length) {
		mine->rest += result;
		mine->rest_length -= (size_t) result;
		send_submit(worker, flow);
	} else if (flow->granted > flow->sent) {
		flow_send(worker, flow);
	}
}

/* Connect mode: all came back, so say the end, and await the server's. */
static void flow_end(struct worker *worker, struct flow *flow)
{
	struct io_uring_sqe *sqe = sqe_get(worker, OP_NONE);

	flow->state = FLOW_CLOSING;
	io_uring_prep_shutdown(sqe, flow->fd, SHUT_WR);
	tag(worker, sqe, OP_NONE, flow);
	flow_listen(worker, flow);
}

static void on_end_of_file(struct worker *worker, struct flow *flow)
{
	if (flow->state != FLOW_CLOSING) {
		flow_fail(worker, flow, "the server closed it", 0);
		return;
	}
	close(flow->fd);
	flow->fd = -1;
	flow->state = FLOW_CLOSED;
	flow_push(worker, flow);
}

static void on_received(struct worker *worker, struct flow *flow, int result, unsigned flags)
{
	struct uring_engine *engine = worker->engine;
	struct uring_flow *mine = own(worker, flow);

	flow->heard = false;
	if (mine->failing) {
		if (!flow->armed)
			flow_bury(worker, flow);
		return;
	}
	if (result == 0) {
		on_end_of_file(worker, flow);
		return;
	}
	if (result < 0) {
		flow_fail(worker, flow, "receive", -result);
		return;
	}
	if (worker_received(worker, flow, engine->buffers + (size_t) (flow - worker->flows) * worker->run->buffer,
			    (size_t) result) < 0) {
		flow_fail(worker, flow, NULL, 0);
		return;
	}
	mine->more = (flags & IORING_CQE_F_SOCK_NONEMPTY) != 0;
	if (worker->phase == PHASE_DRAIN)
		worker_settle(worker, flow);
	/* The send's completion may still be on its way though its bytes are back. */
	if (worker->run->options->mode == LOAD_CONNECT && flow->granted == flow->received) {
		flow_end(worker, flow);
		return;
	}
	flow_push(worker, flow);
	if (!mine->failing && flow->state == FLOW_OPEN)
		flow_listen(worker, flow);
}

static void completion(struct worker *worker, const struct io_uring_cqe *cqe)
{
	struct uring_engine *engine = worker->engine;
	struct flow *flow = &worker->flows[(uint32_t) cqe->user_data];
	enum op op = (enum op) (cqe->user_data >> 32);
	uint64_t news;

	engine->flying -= op != OP_WAKE;
	switch (op) {
	case OP_WAKE:
		if (read(worker->wake, &news, sizeof(news)) > 0 || errno == EAGAIN)
			wake_arm(worker);
		break;
	case OP_CONNECT:
		on_connected(worker, flow, cqe->res);
		break;
	case OP_SEND:
		on_sent(worker, flow, cqe->res);
		break;
	case OP_RECEIVE:
		on_received(worker, flow, cqe->res, cqe->flags);
		break;
	case OP_NONE:
		break;
	}
}

static int completions_wait(struct worker *worker, uint64_t next)
{
	struct uring_engine *engine = worker->engine;
	struct __kernel_timespec limit;
	struct io_uring_cqe *cqe;
	struct timespec wait;
	unsigned head, count = 0;
	int r;

	if (next == TICKS_NEVER) {
		r = io_uring_submit_and_wait(&engine->ring, 1);
	} else {
		ticks_wait(&wait, worker->now, next);
		limit = (struct __kernel_timespec) { .tv_sec = wait.tv_sec, .tv_nsec = wait.tv_nsec };
		r = io_uring_submit_and_wait_timeout(&engine->ring, &cqe, 1, &limit, NULL);
	}
	if (r < 0 && r != -ETIME && r != -EINTR && r != -EAGAIN && r != -EBUSY)
		return r;
	worker->now = ticks_now();
	io_uring_for_each_cqe(&engine->ring, head, cqe) {
		completion(worker, cqe);
		count++;
	}
	io_uring_cq_advance(&engine->ring, count);
	return 0;
}

/* The kernel still writes to our buffers while something is in flight: end it all first. */
static void engine_settle(struct worker *worker)
{
	struct uring_engine *engine = worker->engine;
	struct io_uring_cqe *cqe;
	int r = 0;

	for (unsigned i = 0; i < worker->count; i++)
		if (worker->flows[i].fd >= 0)
			shutdown(worker->flows[i].fd, SHUT_RDWR);
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
static int ring_make(struct uring_engine *engine, unsigned flows)
{
	static const unsigned flags[] = {
		IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN,
		IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_COOP_TASKRUN,
		IORING_SETUP_COOP_TASKRUN,
		0,
	};
	unsigned room = 2 * flows + 8;
	int r = -EINVAL;

	for (size_t i = 0; r == -EINVAL && i < sizeof(flags) / sizeof(flags[0]); i++) {
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

static int uring_run(struct worker *worker)
{
	struct uring_engine engine = { .flying = 0 };
	int r = ring_make(&engine, worker->count);

	if (r < 0)
		return r;
	/* cppcheck-suppress autoVariables ; reset below */
	worker->engine = &engine;
	engine.flows = calloc(worker->count, sizeof(*engine.flows));
	engine.buffers = malloc(worker->count * worker->run->buffer);
	if (engine.flows == NULL || engine.buffers == NULL) {
		r = -ENOMEM;
		goto done;
	}
	wake_arm(worker);
	for (unsigned i = 0; i < worker->count; i++) {
		if (worker->flows[i].fd < 0)
			continue;
		fcntl(worker->flows[i].fd, F_SETFL, 0);
		flow_listen(worker, &worker->flows[i]);
	}
	while (r == 0) {
		uint64_t next = worker_turn(worker, flow_push);

		if (worker->phase == PHASE_OVER)
			break;
		r = completions_wait(worker, next);
	}
	engine_settle(worker);
done:
	io_uring_queue_exit(&engine.ring);
	free(engine.flows);
	free(engine.buffers);
	worker->engine = NULL;
	return r;
}

static int uring_probe(char *why, size_t size)
{
	static const int needed[] = { IORING_OP_SEND, IORING_OP_RECV, IORING_OP_CONNECT, IORING_OP_SHUTDOWN, IORING_OP_POLL_ADD };
	struct io_uring ring;
	struct io_uring_probe *probe;
	int r = io_uring_queue_init(2, &ring, 0);

	if (r < 0) {
		snprintf(why, size, "%s",
			 r == -ENOSYS  ? "this kernel has none"
			 : r == -EPERM ? "the kernel refuses it here (sysctl kernel.io_uring_disabled, or a seccomp filter)"
				       : strerror(-r));
		return r;
	}
	probe = io_uring_get_probe_ring(&ring);
	if (probe == NULL)
		r = -EOPNOTSUPP;
	for (size_t i = 0; r == 0 && i < sizeof(needed) / sizeof(needed[0]); i++)
		if (!io_uring_opcode_supported(probe, needed[i]))
			r = -EOPNOTSUPP;
	if (r < 0)
		snprintf(why, size, "this kernel's is too old (5.11 is needed)");
	if (probe != NULL)
		io_uring_free_probe(probe);
	io_uring_queue_exit(&ring);
	return r;
}

const struct engine engine_uring = { .name = "io_uring", .probe = uring_probe, .run = uring_run };
