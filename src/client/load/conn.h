/* flow.h - the account of one connection under load: what was begun, sent, and came back
 *
 * A flow sends messages of one size, back to back, out of the pattern; each has a time from which its
 * latency counts: when it was begun, or when it was due. A flow makes no system call and knows no engine.
 * Pure; a flow belongs to one thread.
 *
 *     granted >= sent >= received          all in bytes of this flow's stream
 *     granted = started * size             (streams apart: there bytes are granted, not messages)
 */
#ifndef ECHOD_CLIENT_FLOW_H
#define ECHOD_CLIENT_FLOW_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "client/histogram.h"
#include "client/pattern.h"

enum flow_state {
	FLOW_CLOSED,     /* has no connection: not yet, between two (connect mode), or lost */
	FLOW_CONNECTING,
	FLOW_OPEN,
	FLOW_CLOSING,    /* all came back; the end is said, the server's is awaited (connect mode) */
};

struct flow {
	int fd;
	uint32_t index; /* among all connections of the run */
	uint8_t state;  /* enum flow_state */
	bool active;    /* takes part (see --ramp) */
	bool armed;     /* the engine's: EPOLLOUT is asked for; a send is in flight */
	bool heard;     /* the engine's: a receive is in flight */
	bool settled;   /* nothing more will be begun, and all came back */
	bool dead;      /* lost for good */

	pattern_place out; /* the place of the next byte to send */
	pattern_place in;  /* the place of the next byte to come back */
	uint32_t size;
	uint32_t depth; /* most messages in flight; 0 for a stream */
	uint32_t left;  /* bytes of the oldest message still to come back */
	uint64_t granted, sent, received;
	uint64_t started, finished; /* messages */

	/* Times of the messages in flight: message m at m & mask; 0: none there. For a stream one mark at a time:
	 * stamps[0] is when the byte before `mark` was sent. */
	uint64_t *stamps;
	uint64_t mask;
	uint64_t mark;

	uint64_t due; /* messages that are due and not begun (open loop) */
	uint64_t due_tick; /* the tick of the oldest of them */
};

/* How many times a flow of `depth` needs room for. */
size_t flow_stamps_needed(uint32_t depth);

/* `stamps` has room for flow_stamps_needed(depth), all 0, and stays the caller's. */
void flow_init(struct flow *flow, uint32_t index, uint32_t size, uint32_t depth, uint64_t *stamps);

/* Whether one more message may be begun. */
static inline bool flow_has_room(const struct flow *flow)
{
	/* Datagrams may be answered in any order: then the place may be taken though there are fewer than `depth`. */
	return flow->started - flow->finished < flow->depth && flow->stamps[flow->started & flow->mask] == 0;
}

/* Begin a message whose latency counts from `when` (not 0). There must be room. */
static inline void flow_start(struct flow *flow, uint64_t when)
{
	flow->stamps[flow->started++ & flow->mask] = when;
	flow->granted += flow->size;
}

/* Let a stream run `window` bytes ahead of what came back. */
static inline void flow_grant(struct flow *flow, uint64_t window)
{
	if (flow->received + window > flow->granted)
		flow->granted = flow->received + window;
}

/* The bytes to send next, in one piece, at most `most`: their number in `*length` (0: none). */
const uint8_t *flow_out(const struct flow *flow, size_t most, size_t *length);

/* `length` bytes of these were handed over to be sent, at `now`. */
void flow_sent(struct flow *flow, size_t length, uint64_t now);

/* `length` bytes came back at `now`. Of the messages they end, those that began at `since` or later are added to
 * `histogram` (unless it is NULL). Returns how many those are (0 for a stream), or -EBADMSG where a byte
 * differs or was never sent; then `*fault` is its offset in the stream. */
int64_t flow_received(struct flow *flow, const void *bytes, size_t length, uint64_t since, uint64_t now,
		      struct histogram *histogram, uint64_t *fault);

/* Give up the messages in flight, as the connection is gone: the next one begins afresh. Returns how many. */
uint64_t flow_abandon(struct flow *flow);

#endif
