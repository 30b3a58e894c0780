/* SPDX-License-Identifier: ISC */
/* stream.c - connections: the socket of the daemon, the network, and the client: see sim.h
 *
 * No byte of payload is stored: the byte at a position of a connection follows from its key, so a receive
 * makes the bytes and a send compares them.
 */
#include <config.h>

#include "sim.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

/* Period of the bytes of a connection: a prime, so that no buffer size divides it. */
#define PERIOD 65521U

struct list streams;
struct truth truth;

static struct list unused;
static uint8_t pattern[2 * PERIOD];
static bool finishing;
static unsigned next_id;

/* --- bytes ------------------------------------------------------------------------------ */

static void pattern_make(void)
{
	uint32_t x = 1;

	for (size_t i = 0; i < PERIOD; i++) {
		x = x * 1664525U + 1013904223U;
		pattern[i] = pattern[i + PERIOD] = (uint8_t) (x >> 24);
	}
}

static const uint8_t *bytes_at(const struct stream *stream, uint64_t at, size_t *size)
{
	if (at < stream->header_size) {
		if (*size > stream->header_size - at)
			*size = (size_t) (stream->header_size - at);
		return &stream->header[at];
	}
	if (*size > PERIOD)
		*size = PERIOD;
	return &pattern[(stream->key + at) % PERIOD];
}

static void bytes_copy(const struct stream *stream, uint64_t at, uint8_t *to, size_t size)
{
	for (size_t n; size > 0; size -= n, to += n, at += n) {
		const uint8_t *from;

		n = size;
		from = bytes_at(stream, at, &n);
		memcpy(to, from, n);
	}
}

static void bytes_check(const struct stream *stream, uint64_t at, const uint8_t *is, size_t size)
{
	for (size_t n; size > 0; size -= n, is += n, at += n) {
		const uint8_t *want;

		n = size;
		want = bytes_at(stream, at, &n);
		if (memcmp(is, want, n) != 0)
			sim_fail("connection %u: other bytes than the client sent, near position %llu",
			         stream->id, (unsigned long long) at);
	}
}

bool stream_has_header(const struct stream *stream)
{
	return stream->read >= stream->header_size && !stream->bad;
}

uint64_t stream_payload(const struct stream *stream, uint64_t n)
{
	return n > stream->header_size ? n - stream->header_size : 0;
}

/* --- the network ------------------------------------------------------------------------ */

static int64_t latency(const struct stream *stream)
{
	return stream->family == AF_UNIX ? 0 : (int64_t) sim_below((uint64_t) stream->latency + 1);
}

static void up_soon(struct stream *stream)
{
	if (stream->up_pending || stream->reset)
		return;
	stream->up_pending = true;
	sim_at(sim.now + latency(stream), EVENT_UP, stream, stream->generation);
}

static void down_soon(struct stream *stream)
{
	if (stream->down_pending || stream->reset)
		return;
	stream->down_pending = true;
	sim_at(sim.now + latency(stream), EVENT_DOWN, stream, stream->generation);
}

static void read_soon(struct stream *stream, int64_t delay)
{
	if (stream->read_pending || stream->client_closed)
		return;
	stream->read_pending = true;
	sim_at(sim.now + delay, EVENT_READ, stream, stream->generation);
}

static void act_soon(struct stream *stream)
{
	sim_at(sim.now + (int64_t) sim_below((uint64_t) stream->pause + 1), EVENT_CLIENT, stream,
	       stream->generation);
}

static void wake(struct stream *stream, unsigned events)
{
	if (stream->file)
		file_wake(stream->file, events);
}

/* Free the connection when neither side uses it any more. */
static void release(struct stream *stream)
{
	bool over = stream->reset || stream->vanished ||
	            (stream->client_closed && stream->fin_delivered && stream->end_delivered);

	if (stream->file || stream->listener || !stream->client_closed || !over)
		return;
	stream->generation++;
	list_move_last(&unused, &stream->link);
}

