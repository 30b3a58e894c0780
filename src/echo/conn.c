/* SPDX-License-Identifier: ISC */
#include <config.h>

#include "echo/conn.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define MEMORY_MIN 512

static const char *const reason_names[CONN_REASONS] = {
	[CONN_OPEN] = "open",   [CONN_EOF] = "eof",     [CONN_RESET] = "reset",
	[CONN_IDLE] = "idle",   [CONN_LIMIT] = "limit", [CONN_DENIED] = "denied",
	[CONN_PROXY] = "proxy", [CONN_DRAIN] = "drain", [CONN_ERROR] = "error",
};

const char *conn_reason_name(enum conn_reason reason)
{
	return reason_names[reason];
}

void conn_init(struct conn *conn, int64_t since)
{
	*conn = (struct conn) { .since = since };
}

void conn_clear(struct conn *conn)
{
	free(conn->memory);
	conn->memory = NULL;
	conn->data = NULL;
	conn->owed = 0;
	conn->piped = 0;
}

size_t conn_owed_total(const struct conn *conn)
{
	return (size_t) conn->owed + conn->piped;
}

/* Whether own memory has its maximum size, is full to its end, and holds too many owed bytes to move them to
 * its start. The free bytes before the owed ones must not be offered then: a driver that waits for input
 * would be woken again and again for bytes that it cannot store. */
static bool memory_is_full(const struct conn *conn, size_t limit)
{
	const struct conn_memory *memory = conn->memory;

	return memory && memory->size >= limit && conn->data + conn->owed == memory->bytes + memory->size &&
	       (size_t) (conn->data - memory->bytes) < conn->owed;
}

size_t conn_recv_window(const struct conn *conn, size_t limit)
{
	size_t owed = conn_owed_total(conn), room = owed < limit ? limit - owed : 0;

	if (conn->eof || conn->reason != CONN_OPEN || memory_is_full(conn, limit))
		return 0;
	if (conn->draining && room > conn->quota)
		return conn->quota;
	return room;
}

unsigned conn_want(const struct conn *conn, size_t limit)
{
	unsigned want = 0;

	if (conn->reason != CONN_OPEN)
		return CONN_CLOSE;
	if (conn_owed_total(conn) > 0 && !conn->header)
		want |= CONN_SEND;
	if (conn_recv_window(conn, limit) > 0)
		want |= CONN_RECV;
	if (want == 0)
		want = conn->eof ? CONN_CLOSE : CONN_LINGER;
	return want;
}

/* Make room behind the owed bytes in own memory. Leaves it unchanged where that is not possible. */
static void memory_grow(struct conn *conn, size_t limit)
{
	struct conn_memory *memory = conn->memory, *larger;
	size_t start = (size_t) (conn->data - memory->bytes);
	size_t size = memory->size;

	/* moving at most as many bytes as were sent since the last move keeps moving cheaper than sending */
	if (start >= conn->owed) {
		memcpy(memory->bytes, conn->data, conn->owed);
		conn->data = memory->bytes;
		return;
	}
	if (size >= limit)
		return;
	size = size * 2 < limit ? size * 2 : limit;
	larger = realloc(memory, sizeof *memory + size);
	if (!larger)
		return;
	larger->size = (uint32_t) size;
	conn->memory = larger;
	conn->data = larger->bytes + start;
}

struct span conn_recv_buf(struct conn *conn, struct span scratch, size_t limit)
{
	size_t room = conn_recv_window(conn, limit);
	struct span span = { NULL, 0 };
	uint8_t *tail;

	if (room == 0 || conn->piped > 0)
		return span;
	if (conn->owed == 0) {
		span = scratch;
	} else if (conn->memory) {
		tail = conn->data + conn->owed;
		if (tail == conn->memory->bytes + conn->memory->size) {
			memory_grow(conn, limit);
			tail = conn->data + conn->owed;
		}
		span.data = tail;
		span.size = (size_t) (conn->memory->bytes + conn->memory->size - tail);
	}
	if (span.size > room)
		span.size = room;
	return span;
}

