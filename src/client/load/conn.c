/* SPDX-License-Identifier: ISC */
/* conn.c - see conn.h */
#include <config.h>

#include "client/load/conn.h"

#include <errno.h>
#include <string.h>

size_t load_conn_stamps_needed(uint32_t depth)
{
	size_t room = 1;

	while (room < depth)
		room *= 2;
	return room;
}

void load_conn_init(struct load_conn *conn, uint32_t index, uint32_t size, uint32_t depth,
		    struct load_stamp *stamps)
{
	memset(conn, 0, sizeof *conn);
	conn->fd = -1;
	conn->index = index;
	conn->size = conn->left = size;
	conn->depth = depth;
	conn->in = conn->out = pattern_start(index);
	conn->stamps = stamps;
	conn->mask = load_conn_stamps_needed(depth) - 1;
}

const uint8_t *load_conn_out(const struct load_conn *conn, size_t max, size_t *length)
{
	uint64_t left = conn->granted - conn->sent;

	if (max > PATTERN_RUN)
		max = PATTERN_RUN;
	*length = left < max ? (size_t) left : max;
	return pattern_bytes(conn->out);
}

void load_conn_sent(struct load_conn *conn, size_t length, uint64_t now)
{
	conn->out = pattern_after(conn->out, length);
	conn->sent += length;
	if (conn->depth == 0 && conn->stamps[0].start == 0 && conn->sent > conn->received) {
		conn->stamps[0].start = now;
		conn->mark = conn->sent;
	}
}

static void latency_add(struct histogram *histogram, uint64_t from, uint64_t to)
{
	if (histogram)
		histogram_add(histogram, to > from ? to - from : 0);
}

int64_t load_conn_received(struct load_conn *conn, const void *bytes, size_t length, uint64_t since,
			   uint64_t now, struct histogram *histogram, uint64_t *fault)
{
	uint64_t outstanding = conn->sent - conn->received;
	size_t comparable = length < outstanding ? length : (size_t) outstanding;
	size_t same = pattern_compare(conn->in, bytes, comparable);
	int64_t finished = 0;

	if (same < length) {
		*fault = conn->received + same;
		return -EBADMSG;
	}
	conn->in = pattern_after(conn->in, length);
	conn->received += length;
	if (conn->depth == 0) {
		if (conn->stamps[0].start != 0 && conn->received >= conn->mark) {
			latency_add(histogram, conn->stamps[0].start, now);
			conn->stamps[0].start = 0;
		}
		return 0;
	}
	while (length >= conn->left) {
		struct load_stamp *stamp = &conn->stamps[conn->finished++ & conn->mask];

		if (stamp->start >= since)
			latency_add(histogram, stamp->start, now);
		*stamp = (struct load_stamp) { 0 };
		length -= conn->left;
		conn->left = conn->size;
		finished++;
	}
	conn->left -= (uint32_t) length;
	return finished;
}

uint64_t load_conn_abandon(struct load_conn *conn)
{
	uint64_t lost = conn->started - conn->finished;

	for (; conn->finished < conn->started; conn->finished++)
		conn->stamps[conn->finished & conn->mask] = (struct load_stamp) { 0 };
	conn->granted = conn->sent = conn->received;
	conn->out = conn->in;
	conn->left = conn->size;
	return lost;
}
