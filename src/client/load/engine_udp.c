/* SPDX-License-Identifier: ISC */
/* engine_udp.c - load engine for datagrams on epoll(7), with recvmmsg(2) and sendmmsg(2)
 *
 * A datagram contains its number and a part of the pattern of its own. Answers may come in any order,
 * twice, or not at all: a datagram that is not answered within the timeout is lost, and the next one may be
 * sent.
 */
#include <config.h>

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include "client/load/epoll_base.h"

#define BATCH 64
#define NUMBER_BYTES 8

struct udp_engine {
	struct epoll_base base;
	int mtu;          /* path MTU */
	uint64_t *next;   /* per connection: the first message that was started but not sent */
	uint64_t scan;    /* when to look for lost messages again */
	size_t slot_size; /* bytes of one slot of the buffers */
	uint8_t *buffers; /* BATCH slots */
	struct iovec pieces[BATCH];
	struct mmsghdr headers[BATCH];
};

static unsigned conn_number(const struct load_worker *worker, const struct load_conn *conn)
{
	return (unsigned) (conn - worker->conns);
}

static struct load_stamp *stamp_of(const struct load_conn *conn, uint64_t message)
{
	return &conn->stamps[message & conn->mask];
}

/* The number in the datagram, XORed with that of the connection, so that datagrams of another connection do
 * not match. Applied again it gives the message. */
static uint64_t number_encode(const struct load_conn *conn, uint64_t message)
{
	return message ^ ((uint64_t) conn->index + 1) * UINT64_C(0x9E3779B97F4A7C15);
}

static pattern_offset message_offset(const struct load_conn *conn, uint64_t message)
{
	return pattern_after(conn->in, message % PATTERN_PERIOD * (conn->size % PATTERN_PERIOD));
}

/* --- sending ------------------------------------------------------------------------------------------ */

static void message_build(struct load_worker *worker, struct load_conn *conn, uint64_t message, unsigned slot)
{
	struct udp_engine *engine = worker->engine;
	uint8_t *bytes = engine->buffers + slot * engine->slot_size;
	uint64_t number = number_encode(conn, message);

	memcpy(bytes, &number, NUMBER_BYTES);
	memcpy(bytes + NUMBER_BYTES, pattern_bytes(message_offset(conn, message)), conn->size - NUMBER_BYTES);
	engine->pieces[slot].iov_len = conn->size;
}

static void outstanding_resend(struct load_worker *worker, struct load_conn *conn)
{
	struct udp_engine *engine = worker->engine;

	for (uint64_t i = 0; i <= conn->mask; i++) {
		if (conn->stamps[i].sent == 0)
			continue;
		message_build(worker, conn, conn->stamps[i].message, 0);
		if (send(conn->fd, engine->buffers, conn->size, MSG_NOSIGNAL) < 0)
			load_worker_fault(worker, conn, "send", errno);
	}
}

/* An error of an earlier datagram of `conn` was reported. If a router has dropped it because it was
 * larger than the path MTU, the kernel knows the MTU now and fragments the following ones: send the
 * outstanding ones again, of all connections, because routers limit the rate of these messages. */
static void path_mtu_check(struct load_worker *worker, const struct load_conn *conn)
{
	struct udp_engine *engine = worker->engine;
	int mtu = target_path_mtu(conn->fd);

	if (mtu >= engine->mtu)
		return;
	engine->mtu = mtu;
	for (unsigned i = 0; i < worker->count; i++)
		outstanding_resend(worker, &worker->conns[i]);
}

/* Send one batch of the started messages. Returns the number of datagrams sent; 0 if no more can be sent
 * now. */
static unsigned messages_send(struct load_worker *worker, struct load_conn *conn)
{
	struct udp_engine *engine = worker->engine;
	uint64_t *next = &engine->next[conn_number(worker, conn)], messages[BATCH];
	unsigned count = 0;
	int n;

	for (uint64_t message = *next; count < BATCH && message < conn->started; message++) {
		/* Not a number that load_conn_start() has skipped. */
		if (stamp_of(conn, message)->message == message) {
			message_build(worker, conn, message, count);
			messages[count++] = message;
		}
	}
	if (count == 0) {
		*next = conn->started;
		return 0;
	}
	worker->now = nsec_now();
	n = sendmmsg(conn->fd, engine->headers, count, MSG_NOSIGNAL);
	if (n < 0) {
		/* An error of an earlier datagram. Nothing was sent; try again when the socket is
		 * writable. */
		if (errno == EMSGSIZE) {
			path_mtu_check(worker, conn);
		} else if (errno != EAGAIN && errno != EINTR) {
			load_worker_fault(worker, conn, "send", errno);
			counter_add(&worker->counters.errors, 1);
		}
		return 0;
	}
	for (unsigned i = 0; i < (unsigned) n && i < count; i++)
		stamp_of(conn, messages[i])->sent = worker->now;
	*next = (unsigned) n < count ? messages[n] : messages[count - 1] + 1;
	/* sendmmsg(2) does not report the error that stopped it. */
	if ((unsigned) n < count)
		path_mtu_check(worker, conn);
	conn->sent += (uint64_t) n * conn->size;
	counter_add(&worker->counters.sent, (uint64_t) n * conn->size);
	return (unsigned) n;
}

static void conn_kick(struct load_worker *worker, struct load_conn *conn)
{
	struct udp_engine *engine = worker->engine;

	if (conn->dead)
		return;
	load_worker_refill(worker, conn);
	while (messages_send(worker, conn) > 0)
		continue;
	epoll_base_watch(worker, conn, EPOLL_CTL_MOD,
			 engine->next[conn_number(worker, conn)] < conn->started);
}