/* Break the connection. Bytes that were not delivered are lost. */
static void reset(struct stream *stream, int error)
{
	if (stream->reset)
		return;
	sim_note("reset of connection", stream->id, error);
	stream->reset = true;
	stream->error = error;
	/* bytes that were delivered but not read may be lost, too */
	if (sim_below(2) == 0) {
		stream->delivered = stream->read;
		stream->due = 0;
	}
	wake(stream, POLLIN | POLLOUT | POLLERR | POLLHUP);
	if (stream->listener && sim_below(2) == 0) {
		list_remove(&stream->backlog);
		stream->listener->listener.waiting--;
		stream->listener = NULL;
	}
}

static void up(struct stream *stream)
{
	uint64_t room = stream->receive_max - (stream->delivered - stream->read), n;

	stream->up_pending = false;
	if (stream->reset)
		return;
	n = stream->sent - stream->delivered;
	if (stream->reason != REASON_NONE && n > 0) {
		/* the daemon has closed it */
		reset(stream, 0);
		stream->client_closed = true;
		release(stream);
		return;
	}
	if (n > room)
		n = room;
	if (n > 1 && sim_below(4) == 0)
		n = 1 + sim_below(n);
	stream->delivered += n;
	if (stream->fin_sent && stream->delivered == stream->sent && !stream->fin_delivered) {
		stream->fin_delivered = true;
		n = 1;
	}
	if (n > 0)
		wake(stream, POLLIN);
	if (n > 0 && stream->blocked) {
		stream->blocked = false;
		act_soon(stream);
	}
	if (stream->delivered < stream->sent && stream->delivered - stream->read < stream->receive_max)
		up_soon(stream);
	release(stream);
}

static void down(struct stream *stream)
{
	uint64_t room = stream->client_receive_max - (stream->acked - stream->got), n;

	stream->down_pending = false;
	if (stream->reset || stream->vanished)
		return;
	n = stream->echoed - stream->acked;
	if (stream->client_closed && n > 0) {
		reset(stream, sim_below(2) ? ECONNRESET : EPIPE);
		release(stream);
		return;
	}
	if (n > room)
		n = room;
	if (n > 1 && sim_below(4) == 0)
		n = 1 + sim_below(n);
	stream->acked += n;
	if (stream->end_sent && stream->acked == stream->echoed)
		stream->end_delivered = true;
	if (n > 0 && 3 * (stream->send_max - (stream->echoed - stream->acked)) >= stream->send_max)
		wake(stream, POLLOUT);
	if (stream->acked > stream->got || stream->end_delivered)
		read_soon(stream, (int64_t) sim_below((uint64_t) stream->pause + 1));
	if (stream->acked < stream->echoed && stream->acked - stream->got < stream->client_receive_max)
		down_soon(stream);
	release(stream);
}

/* --- clients ---------------------------------------------------------------------------- */

static void client_close(struct stream *stream)
{
	if (stream->client_closed)
		return;
	sim_note("client closes connection", stream->id, (int64_t) stream->got);
	stream->client_closed = true;
	if (stream->acked > stream->got && stream->reason == REASON_NONE) {
		reset(stream, ECONNRESET);
	} else {
		stream->fin_sent = true;
		up_soon(stream);
		if (stream->echoed > stream->acked || stream->end_sent)
			down_soon(stream);
	}
	release(stream);
}

static void client_reset(struct stream *stream)
{
	stream->client_closed = true;
	reset(stream, ECONNRESET);
	release(stream);
}

/* The client has reached the end of the stream: check the number of bytes that it has received. */
static void client_saw_end(struct stream *stream)
{
	stream->end_seen = true;
	if (stream->reason == REASON_EOF && stream->got != stream_payload(stream, stream->sent))
		sim_fail("connection %u: the client got %llu of %llu bytes", stream->id,
		         (unsigned long long) stream->got,
		         (unsigned long long) stream_payload(stream, stream->sent));
	client_close(stream);
}

