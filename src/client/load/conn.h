/* SPDX-License-Identifier: ISC */
/* conn.h - state of one connection under load: what was started, sent, and came back
 *
 * A connection sends messages of one size, one after the other, from the pattern. The latency of a message
 * counts from the time at which it was started, or was due. There are no system calls here, and nothing
 * depends on the engine. Pure; a connection belongs to one thread.
 *
 *     granted >= sent >= received    in bytes of the connection
 *     granted = started * size       except for streams, where bytes are granted
 */
#ifndef ECHOD_CLIENT_LOAD_CONN_H
#define ECHOD_CLIENT_LOAD_CONN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "client/histogram.h"
#include "client/pattern.h"

enum load_conn_state {
	LOAD_CONN_CLOSED, /* not connected: not yet, between two connections (connect mode), or failed */
	LOAD_CONN_CONNECTING,
	LOAD_CONN_OPEN,
	LOAD_CONN_CLOSING, /* connect mode: all data came back, our side is closed */
};

/* An outstanding message. A free entry is all 0. */
struct load_stamp {
	uint64_t start;   /* its latency counts from then: when it was started, or was due */
	uint64_t sent;    /* datagrams: when it was sent; 0: not yet */
	uint64_t message; /* its number */
};

struct load_conn {
	int fd;
	uint32_t index;  /* among all connections of the run */
	uint8_t state;   /* enum load_conn_state */
	bool active;     /* takes part (--ramp) */
	bool send_armed; /* for the engine: EPOLLOUT is requested, or a send is in flight */
	bool recv_armed; /* for the engine: a receive is in flight */
	bool drained;    /* nothing more will be started, and everything came back */
	bool dead;       /* failed, not used again */
	bool no_port;    /* waits for a local port */

	pattern_offset out; /* of the next byte to send */
	pattern_offset in;  /* of the next byte to come back */
	uint32_t size;
	uint32_t depth; /* maximum number of outstanding messages; 0: a stream */
	uint32_t left;  /* bytes of the oldest outstanding message that have not come back */
	uint64_t granted, sent, received;
	uint64_t started, finished; /* messages */

	/* The outstanding messages: message m at index m & mask. A stream measures one byte at a time:
	 * stamps[0].start is the time at which the byte before offset `mark` was sent. */
	struct load_stamp *stamps;
	uint64_t mask;
	uint64_t mark;

	uint64_t due;      /* open loop: messages that are due and not started */
	uint64_t due_tick; /* tick of the oldest of them */
};

/* Number of stamps that a connection with `depth` needs. */
size_t load_conn_stamps_needed(uint32_t depth);

/* `stamps` has load_conn_stamps_needed(depth) elements, all 0; they stay the caller's. */
void load_conn_init(struct load_conn *conn, uint32_t index, uint32_t size, uint32_t depth,
		    struct load_stamp *stamps);

/* Whether one more message may be started. */
static inline bool load_conn_has_room(const struct load_conn *conn)
{
	return conn->started - conn->finished < conn->depth;
}

/* Start a message whose latency counts from `when` (not 0). There must be room. */
static inline void load_conn_start(struct load_conn *conn, uint64_t when)
{
	/* Datagrams are answered in any order. Skip numbers whose entry belongs to an older message that is
	 * outstanding. */
	while (conn->stamps[conn->started & conn->mask].start != 0) {
		conn->started++;
		conn->finished++;
	}
	conn->stamps[conn->started & conn->mask] = (struct load_stamp) { .start = when,
									 .message = conn->started };
	conn->started++;
	conn->granted += conn->size;
}

/* The latency of the oldest outstanding message counts from `when`. */
static inline void load_conn_restart(struct load_conn *conn, uint64_t when)
{
	conn->stamps[conn->finished & conn->mask].start = when;
}

/* Allow a stream to have `window` bytes outstanding. */
static inline void load_conn_grant(struct load_conn *conn, uint64_t window)
{
	if (conn->received + window > conn->granted)
		conn->granted = conn->received + window;
}

/* The bytes to send next, contiguous, at most `max`; their number in `*length` (0: none). */
const uint8_t *load_conn_out(const struct load_conn *conn, size_t max, size_t *length);

/* The first `length` of these bytes were sent at `now`. */
void load_conn_sent(struct load_conn *conn, size_t length, uint64_t now);

/* `length` bytes came back at `now`. The latencies of messages that are complete now and were started at
 * `since` or later are added to `histogram` (may be NULL). Returns the number of messages that are complete
 * now (0 for a stream); -EBADMSG if a byte differs or was never sent, with its offset in the stream in
 * `*fault`. */
int64_t load_conn_received(struct load_conn *conn, const void *bytes, size_t length, uint64_t since,
			   uint64_t now, struct histogram *histogram, uint64_t *fault);

/* Forget the outstanding messages, because the connection is closed. Returns their number. */
uint64_t load_conn_abandon(struct load_conn *conn);

#endif
