/* load_udp.c - the load engine for datagrams, on epoll(7) with recvmmsg(2) and sendmmsg(2)
 *
 * A datagram carries its number, then a piece of the pattern that is its own. Answers may come in any order,
 * twice, or not at all: one that has not come within the time-out is lost, and makes room for the next.
 */
#include <config.h>

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/compat.h"
#include "client/load/worker.h"

#define EVENTS 256
#define BATCH 64
#define NUMBER_BYTES 8
#define WAKE UINT32_MAX

struct udp_engine {
	int fd;
	size_t each;       /* stamps of one connection */
	uint64_t *sent_at; /* beside the stamps: a message may have been due long before it was sent */
	uint64_t *next;    /* per connection: the first message that was begun and not sent */
	uint64_t scan;     /* when to look for lost ones again */
	size_t room;       /* bytes of one slot of the buffers */
	uint8_t *buffers;  /* BATCH slots */
	struct iovec pieces[BATCH];
	struct mmsghdr headers[BATCH];
	struct epoll_event events[EVENTS];
};

static unsigned conn_number(const struct load_worker *worker, const struct load_conn *conn)
{
	return (unsigned) (conn - worker->conns);
}

static uint64_t *sent_at(const struct load_worker *worker, const struct load_conn *conn, uint64_t message)
{
	struct udp_engine *engine = worker->engine;

	return &engine->sent_at[conn_number(worker, conn) * engine->each + (message & conn->mask)];
}

/* The number as it travels: with the connection's mixed in, so that another one's is none of ours. */
static uint64_t number_hide(const struct load_conn *conn, uint64_t message)
{
	return message ^ ((uint64_t) conn->index + 1) * UINT64_C(0x9E3779B97F4A7C15);
}

static pattern_offset message_offset(const struct load_conn *conn, uint64_t message)
{
	return pattern_after(conn->in, message % PATTERN_PERIOD * (conn->size % PATTERN_PERIOD));
}

static void interest_set(struct load_worker *worker, struct load_conn *conn, bool out)
{
	struct udp_engine *engine = worker->engine;
	struct epoll_event event = { .events = EPOLLIN | (out ? EPOLLOUT : 0u),
				     .data.u32 = conn_number(worker, conn) };

	if (conn->send_armed != out && epoll_ctl(engine->fd, EPOLL_CTL_MOD, conn->fd, &event) == 0)
		conn->send_armed = out;
}

/* --- out ---------------------------------------------------------------------------------------------------- */

static void message_build(struct load_worker *worker, struct load_conn *conn, uint64_t message, unsigned slot)
{
	struct udp_engine *engine = worker->engine;
	uint8_t *bytes = engine->buffers + slot * engine->room;
	uint64_t number = number_hide(conn, message);

	memcpy(bytes, &number, NUMBER_BYTES);
	memcpy(bytes + NUMBER_BYTES, pattern_bytes(message_offset(conn, message)), conn->size - NUMBER_BYTES);
	engine->pieces[slot].iov_len = conn->size;
}

/* Send what is begun, one batch. Returns how many datagrams went out, 0 where no more can now. */
static unsigned messages_send(struct load_worker *worker, struct load_conn *conn)
{
	struct udp_engine *engine = worker->engine;
	uint64_t *next = &engine->next[conn_number(worker, conn)];
	unsigned count = 0;
	int n;

	for (; count < BATCH && *next + count < conn->started; count++)
		message_build(worker, conn, *next + count, count);
	if (count == 0)
		return 0;
	worker->now = nsec_now();
	n = sendmmsg(conn->fd, engine->headers, count, MSG_NOSIGNAL);
	if (n < 0) {
		/* News of a datagram before; this one has not left, and is tried again when the socket lets us. */
		if (errno != EAGAIN && errno != EINTR) {
			load_worker_fault(worker, conn, "send", errno);
			counter_add(&worker->counters.errors, 1);
		}
		return 0;
	}
	for (unsigned i = 0; i < (unsigned) n; i++)
		*sent_at(worker, conn, (*next)++) = worker->now;
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
	interest_set(worker, conn, engine->next[conn_number(worker, conn)] < conn->started);
}

/* --- in ----------------------------------------------------------------------------------------------------- */

/* Message `message` needs no more waiting for. */
static void message_over(struct load_worker *worker, struct load_conn *conn, uint64_t message)
{
	conn->stamps[message & conn->mask] = 0;
	*sent_at(worker, conn, message) = 0;
	conn->finished++;
}

static void datagram_wrong(struct load_worker *worker, struct load_conn *conn, const char *what)
{
	counter_add(&worker->counters.mismatches, 1);
	load_worker_fault(worker, conn, what, 0);
}

static void datagram_take(struct load_worker *worker, struct load_conn *conn, const uint8_t *bytes,
			  size_t length)
{
	struct udp_engine *engine = worker->engine;
	uint64_t number, message, began;

	if (length != conn->size) {
		datagram_wrong(worker, conn, "a datagram came back with another length");
		return;
	}
	memcpy(&number, bytes, NUMBER_BYTES);
	message = number_hide(conn, number); /* which also undoes it */
	if (message >= engine->next[conn_number(worker, conn)]
	    || pattern_compare(message_offset(conn, message), bytes + NUMBER_BYTES, length - NUMBER_BYTES)
		       != length - NUMBER_BYTES) {
		datagram_wrong(worker, conn, "a datagram came back different or was never sent");
		return;
	}
	began = conn->stamps[message & conn->mask];
	if (conn->started - message > conn->mask + 1 || began == 0) {
		counter_add(&worker->counters.duplicates, 1);
		return;
	}
	message_over(worker, conn, message);
	conn->received += length;
	counter_add(&worker->counters.received, length);
	if (!worker->measured || began < worker->since)
		return;
	histogram_add(worker->measured, worker->now > began ? worker->now - began : 0);
	counter_add(&worker->counters.bytes, length);
	counter_add(&worker->counters.echoes, 1);
}