static void client_read(struct stream *stream)
{
	uint64_t n = stream->acked - stream->got;

	stream->read_pending = false;
	if (stream->client_closed || stream->reset)
		return;
	if (!finishing &&
	    (stream->reads == READS_NEVER || (stream->reads == READS_LATE && stream->sent < stream->target)))
		return;
	if (stream->reads == READS_SLOWLY && n > stream->chunk)
		n = 1 + sim_below(stream->chunk);
	stream->got += n;
	if (stream->echoed > stream->acked)
		down_soon(stream);
	if (stream->got < stream->acked)
		read_soon(stream, (int64_t) sim_below((uint64_t) stream->pause + 1));
	else if (stream->end_delivered)
		client_saw_end(stream);
	else if (stream->end == END_CLOSE && stream->got == stream_payload(stream, stream->target) &&
	         stream->sent == stream->target)
		client_close(stream);
}

static void client_send(struct stream *stream)
{
	uint64_t room = stream->client_send_max - (stream->sent - stream->delivered);
	uint64_t n = 1 + sim_below(stream->sent < stream->header_size ? stream->header_chunk : stream->chunk);

	if (room == 0) {
		stream->blocked = true; /* until up() has made room */
		return;
	}
	if (n > room)
		n = room;
	if (n > stream->target - stream->sent)
		n = stream->target - stream->sent;
	if (n > 0 && stream->urgent == 0 && sim_chance(20000))
		stream->urgent = stream->sent + n;
	stream->sent += n;
	if (n > 0)
		up_soon(stream);
	if (stream->sent == stream->target && stream->reads == READS_LATE)
		read_soon(stream, 0);
	act_soon(stream);
}

static void client_act(struct stream *stream)
{
	if (stream->client_closed || stream->vanished || (stream->fin_sent && stream->end != END_RESET))
		return;
	if (stream->end == END_RESET && (stream->fin_sent || sim_below(4) == 0)) {
		client_reset(stream);
	} else if (stream->end == END_VANISH && sim_below(4) == 0 && !finishing) {
		sim_note("client vanishes, connection", stream->id, 0);
		stream->vanished = stream->client_closed = true;
		/* the kernel of the daemon may find out */
		if (sim_below(3) == 0)
			sim_at(sim.now + (int64_t) sim_spread(1000, 600 * SEC), EVENT_AUDIT, stream,
			       stream->generation);
		release(stream);
	} else if (stream->sent < stream->target) {
		client_send(stream);
	} else if (stream->end == END_HALF_CLOSE || finishing) {
		stream->fin_sent = true;
		up_soon(stream);
	} else if (stream->end != END_NEVER && stream->end != END_CLOSE) {
		act_soon(stream);
	}
}

static void plan(struct stream *stream, int64_t pace)
{
	unsigned kind = (unsigned) sim_below(100);

	stream->receive_max = (uint32_t) sim_spread(1000, 1 << 20);
	stream->send_max = (uint32_t) sim_spread(1000, 1 << 20);
	stream->client_receive_max = (uint32_t) sim_spread(1000, 1 << 20);
	stream->client_send_max = (uint32_t) sim_spread(1000, 1 << 20);
	stream->target = kind < 60 ? sim_spread(0, 3000)
	               : kind < 90 ? sim_spread(0, 200000)
	                           : sim_spread(0, 4 << 20);
	stream->chunk = (uint32_t) sim_spread(1, 1 + stream->target);
	if (stream->target / stream->chunk > 500)
		stream->chunk = (uint32_t) (stream->target / 500);
	stream->pause = (int64_t) sim_spread(1, (uint64_t) pace);
	stream->latency = (int64_t) sim_spread(1, 200 * MSEC);
	kind = (unsigned) sim_below(100);
	stream->reads = kind < 60 ? READS_AT_ONCE
	              : kind < 80 ? READS_SLOWLY
	              : kind < 95 ? READS_LATE
	                          : READS_NEVER;
	kind = (unsigned) sim_below(100);
	stream->end = kind < 50 ? END_HALF_CLOSE
	            : kind < 75 ? END_CLOSE
	            : kind < 82 ? END_NEVER
	            : kind < 92 ? END_RESET
	                        : END_VANISH;
}