void conn_received(struct conn *conn, uint8_t *at, size_t n)
{
	if (conn->owed == 0)
		conn->data = at;
	conn->owed += (uint32_t) n;
	if (conn->draining)
		conn->quota -= (uint32_t) n;
}

static void finish_if_done(struct conn *conn)
{
	if (conn->eof && conn_owed_total(conn) == 0 && conn->reason == CONN_OPEN)
		conn->reason = CONN_EOF;
}

void conn_eof(struct conn *conn)
{
	conn->eof = true;
	if (conn->header && conn->owed > 0)
		conn_end(conn, CONN_PROXY);
	finish_if_done(conn);
}

void conn_end(struct conn *conn, enum conn_reason reason)
{
	if (conn->reason == CONN_OPEN)
		conn->reason = (uint8_t) reason;
}

void conn_error(struct conn *conn, int error)
{
	/* a connection that times out has the error of the last ICMP message about it, if there was any */
	switch (error) {
	case ECONNRESET:
	case EPIPE:
	case ENOTCONN:
	case ECONNABORTED:
	case ETIMEDOUT:
	case EHOSTUNREACH:
	case ENETUNREACH:
	case EHOSTDOWN:
	case ENETDOWN:
	case ECONNREFUSED:
	case ENONET:
	case ENOPROTOOPT:
	case EOPNOTSUPP:
	case EPROTO:
	case EACCES:
		conn_end(conn, CONN_RESET);
		break;
	default:
		if (conn->reason == CONN_OPEN)
			conn->error = (uint8_t) error;
		conn_end(conn, CONN_ERROR);
	}
}

void conn_drain(struct conn *conn, size_t unread)
{
	conn->draining = true;
	conn->quota = unread < CONN_LIMIT_MAX ? (uint32_t) unread : CONN_LIMIT_MAX;
}

size_t conn_pending(const struct conn *conn, const uint8_t **data)
{
	*data = conn->data;
	return conn->owed;
}

void conn_drop(struct conn *conn, size_t n)
{
	conn->data += n;
	conn->owed -= (uint32_t) n;
	if (conn->owed == 0) {
		free(conn->memory);
		conn->memory = NULL;
	}
}

void conn_header_done(struct conn *conn)
{
	conn->header = false;
	finish_if_done(conn);
}

void conn_sent(struct conn *conn, size_t n)
{
	conn_drop(conn, n);
	conn->echoed += n;
	finish_if_done(conn);
}

void conn_pipe_received(struct conn *conn, size_t n)
{
	conn->piped += (uint32_t) n;
	if (conn->draining)
		conn->quota -= (uint32_t) n;
}

void conn_pipe_sent(struct conn *conn, size_t n)
{
	conn->piped -= (uint32_t) n;
	conn->echoed += n;
	finish_if_done(conn);
}

static struct conn_memory *memory_make(size_t need)
{
	size_t size = need > MEMORY_MIN ? need : MEMORY_MIN;
	struct conn_memory *memory = malloc(sizeof *memory + size);

	/* exactly `need`, which may be the limit */
	if (memory)
		memory->size = (uint32_t) size;
	return memory;
}

int conn_own_data(struct conn *conn)
{
	struct conn_memory *memory;

	if (conn->owed == 0 || conn->memory)
		return 0;
	memory = memory_make(conn->owed);
	if (!memory) {
		conn_error(conn, ENOMEM);
		return -ENOMEM;
	}
	memcpy(memory->bytes, conn->data, conn->owed);
	conn->memory = memory;
	conn->data = memory->bytes;
	return 0;
}

uint8_t *conn_restore(struct conn *conn, size_t n)
{
	conn->memory = memory_make(n);
	if (!conn->memory)
		return NULL;
	conn->data = conn->memory->bytes;
	conn->owed = (uint32_t) n;
	return conn->data;
}

uint8_t *conn_restore_piped(struct conn *conn)
{
	uint8_t *data = conn_restore(conn, conn->piped);

	if (data)
		conn->piped = 0;
	return data;
}
