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

#include "client/load/worker.h"

#define EVENTS 256
#define BATCH 64
#define NUMBER_BYTES 8
#define WAKE UINT32_MAX

struct udp_engine {
	int fd;
	size_t each;          /* stamps of one flow */
	uint64_t *sent_at;    /* beside the stamps: a message may have been due long before it was sent */
	uint64_t *next;       /* per flow: the first message that was begun and not sent */
	uint64_t scan;        /* when to look for lost ones again */
	size_t room;          /* bytes of one slot of the buffers */
	uint8_t *buffers;     /* BATCH slots */
	struct iovec pieces[BATCH];
	struct mmsghdr headers[BATCH];
	struct epoll_event events[EVENTS];
};

static unsigned flow_number(const struct worker *worker, const struct flow *flow)
{
	return (unsigned) (flow - worker->flows);
}

static uint64_t *sent_at(const struct worker *worker, const struct flow *flow, uint64_t message)
{
	struct udp_engine *engine = worker->engine;

	return &engine->sent_at[flow_number(worker, flow) * engine->each + (message & flow->mask)];
}

/* The number as it travels: with the connection's mixed in, so that another one's is none of ours. */
static uint64_t number_hide(const struct flow *flow, uint64_t message)
{
	return message ^ ((uint64_t) flow->index + 1) * UINT64_C(0x9E3779B97F4A7C15);
}

static pattern_place message_place(const struct flow *flow, uint64_t message)
{
	return pattern_after(flow->in, message % PATTERN_PERIOD * (flow->size % PATTERN_PERIOD));
}

static void interest_set(struct worker *worker, struct flow *flow, bool out)
{
	struct udp_engine *engine = worker->engine;
	struct epoll_event event = { .events = EPOLLIN | (out ? EPOLLOUT : 0u), .data.u32 = flow_number(worker, flow) };

	if (flow->armed != out && epoll_ctl(engine->fd, EPOLL_CTL_MOD, flow->fd, &event) == 0)
		flow->armed = out;
}

/* --- out ---------------------------------------------------------------------------------------------------- */

static void message_build(struct worker *worker, struct flow *flow, uint64_t message, unsigned slot)
{
	struct udp_engine *engine = worker->engine;
	uint8_t *bytes = engine->buffers + slot * engine->room;
	uint64_t number = number_hide(flow, message);

	memcpy(bytes, &number, NUMBER_BYTES);
	memcpy(bytes + NUMBER_BYTES, pattern_bytes(message_place(flow, message)), flow->size - NUMBER_BYTES);
	engine->pieces[slot].iov_len = flow->size;
}

/* Send what is begun, one batch. Returns how many datagrams went out, 0 where no more can now. */
static unsigned batch_send(struct worker *worker, struct flow *flow)
{
	struct udp_engine *engine = worker->engine;
	uint64_t *next = &engine->next[flow_number(worker, flow)];
	unsigned count = 0;
	int n;

	for (; count < BATCH && *next + count < flow->started; count++)
		message_build(worker, flow, *next + count, count);
	if (count == 0)
		return 0;
	worker->now = ticks_now();
	n = sendmmsg(flow->fd, engine->headers, count, MSG_NOSIGNAL);
	if (n < 0) {
		/* News of a datagram before; this one has not left, and is tried again when the socket lets us. */
		if (errno != EAGAIN && errno != EINTR) {
			worker_fault(worker, flow, "send", errno);
			tally_add(&worker->tally.errors, 1);
		}
		return 0;
	}
	for (unsigned i = 0; i < (unsigned) n; i++)
		*sent_at(worker, flow, (*next)++) = worker->now;
	flow->sent += (uint64_t) n * flow->size;
	tally_add(&worker->tally.sent, (uint64_t) n * flow->size);
	return (unsigned) n;
}

static void flow_push(struct worker *worker, struct flow *flow)
{
	struct udp_engine *engine = worker->engine;

	if (flow->dead)
		return;
	worker_refill(worker, flow);
	while (batch_send(worker, flow) > 0)
		continue;
	interest_set(worker, flow, engine->next[flow_number(worker, flow)] < flow->started);
}

/* --- in ----------------------------------------------------------------------------------------------------- */

/* Message `message` needs no more waiting for. */
static void message_over(struct worker *worker, struct flow *flow, uint64_t message)
{
	flow->stamps[message & flow->mask] = 0;
	*sent_at(worker, flow, message) = 0;
	flow->finished++;
}

static void datagram_wrong(struct worker *worker, struct flow *flow, const char *what)
{
	tally_add(&worker->tally.mismatches, 1);
	worker_fault(worker, flow, what, 0);
}

static void datagram_take(struct worker *worker, struct flow *flow, const uint8_t *bytes, size_t length)
{
	struct udp_engine *engine = worker->engine;
	uint64_t number, message, began;

	if (length != flow->size) {
		datagram_wrong(worker, flow, "a datagram came back with another length");
		return;
	}
	memcpy(&number, bytes, NUMBER_BYTES);
	message = number_hide(flow, number); /* which also undoes it */
	if (message >= engine->next[flow_number(worker, flow)]
	    || pattern_compare(message_place(flow, message), bytes + NUMBER_BYTES, length - NUMBER_BYTES) != length - NUMBER_BYTES) {
		datagram_wrong(worker, flow, "a datagram came back different or was never sent");
		return;
	}
	began = flow->stamps[message & flow->mask];
	if (flow->started - message > flow->mask + 1 || began == 0) {
		tally_add(&worker->tally.duplicates, 1);
		return;
	}
	message_over(worker, flow, message);
	flow->received += length;
	tally_add(&worker->tally.received, length);
	if (worker->measured == NULL || began < worker->since)
		return;
	histogram_add(worker->measured, worker->now > began ? worker->now - began : 0);
	tally_add(&worker->tally.bytes, length);
	tally_add(&worker->tally.echoes, 1);
}