/* Version 1 of the PROXY protocol, a line of text. */
static void header_v1(struct stream *stream, unsigned source)
{
	char *line = (char *) stream->header;
	int n = sim_below(5) == 0
	              ? snprintf(line, HEADER_MAX, "PROXY UNKNOWN\r\n")
	              : snprintf(line, HEADER_MAX, "PROXY TCP4 10.0.%u.%u 192.0.2.1 %u 7\r\n",
	                         (source + 1) / 256, (source + 1) % 256, 1024 + stream->id % 60000);

	stream->header_size = (uint32_t) n;
	if (line[6] == 'T')
		stream->source = source;
}

/* Version 2, binary, perhaps with extensions. */
static void header_v2(struct stream *stream, unsigned source)
{
	static const char start[] = "\r\n\r\n\0\r\nQUIT\n";
	size_t extensions = sim_below(2) ? (size_t) sim_below(HEADER_MAX - 28) : 0, length = 12 + extensions;
	uint8_t *header = stream->header;

	memset(header, 0x21, HEADER_MAX);
	memcpy(header, start, sizeof start - 1);
	header[12] = sim_below(5) == 0 ? 0x20 : 0x21; /* LOCAL, PROXY */
	header[13] = 0x11;                            /* TCP over IPv4 */
	header[14] = (uint8_t) (length >> 8);
	header[15] = (uint8_t) length;
	memcpy(header + 16, (uint8_t[]) { 10, 0, (uint8_t) ((source + 1) / 256), (uint8_t) (source + 1) }, 4);
	stream->header_size = (uint32_t) (16 + length);
	if (header[12] == 0x21)
		stream->source = source;
}

/* The connection of a proxy for a client of `source`. The header may be wrong, or end early. */
static void header_plan(struct stream *stream, unsigned source)
{
	unsigned kind = (unsigned) sim_below(16);

	stream->proxied = true;
	if (kind < 8)
		header_v1(stream, source);
	else
		header_v2(stream, source);
	if (kind == 0 || kind == 8) {
		stream->bad = true;
		/* a byte that is the same in all headers of this version */
		stream->header[sim_below(kind == 0 ? 6 : 12)] ^= 0x80;
	}
	stream->target += stream->header_size;
	if (kind == 1 || kind == 9)
		stream->target = sim_below(stream->header_size);
	stream->header_chunk = (uint32_t) sim_spread(1, 2 * stream->header_size);
}

/* --- connections ------------------------------------------------------------------------ */

void streams_begin(void)
{
	if (pattern[0] == pattern[1])
		pattern_make();
	if (!unused.next)
		list_init(&unused);
	list_init(&streams);
	truth = (struct truth) { 0 };
	finishing = false;
	next_id = 0;
}

void streams_end(void)
{
	for (struct list *at = streams.next; at != &streams; at = at->next)
		LIST_ENTRY(at, struct stream, link)->generation++;
	list_append_all(&unused, &streams);
}

static struct stream *stream_make(struct file *listener)
{
	struct stream *stream;
	uint32_t generation;

	if (list_empty(&unused)) {
		stream = calloc(1, sizeof *stream);
		if (!stream)
			abort();
	} else {
		stream = LIST_ENTRY(unused.next, struct stream, link);
		list_remove(&stream->link);
	}
	generation = stream->generation;
	*stream = (struct stream) { .generation = generation,
		                    .id = ++next_id,
		                    .listener = listener,
		                    .key = (uint32_t) sim_below(PERIOD),
		                    .family = listener->listener.family };
	return stream;
}

struct stream *stream_connect(struct file *listener, unsigned sources, int64_t pace)
{
	struct stream *stream;

