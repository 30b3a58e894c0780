/* uring_held.c - what a session's stream has brought before it could be sent: buffers, one behind another */
#include <config.h>

#include <errno.h>
#include <string.h>

#include "models/uring.h"

void held_push(struct ring *ring, struct stream *stream, uint16_t buffer, size_t size)
{
	*buffers_note(&ring->small, buffer) = (struct buffer_note) { .size = (uint16_t) size };
	if (stream->held++ == 0)
		stream->first = buffer;
	else
		buffers_note(&ring->small, stream->last)->next = buffer;
	stream->last = buffer;
}

static uint16_t held_pop(struct ring *ring, struct stream *stream)
{
	uint16_t buffer = stream->first;

	stream->first = buffers_note(&ring->small, buffer)->next;
	stream->held--;
	return buffer;
}

size_t held_last_size(const struct ring *ring, const struct stream *stream)
{
	return buffers_note(&ring->small, stream->last)->size;
}

void held_lend(struct ring *ring, struct session *session)
{
	uint16_t buffer = held_pop(ring, ring_stream(ring, &session->watch));
	const struct buffer_note *note = buffers_note(&ring->small, buffer);

	conn_received(&session->conn, ring_buffer(ring, buffer) + note->from, note->size);
	session->watch.lent = true;
}

/* Copy as much of `n` bytes at `data` as goes there. Returns how much did. */
static size_t append(struct conn *conn, const uint8_t *data, size_t n, size_t limit)
{
	struct span span = { NULL, 0 };

	if (conn->owed == 0) {
		span.data = conn_restore(conn, n);
		if (!span.data) {
			conn_error(conn, ENOMEM);
			return 0;
		}
		memcpy(span.data, data, n);
		return n;
	}
	span = conn_landing(conn, span, limit);
	n = span.size < n ? span.size : n;
	if (n > 0) {
		memcpy(span.data, data, n);
		conn_received(conn, span.data, n);
	}
	return n;
}

void held_keep(struct ring *ring, struct session *session, size_t limit)
{
	struct stream *stream = ring_stream(ring, &session->watch);

	while (stream->held > 0) {
		struct buffer_note *note = buffers_note(&ring->small, stream->first);
		size_t n = append(&session->conn, ring_buffer(ring, stream->first) + note->from, note->size, limit);

		if (n == 0)
			return;
		note->from = (uint16_t) (note->from + n);
		note->size = (uint16_t) (note->size - n);
		if (note->size == 0)
			ring_buffer_give(ring, held_pop(ring, stream));
	}
	if (stream->finished)
		conn_eof(&session->conn);
	stream->finished = false;
}

void held_drop(struct ring *ring, struct stream *stream)
{
	while (stream->held > 0)
		ring_buffer_give(ring, held_pop(ring, stream));
}