static void flow_receive(struct worker *worker, struct flow *flow)
{
	struct udp_engine *engine = worker->engine;
	int n;

	for (unsigned i = 0; i < BATCH; i++)
		engine->pieces[i].iov_len = engine->room;
	n = recvmmsg(flow->fd, engine->headers, BATCH, MSG_DONTWAIT, NULL);
	if (n < 0) {
		if (errno == EAGAIN || errno == EINTR)
			return;
		worker_fault(worker, flow, errno == ECONNREFUSED ? "nobody listens there" : "receive", errno);
		tally_add(&worker->tally.errors, 1);
		return;
	}
	worker->now = ticks_now();
	for (int i = 0; i < n; i++)
		datagram_take(worker, flow, engine->buffers + (unsigned) i * engine->room, engine->headers[i].msg_len);
	if (worker->phase == PHASE_DRAIN)
		worker_settle(worker, flow);
	flow_push(worker, flow);
}

/* --- lost --------------------------------------------------------------------------------------------------- */

static void flow_scan(struct worker *worker, struct flow *flow, uint64_t before)
{
	struct udp_engine *engine = worker->engine;
	uint64_t *stamps = engine->sent_at + flow_number(worker, flow) * engine->each, lost = 0;

	for (size_t i = 0; i < engine->each; i++) {
		if (stamps[i] == 0 || stamps[i] > before)
			continue;
		stamps[i] = flow->stamps[i] = 0;
		flow->finished++;
		flow->granted -= flow->size;
		lost++;
	}
	if (lost == 0)
		return;
	tally_add(&worker->tally.lost, lost);
	worker_fault(worker, flow, "no answer to a datagram within the time-out", 0);
	worker_settle(worker, flow);
	flow_push(worker, flow);
}

/* Look for lost ones where it is time to. Returns when it will be again. */
static uint64_t scan_all(struct worker *worker)
{
	struct udp_engine *engine = worker->engine;
	uint64_t timeout = worker->run->options->timeout;

	if (timeout == TICKS_NEVER)
		return TICKS_NEVER;
	if (worker->now < engine->scan)
		return engine->scan;
	engine->scan = worker->now + timeout / 4 + 1;
	for (unsigned i = 0; worker->now > timeout && i < worker->count; i++)
		flow_scan(worker, &worker->flows[i], worker->now - timeout);
	return engine->scan;
}

/* --- the loop ----------------------------------------------------------------------------------------------- */

static void flow_event(struct worker *worker, struct flow *flow, uint32_t events)
{
	if (events & (EPOLLIN | EPOLLERR | EPOLLHUP))
		flow_receive(worker, flow);
	if (events & EPOLLOUT)
		flow_push(worker, flow);
}

static int engine_loop(struct worker *worker)
{
	struct udp_engine *engine = worker->engine;

	for (;;) {
		uint64_t next = worker_turn(worker, flow_push), scan = scan_all(worker), news;
		struct timespec wait;
		int n;

		if (worker->phase == PHASE_OVER)
			return 0;
		n = epoll_pwait2(engine->fd, engine->events, EVENTS, ticks_wait(&wait, worker->now, next < scan ? next : scan), NULL);
		if (n < 0 && errno != EINTR)
			return -errno;
		for (int i = 0; i < n; i++) {
			if (engine->events[i].data.u32 != WAKE)
				flow_event(worker, &worker->flows[engine->events[i].data.u32], engine->events[i].events);
			else if (read(worker->wake, &news, sizeof(news)) < 0)
				continue;
		}
	}
}

static int engine_make(struct worker *worker, struct udp_engine *engine)
{
	struct epoll_event event = { .events = EPOLLIN, .data.u32 = WAKE };

	worker->engine = engine;
	engine->each = flow_stamps_needed(worker->run->options->depth);
	engine->room = (size_t) worker->run->options->size + 1; /* one byte more, so that a longer answer shows */
	engine->sent_at = calloc(worker->count * engine->each, sizeof(*engine->sent_at));
	engine->next = calloc(worker->count, sizeof(*engine->next));
	engine->buffers = malloc(BATCH * engine->room);
	if (engine->sent_at == NULL || engine->next == NULL || engine->buffers == NULL)
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
		if (epoll_ctl(engine->fd, EPOLL_CTL_ADD, worker->flows[i].fd, &event) < 0)
			return -errno;
	}
	return 0;
}

static int udp_run(struct worker *worker)
{
	struct udp_engine *engine = calloc(1, sizeof(*engine));
	int r = -ENOMEM;

	if (engine == NULL)
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

const struct engine engine_udp = { .name = "epoll", .probe = udp_probe, .run = udp_run };