	if (listener->listener.waiting >= listener->listener.limit)
		return NULL;
	stream = stream_make(listener);
	stream->source = (unsigned) sim_below(sources);
	plan(stream, pace);
	stream->proxy = stream->source;
	if (stream->family != AF_UNIX && stream->source < proxies())
		header_plan(stream, proxies() + (unsigned) sim_below(sources));
	list_append(&streams, &stream->link);
	list_append(&listener->listener.backlog, &stream->backlog);
	listener->listener.waiting++;
	sim_note("client connects, connection", stream->id, stream->source);
	file_wake(listener, POLLIN);
	act_soon(stream);
	return stream;
}

struct file *stream_accept(struct file *listener)
{
	struct stream *stream = LIST_ENTRY(listener->listener.backlog.next, struct stream, backlog);

	list_remove(&stream->backlog);
	listener->listener.waiting--;
	stream->listener = NULL;
	stream->file = file_make(FILE_STREAM);
	stream->file->stream = stream;
	stream->accepted = true;
	stream->ended = false;
	stream->since = stream->active = sim.now;
	truth.accepted++;
	truth.live++;
	if (idle_usec() > 0) {
		stream->audited = true;
		sim_at(sim.now + idle_usec(), EVENT_AUDIT, stream, stream->generation);
	}
	return stream->file;
}

void stream_ended(struct stream *stream)
{
	truth.live -= !stream->ended;
	stream->ended = true;
}

void stream_closed(struct stream *stream)
{
	bool unread = stream->delivered > stream->read;

	note_source(stream);
	stream->file = NULL;
	stream_ended(stream);
	if (stream->fin_seen && stream_has_header(stream) &&
	    stream->echoed == stream_payload(stream, stream->sent))
		stream->reason = REASON_EOF;
	else if (stream->broken)
		stream->reason = REASON_BROKEN;
	else
		stream->reason = check_close(stream);
	crew_serves(NULL, stream);
	sim_note("daemon closes connection", stream->id, (int64_t) stream->reason);
	if (stream->reset) {
		stream->client_closed = true;
		release(stream);
		return;
	}
	stream->end_sent = true;
	if (unread) {
		reset(stream, 0);
		stream->client_closed = true;
		release(stream);
		return;
	}
	down_soon(stream);
	release(stream);
}

void stream_break(struct stream *stream)
{
	stream->broken = true;
	if (sim_below(2) == 0)
		reset(stream, 0);
}

void stream_hurry(struct stream *stream)
{
	if (stream->vanished)
		return;
	stream->end = END_RESET;
	sim_at(sim.now + (int64_t) sim_spread(1, 50 * MSEC), EVENT_CLIENT, stream, stream->generation);
}

void streams_finish(void)
{
	finishing = true;
	for (struct list *at = streams.next, *next; at != &streams; at = next) {
		struct stream *stream = LIST_ENTRY(at, struct stream, link);

		next = at->next;
		stream->target = stream->sent;
		if (stream->end != END_RESET)
			stream->end = END_HALF_CLOSE;
		if (stream->pause > 10 * MSEC)
			stream->pause = 10 * MSEC;
		if (stream->reads == READS_NEVER)
			stream->reads = READS_AT_ONCE;
		/* without idle-timeout only the kernel ends the connection of a client that has vanished */
		if (stream->vanished && idle_usec() == 0)
			reset(stream, ETIMEDOUT);
		act_soon(stream);
		read_soon(stream, 0);
	}
}

void stream_event(enum event_kind kind, struct stream *stream, uint32_t generation)
{
	if (stream->generation != generation)
		return;
	switch (kind) {
	case EVENT_CLIENT: client_act(stream); break;
	case EVENT_READ: client_read(stream); break;
	case EVENT_UP: up(stream); break;
	case EVENT_DOWN: down(stream); break;
	default:
		if (stream->vanished && !stream->audited)
			reset(stream, sim_below(2) ? ETIMEDOUT : EHOSTUNREACH);
		else if (stream->audited)
			check_idle(stream);
		release(stream);
	}
}

/* --- the socket ------------------------------------------------------------------------- */

unsigned stream_unread(const struct stream *stream)
{
	return (unsigned) (stream->delivered - stream->read);
}