/* --- receiving ---------------------------------------------------------------------------------------- */

static void datagram_wrong(struct load_worker *worker, struct load_conn *conn, const char *what)
{
	counter_add(&worker->counters.mismatches, 1);
	load_worker_fault(worker, conn, what, 0);
}

static void datagram_check(struct load_worker *worker, struct load_conn *conn, const uint8_t *bytes,
			   size_t length)
{
	struct udp_engine *engine = worker->engine;
	struct load_stamp *stamp;
	uint64_t number, message;

	if (length != conn->size) {
		datagram_wrong(worker, conn, "a datagram came back with another length");
		return;
	}
	memcpy(&number, bytes, NUMBER_BYTES);
	message = number_encode(conn, number);
	bytes += NUMBER_BYTES;
	length -= NUMBER_BYTES;
	if (message >= engine->next[conn_number(worker, conn)]
	    || pattern_compare(message_offset(conn, message), bytes, length) != length) {
		datagram_wrong(worker, conn, "a datagram came back different or was never sent");
		return;
	}
	stamp = stamp_of(conn, message);
	if (stamp->message != message || stamp->sent == 0) {
		counter_add(&worker->counters.duplicates, 1);
		return;
	}
	conn->finished++;
	conn->received += conn->size;
	load_worker_answered(worker, stamp->start, conn->size);
	*stamp = (struct load_stamp) { 0 };
}

static void conn_receive(struct load_worker *worker, struct load_conn *conn)
{
	struct udp_engine *engine = worker->engine;
	int n;

	for (unsigned i = 0; i < BATCH; i++)
		engine->pieces[i].iov_len = engine->slot_size;
	n = recvmmsg(conn->fd, engine->headers, BATCH, MSG_DONTWAIT, NULL);
	if (n < 0) {
		if (errno == EAGAIN || errno == EINTR)
			return;
		if (errno == EMSGSIZE) {
			path_mtu_check(worker, conn);
			return;
		}
		load_worker_fault(worker, conn, errno == ECONNREFUSED ? "no service on that port" : "receive",
				  errno);
		counter_add(&worker->counters.errors, 1);
		return;
	}
	worker->now = nsec_now();
	for (int i = 0; i < n; i++)
		datagram_check(worker, conn, engine->buffers + (unsigned) i * engine->slot_size,
			       engine->headers[i].msg_len);
	load_worker_check_drained(worker, conn);
	conn_kick(worker, conn);
}

static void conn_event(struct load_worker *worker, struct load_conn *conn, uint32_t events)
{
	if (events & (EPOLLIN | EPOLLERR | EPOLLHUP))
		conn_receive(worker, conn);
	if (events & EPOLLOUT)
		conn_kick(worker, conn);
}

/* --- lost datagrams ----------------------------------------------------------------------------------- */

/* Give up the messages of `conn` that were sent before `limit`. */
static void conn_scan(struct load_worker *worker, struct load_conn *conn, uint64_t limit)
{
	uint64_t lost = 0;

	for (uint64_t i = 0; i <= conn->mask; i++) {
		struct load_stamp *stamp = &conn->stamps[i];

		if (stamp->sent == 0 || stamp->sent > limit)
			continue;
		*stamp = (struct load_stamp) { 0 };
		conn->finished++;
		conn->granted -= conn->size;
		lost++;
	}
	if (lost == 0)
		return;
	counter_add(&worker->counters.lost, lost);
	load_worker_fault(worker, conn, "no answer to a datagram within the timeout", 0);
	load_worker_check_drained(worker, conn);
	conn_kick(worker, conn);
}

static uint64_t scan_all(struct load_worker *worker)
{
	struct udp_engine *engine = worker->engine;
	uint64_t timeout = worker->run->options->timeout;

	if (timeout == NSEC_NEVER)
		return NSEC_NEVER;
	if (worker->now < engine->scan)
		return engine->scan;
	engine->scan = worker->now + timeout / 4 + 1;
	for (unsigned i = 0; worker->now > timeout && i < worker->count; i++)
		conn_scan(worker, &worker->conns[i], worker->now - timeout);
	return engine->scan;
}

/* --- the engine --------------------------------------------------------------------------------------- */

static int engine_allocate(struct load_worker *worker, struct udp_engine *engine)
{
	engine->slot_size = (size_t) worker->run->options->size
			  + 1; /* one more byte, to recognise longer answers */
	engine->next = calloc(worker->count, sizeof *engine->next);
	engine->buffers = malloc(BATCH * engine->slot_size);
	if (!engine->next || !engine->buffers)
		return -ENOMEM;
	engine->mtu = target_path_mtu(worker->conns[0].fd);
	for (unsigned i = 0; i < BATCH; i++) {
		engine->pieces[i].iov_base = engine->buffers + i * engine->slot_size;
		engine->headers[i].msg_hdr.msg_iov = &engine->pieces[i];
		engine->headers[i].msg_hdr.msg_iovlen = 1;
	}
	return 0;
}

static int engine_udp_run(struct load_worker *worker)
{
	struct udp_engine engine = {
		.base = { .fd = -1, .kick = conn_kick, .event = conn_event, .timer = scan_all }
	};
	int r = engine_allocate(worker, &engine);

	/* cppcheck-suppress autoVariables ; reset below */
	worker->engine = &engine;
	if (r == 0)
		r = epoll_base_run(worker, &engine.base);
	free(engine.next);
	free(engine.buffers);
	worker->engine = NULL;
	return r;
}

const struct load_engine engine_udp = { .name = "epoll", .run = engine_udp_run };
