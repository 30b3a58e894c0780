/* connection.h - the account of one connection under load: what was begun, sent, and came back
 *
 * A connection sends messages of one size, back to back, out of the pattern; each has a time from which its
 * latency counts: when it was begun, or when it was due. A connection makes no system call and knows no engine.
 * Pure; a connection belongs to one thread.
 *
 *     granted >= sent >= received          all in bytes of this connection's stream
 *     granted = started * size             (streams apart: there bytes are granted, not messages)
 */
#ifndef ECHOD_CLIENT_FLOW_H
#define ECHOD_CLIENT_FLOW_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "client/histogram.h"
#include "client/pattern.h"

enum load_conn_state {
	LOAD_CONN_CLOSED, /* has no connection: not yet, between two (connect mode), or lost */
	LOAD_CONN_CONNECTING,
	LOAD_CONN_OPEN,
	LOAD_CONN_CLOSING, /* all came back; the end is said, the server's is awaited (connect mode) */
};

struct load_conn {
	int fd;
	uint32_t index;  /* among all connections of the run */
	uint8_t state;   /* enum load_conn_state */
	bool active;     /* takes part (see --ramp) */
	bool send_armed; /* the engine's: EPOLLOUT is asked for; a send is in flight */
	bool recv_armed; /* the engine's: a receive is in flight */
	bool settled;    /* nothing more will be begun, and all came back */
	bool dead;       /* lost for good */

	pattern_offset out; /* the place of the next byte to send */
	pattern_offset in;  /* the place of the next byte to come back */
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

	uint64_t due;      /* messages that are due and not begun (open loop) */
	uint64_t due_tick; /* the tick of the oldest of them */
};

/* How many times a connection of `depth` needs room for. */
size_t load_conn_stamps_needed(uint32_t depth);

/* `stamps` has room for load_conn_stamps_needed(depth), all 0, and stays the caller's. */
void load_conn_init(struct load_conn *conn, uint32_t index, uint32_t size, uint32_t depth, uint64_t *stamps);

/* Whether one more message may be begun. */
static inline bool load_conn_has_room(const struct load_conn *conn)
{
	/* Datagrams may be answered in any order: then the place may be taken though there are fewer than `depth`. */
	return conn->started - conn->finished < conn->depth && conn->stamps[conn->started & conn->mask] == 0;
}

/* Begin a message whose latency counts from `when` (not 0). There must be room. */
static inline void load_conn_start(struct load_conn *conn, uint64_t when)
{
	conn->stamps[conn->started++ & conn->mask] = when;
	conn->granted += conn->size;
}

/* Let a stream run `window` bytes ahead of what came back. */
static inline void load_conn_grant(struct load_conn *conn, uint64_t window)
{
	if (conn->received + window > conn->granted)
		conn->granted = conn->received + window;
}

/* The bytes to send next, in one piece, at most `most`: their number in `*length` (0: none). */
const uint8_t *load_conn_out(const struct load_conn *conn, size_t most, size_t *length);

/* `length` bytes of these were handed over to be sent, at `now`. */
void load_conn_sent(struct load_conn *conn, size_t length, uint64_t now);

/* `length` bytes came back at `now`. Of the messages they end, those that began at `since` or later are added to
 * `histogram` (unless it is NULL). Returns how many those are (0 for a stream), or -EBADMSG where a byte
 * differs or was never sent; then `*fault` is its offset in the stream. */
int64_t load_conn_received(struct load_conn *conn, const void *bytes, size_t length, uint64_t since,
			   uint64_t now, struct histogram *histogram, uint64_t *fault);

/* Give up the messages in flight, as the connection is gone: the next one begins afresh. Returns how many. */
uint64_t load_conn_abandon(struct load_conn *conn);

#endif