unsigned stream_unacknowledged(const struct stream *stream)
{
	if (stream->reset)
		return 0;
	return (unsigned) (stream->echoed - stream->acked) + (stream->end_sent && !stream->end_delivered);
}

static uint64_t send_room(const struct stream *stream)
{
	return stream->send_max - (stream->echoed - stream->acked);
}

unsigned stream_ready(const struct stream *stream)
{
	unsigned ready = 0;

	if (stream->reset)
		return POLLIN | POLLOUT | POLLHUP | (stream->error ? POLLERR : 0);
	if (stream->delivered > stream->read || stream->fin_delivered)
		ready |= POLLIN;
	if (stream->end_sent || 3 * send_room(stream) >= stream->send_max)
		ready |= POLLOUT;
	if (stream->end_sent && stream->fin_delivered)
		ready |= POLLHUP;
	return ready;
}

static ssize_t fail(int error)
{
	errno = error;
	return -1;
}

/* Take the pending error of the socket. */
static ssize_t take_error(struct stream *stream)
{
	int error = stream->error;

	stream->error = 0;
	stream->broken = true;
	fiber_progress(fiber_self());
	return fail(error);
}

int stream_take_error(struct stream *stream)
{
	int error = stream->error;

	if (error)
		(void) take_error(stream);
	return error;
}

static void moved(struct stream *stream)
{
	stream->active = sim.now;
	fiber_progress(fiber_self());
}

static void window_opened(struct stream *stream)
{
	if (stream->sent > stream->delivered || (stream->fin_sent && !stream->fin_delivered))
		up_soon(stream);
}

/* Number of bytes for a receive of at most `size` bytes; 0 or -1 as recv(2). */
static ssize_t find(struct stream *stream, size_t size)
{
	uint64_t n = stream->delivered - stream->read;

	if (n > size)
		n = size;
	if (n > 1 && sim_fault(FAULT_AGAIN))
		n = 1 + sim_below(n);
	if (n > 0)
		return (ssize_t) n;
	if (stream->error)
		return take_error(stream);
	if (stream->reset) {
		stream->broken = true;
		return 0;
	}
	if (!stream->fin_delivered)
		return fail(EAGAIN);
	if (!stream->fin_seen)
		fiber_progress(fiber_self());
	stream->fin_seen = true;
	return 0;
}

ssize_t stream_receive(struct stream *stream, void *data, size_t size, bool discard)
{
	ssize_t n = find(stream, size);

	if (n <= 0)
		return n;
	/* a receive stops before the urgent byte, and the next one begins with it */
	if (stream->urgent > stream->read + 1 && stream->urgent - 1 < stream->read + (uint64_t) n)
		n = (ssize_t) (stream->urgent - 1 - stream->read);
	if (discard) {
		stream->discarded += (uint64_t) n;
	} else {
		if (stream->discarded > 0)
			sim_fail("connection %u: bytes were received after others were discarded",
			         stream->id);
		bytes_copy(stream, stream->read, data, (size_t) n);
		truth.received += (uint64_t) n;
		moved(stream);
	}
	stream->read += (uint64_t) n;
	fiber_progress(fiber_self());
	window_opened(stream);
	return n;
}

/* Number of bytes for a send of at most `size` bytes; -1 as send(2). */
static ssize_t find_room(struct stream *stream, size_t size)
{
	uint64_t room = send_room(stream);

	if (stream->error)
		return take_error(stream);
	if (stream->reset || stream->end_sent) {
		stream->broken |= stream->reset;
		return fail(EPIPE);
	}
	if (room > size)
		room = size;
	if (room > 1 && sim_fault(FAULT_AGAIN))
		room = 1 + sim_below(room);
	return room > 0 ? (ssize_t) room : fail(EAGAIN);
}

static void sent(struct stream *stream, size_t n)
{
	stream->echoed += n;
	if (stream->echoed > stream_payload(stream, stream->read - stream->discarded))
		sim_fail("connection %u: more bytes were sent than received", stream->id);
	truth.echoed += n;
	moved(stream);
	down_soon(stream);
}