static void conn_receive(struct load_worker *worker, struct load_conn *conn)
{
	struct udp_engine *engine = worker->engine;
	int n;

	for (unsigned i = 0; i < BATCH; i++)
		engine->pieces[i].iov_len = engine->room;
	n = recvmmsg(conn->fd, engine->headers, BATCH, MSG_DONTWAIT, NULL);
	if (n < 0) {
		if (errno == EAGAIN || errno == EINTR)
			return;
		load_worker_fault(worker, conn, errno == ECONNREFUSED ? "nobody listens there" : "receive",
				  errno);
		counter_add(&worker->counters.errors, 1);
		return;
	}
	worker->now = nsec_now();
	for (int i = 0; i < n; i++)
		datagram_take(worker, conn, engine->buffers + (unsigned) i * engine->room,
			      engine->headers[i].msg_len);
	if (worker->phase == LOAD_PHASE_DRAIN)
		load_worker_check_drained(worker, conn);
	conn_kick(worker, conn);
}

/* --- lost --------------------------------------------------------------------------------------------------- */

static void conn_scan(struct load_worker *worker, struct load_conn *conn, uint64_t before)
{
	struct udp_engine *engine = worker->engine;
	uint64_t *stamps = engine->sent_at + conn_number(worker, conn) * engine->each, lost = 0;

	for (size_t i = 0; i < engine->each; i++) {
		if (stamps[i] == 0 || stamps[i] > before)
			continue;
		stamps[i] = conn->stamps[i] = 0;
		conn->finished++;
		conn->granted -= conn->size;
		lost++;
	}
	if (lost == 0)
		return;
	counter_add(&worker->counters.lost, lost);
	load_worker_fault(worker, conn, "no answer to a datagram within the time-out", 0);
	load_worker_check_drained(worker, conn);
	conn_kick(worker, conn);
}

/* Look for lost ones where it is time to. Returns when it will be again. */
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

/* --- the loop ----------------------------------------------------------------------------------------------- */

static void conn_event(struct load_worker *worker, struct load_conn *conn, uint32_t events)
{
	if (events & (EPOLLIN | EPOLLERR | EPOLLHUP))
		conn_receive(worker, conn);
	if (events & EPOLLOUT)
		conn_kick(worker, conn);
}

static int engine_loop(struct load_worker *worker)
{
	struct udp_engine *engine = worker->engine;

	for (;;) {
		uint64_t next = load_worker_turn(worker, conn_kick), scan = scan_all(worker), events;
		struct timespec wait;
		int n;

		if (worker->phase == LOAD_PHASE_OVER)
			return 0;
		n = compat_epoll_wait(engine->fd, engine->events, EVENTS,
				      nsec_timespec(&wait, worker->now, next < scan ? next : scan));
		if (n < 0 && errno != EINTR)
			return -errno;
		for (int i = 0; i < n; i++) {
			if (engine->events[i].data.u32 != WAKE)
				conn_event(worker, &worker->conns[engine->events[i].data.u32],
					   engine->events[i].events);
			else if (read(worker->wake, &events, sizeof events) < 0)
				continue;
		}
	}
}

static int engine_make(struct load_worker *worker, struct udp_engine *engine)
{
	struct epoll_event event = { .events = EPOLLIN, .data.u32 = WAKE };

	worker->engine = engine;
	engine->each = load_conn_stamps_needed(worker->run->options->depth);
	engine->room = (size_t) worker->run->options->size
		     + 1; /* one byte more, so that a longer answer shows */
	engine->sent_at = calloc(worker->count * engine->each, sizeof *engine->sent_at);
	engine->next = calloc(worker->count, sizeof *engine->next);
	engine->buffers = malloc(BATCH * engine->room);
	if (!engine->sent_at || !engine->next || !engine->buffers)
		return -ENOMEM;
	for (unsigned i = 0; i < BATCH; i++) {
		engine->pieces[i].iov_base = engine->buffers + i * engine->room;
		engine->headers[i].msg_hdr.msg_iov = &engine->pieces[i];
		engine->headers[i].msg_hdr.msg_iovlen = 1;
	}
	engine->fd = epoll_create1(EPOLL_CLOEXEC);
	if (engine->fd < 0 || epoll_ctl(engine->fd, EPOLL_CTL_ADD, worker->wake, &event) < 0)
		return -errno;
	for (unsigned i = 0; i < worker->count; i++) {
		event.data.u32 = i;
		if (epoll_ctl(engine->fd, EPOLL_CTL_ADD, worker->conns[i].fd, &event) < 0)
			return -errno;
	}
	return 0;
}

static int engine_udp_run(struct load_worker *worker)
{
	struct udp_engine *engine = calloc(1, sizeof *engine);
	int r = -ENOMEM;

	if (!engine)
		return r;
	engine->fd = -1;
	r = engine_make(worker, engine);
	if (r == 0)
		r = engine_loop(worker);
	if (engine->fd >= 0)
		close(engine->fd);
	free(engine->sent_at);
	free(engine->next);
	free(engine->buffers);
	free(engine);
	return r;
}

static int udp_probe(char *why, size_t size)
{
	(void) why;
	(void) size;
	return 0;
}

const struct load_engine engine_udp = { .name = "epoll", .probe = udp_probe, .run = engine_udp_run };
