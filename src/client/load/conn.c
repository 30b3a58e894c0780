/* flow.c - see flow.h */
#include <config.h>

#include "client/load/conn.h"

#include <errno.h>
#include <string.h>

size_t flow_stamps_needed(uint32_t depth)
{
	size_t room = 1;

	while (room < depth)
		room *= 2;
	return room;
}

void flow_init(struct flow *flow, uint32_t index, uint32_t size, uint32_t depth, uint64_t *stamps)
{
	memset(flow, 0, sizeof(*flow));
	flow->fd = -1;
	flow->index = index;
	flow->size = flow->left = size;
	flow->depth = depth;
	flow->in = flow->out = pattern_start(index);
	flow->stamps = stamps;
	flow->mask = flow_stamps_needed(depth) - 1;
}

const uint8_t *flow_out(const struct flow *flow, size_t most, size_t *length)
{
	uint64_t owed = flow->granted - flow->sent;

	if (most > PATTERN_RUN)
		most = PATTERN_RUN;
	*length = owed < most ? (size_t) owed : most;
	return pattern_bytes(flow->out);
}

void flow_sent(struct flow *flow, size_t length, uint64_t now)
{
	flow->out = pattern_after(flow->out, length);
	flow->sent += length;
	if (flow->depth == 0 && flow->stamps[0] == 0 && flow->sent > flow->received) {
		flow->stamps[0] = now;
		flow->mark = flow->sent;
	}
}

static void latency_add(struct histogram *histogram, uint64_t from, uint64_t to)
{
	if (histogram != NULL)
		histogram_add(histogram, to > from ? to - from : 0);
}

int64_t flow_received(struct flow *flow, const void *bytes, size_t length, uint64_t since, uint64_t now,
		      struct histogram *histogram, uint64_t *fault)
{
	uint64_t awaited = flow->sent - flow->received;
	size_t known = length < awaited ? length : (size_t) awaited;
	size_t same = pattern_compare(flow->in, bytes, known);
	int64_t finished = 0;

	if (same < length) {
		*fault = flow->received + same;
		return -EBADMSG;
	}
	flow->in = pattern_after(flow->in, length);
	flow->received += length;
	if (flow->depth == 0) {
		if (flow->stamps[0] != 0 && flow->received >= flow->mark) {
			latency_add(histogram, flow->stamps[0], now);
			flow->stamps[0] = 0;
		}
		return 0;
	}
	while (length >= flow->left) {
		uint64_t *stamp = &flow->stamps[flow->finished++ & flow->mask], began = *stamp;

		*stamp = 0;
		length -= flow->left;
		flow->left = flow->size;
		if (began < since)
			continue;
		latency_add(histogram, began, now);
		finished++;
	}
	flow->left -= (uint32_t) length;
	return finished;
}

uint64_t flow_abandon(struct flow *flow)
{
	uint64_t lost = flow->started - flow->finished;

	for (; flow->finished < flow->started; flow->finished++)
		flow->stamps[flow->finished & flow->mask] = 0;
	flow->granted = flow->sent = flow->received;
	flow->out = flow->in;
	flow->left = flow->size;
	return lost;
}