ssize_t stream_send(struct stream *stream, const void *data, size_t size)
{
	ssize_t n = find_room(stream, size);

	if (n <= 0)
		return n;
	bytes_check(stream, stream->header_size + stream->echoed, data, (size_t) n);
	sent(stream, (size_t) n);
	return n;
}

void stream_shutdown(struct stream *stream)
{
	if (stream->end_sent || stream->reset)
		return;
	stream->end_sent = true;
	fiber_progress(fiber_self());
	wake(stream, POLLOUT | (stream->fin_delivered ? POLLHUP : 0));
	down_soon(stream);
}

/* --- pipes ------------------------------------------------------------------------------ */

ssize_t stream_to_pipe(struct stream *stream, struct file *pipe, size_t size)
{
	size_t done = 0;
	ssize_t n = 0;

	while (done < size && pipe->pipe.count < pipe->pipe.slots) {
		size_t most = size - done < 32768 ? size - done : 1 + (size_t) sim_below(32768);

		if (stream->urgent > 0 && stream->urgent - 1 >= stream->read &&
		    stream->urgent - 1 < stream->read + most)
			most = (size_t) (stream->urgent - 1 - stream->read);
		if (most == 0 && stream->delivered > stream->read) {
			/* splice(2) does not pass an urgent byte: it returns 0 there after a FIN */
			n = stream->fin_delivered ? 0 : fail(EAGAIN);
			break;
		}
		n = done > 0 && stream->delivered == stream->read ? 0 : find(stream, most > 0 ? most : 1);
		if (n <= 0)
			break;
		pipe->pipe.segments[(pipe->pipe.first + pipe->pipe.count++) % PIPE_SLOTS] = (struct segment) {
			stream, stream->read, (uint32_t) n
		};
		stream->read += (uint64_t) n;
		done += (size_t) n;
		truth.received += (uint64_t) n;
		moved(stream);
	}
	if (done > 0) {
		window_opened(stream);
		return (ssize_t) done;
	}
	return pipe->pipe.count == pipe->pipe.slots ? fail(EAGAIN) : n;
}

static void segment_drop(struct file *pipe, size_t n)
{
	struct segment *segment = &pipe->pipe.segments[pipe->pipe.first];

	segment->at += n;
	segment->size -= (uint32_t) n;
	if (segment->size > 0)
		return;
	pipe->pipe.first = (pipe->pipe.first + 1) % PIPE_SLOTS;
	pipe->pipe.count--;
}

ssize_t stream_from_pipe(struct stream *stream, struct file *pipe, size_t size)
{
	size_t done = 0;

	while (done < size && pipe->pipe.count > 0) {
		struct segment *segment = &pipe->pipe.segments[pipe->pipe.first];
		size_t most = segment->size < size - done ? segment->size : size - done;
		ssize_t n;

		if (segment->stream != stream || segment->at != stream->header_size + stream->echoed)
			sim_fail("connection %u: bytes %llu of connection %u are sent instead of %llu",
			         stream->id, (unsigned long long) segment->at, segment->stream->id,
			         (unsigned long long) stream->echoed);
		n = find_room(stream, most);
		if (n <= 0)
			return done > 0 ? (ssize_t) done : n;
		segment_drop(pipe, (size_t) n);
		sent(stream, (size_t) n);
		done += (size_t) n;
		if ((size_t) n < most)
			break;
	}
	return done > 0 ? (ssize_t) done : fail(EAGAIN);
}

ssize_t pipe_read(struct file *pipe, uint8_t *data, size_t size)
{
	size_t done = 0;

	while (done < size && pipe->pipe.count > 0) {
		struct segment *segment = &pipe->pipe.segments[pipe->pipe.first];
		size_t n = segment->size < size - done ? segment->size : size - done;

		bytes_copy(segment->stream, segment->at, data + done, n);
		segment_drop(pipe, n);
		done += n;
	}
	return done > 0 ? (ssize_t) done : fail(EAGAIN);
}
