/* SPDX-License-Identifier: ISC */
/* uring_rxq.c - the receive queue of a session: buffers that a multishot receive filled while a send was in
 * flight */
#include <config.h>

#include <errno.h>
#include <string.h>

#include "models/uring/uring.h"

void rxq_push(struct ring *ring, struct uring_state *state, uint16_t buffer, size_t size)
{
	*buffers_note(&ring->small, buffer) = (struct buffer_note) { .size = (uint16_t) size };
	if (state->queued++ == 0)
		state->first = buffer;
	else
		buffers_note(&ring->small, state->last)->next = buffer;
	state->last = buffer;
}

static uint16_t rxq_pop(struct ring *ring, struct uring_state *state)
{
	uint16_t buffer = state->first;

	state->first = buffers_note(&ring->small, buffer)->next;
	state->queued--;
	return buffer;
}

size_t rxq_last_size(const struct ring *ring, const struct uring_state *state)
{
	return buffers_note(&ring->small, state->last)->size;
}

void rxq_borrow(struct ring *ring, struct session *session)
{
	uint16_t buffer = rxq_pop(ring, ring_state(ring, &session->watch));
	const struct buffer_note *note = buffers_note(&ring->small, buffer);

	conn_received(&session->conn, ring_buffer(ring, buffer) + note->from, note->size);
	ring_state(ring, &session->watch)->borrowed = true;
}

/* Copy up to `n` bytes at `data`. Returns the number of bytes that fitted. */
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
	span = conn_recv_buf(conn, span, limit);
	n = span.size < n ? span.size : n;
	if (n > 0) {
		memcpy(span.data, data, n);
		conn_received(conn, span.data, n);
	}
	return n;
}

void rxq_copy(struct ring *ring, struct session *session, size_t limit)
{
	struct uring_state *state = ring_state(ring, &session->watch);

	while (state->queued > 0) {
		struct buffer_note *note = buffers_note(&ring->small, state->first);
		size_t n = append(&session->conn, ring_buffer(ring, state->first) + note->from, note->size,
		                  limit);

		if (n == 0)
			return;
		note->from = (uint16_t) (note->from + n);
		note->size = (uint16_t) (note->size - n);
		if (note->size == 0)
			ring_buffer_give(ring, rxq_pop(ring, state));
	}
	if (state->fin_queued)
		conn_eof(&session->conn);
	state->fin_queued = false;
}

void rxq_clear(struct ring *ring, struct uring_state *state)
{
	while (state->queued > 0)
		ring_buffer_give(ring, rxq_pop(ring, state));
}
