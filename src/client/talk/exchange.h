/* SPDX-License-Identifier: ISC */
/* exchange.h - send one piece of data and wait until the same piece has come back
 *
 * Used for lines typed on a terminal and for datagrams. Main thread. Errors have been printed when a
 * function returns.
 */
#ifndef ECHOD_CLIENT_EXCHANGE_H
#define ECHOD_CLIENT_EXCHANGE_H

#include <stddef.h>
#include <stdint.h>

#include "client/error.h"

#define EXCHANGE_RECENT 16

struct client_options;
struct target;

/* Result of one step of a transfer. */
enum step {
	STEP_CONTINUE, /* nothing has ended */
	STEP_TIMEOUT,  /* the time limit of the step has passed */
	STEP_DONE,     /* the transfer, or the piece, has ended; its outcome is in the struct */
};

/* Totals for the summary. */
struct transfer {
	uint64_t sent, matched; /* bytes */
	uint64_t retransmits;   /* datagrams sent again */
	uint64_t lost;          /* of these, not because the answer was only late */
};

struct exchange {
	const struct client_options *options;
	const struct target *target;
	int net;          /* connected, non-blocking; owned by the caller */
	uint8_t *back;    /* the piece that came back last; as long as the piece that was sent */
	size_t back_size; /* allocated bytes of `back` */
	struct transfer done;
	enum outcome outcome;

	/* Datagrams: how long the previous answer took, and when a duplicate answer to a retransmission
	 * comes at the latest. */
	uint64_t answer_time, duplicates_until;
	int error; /* the last errno that the socket reported; 0: none */

	/* The datagrams answered last: a duplicate answer to one of them is not an answer to the current
	 * one. */
	uint8_t *recent[EXCHANGE_RECENT];
	size_t recent_length[EXCHANGE_RECENT];
	unsigned recent_copies[EXCHANGE_RECENT]; /* retransmissions whose answer has not come */
	unsigned recent_next;
};

void exchange_init(struct exchange *exchange, const struct client_options *options,
		   const struct target *target, int net);
void exchange_clear(struct exchange *exchange);

/* Send `size` bytes (over UDP at most one datagram) and wait until they have come back, in exchange->back.
 * Returns OUTCOME_OK, or the outcome with which to end. */
enum outcome exchange_piece(struct exchange *exchange, const uint8_t *bytes, size_t size);

/* Datagrams: wait for duplicate answers that are expected, so that done.lost is right. */
void exchange_finish(struct exchange *exchange);

/* Error messages for the modules of talk/. */

/* The byte at `offset` of the stream (from 0) differs. */
enum outcome exchange_error_differs(const struct target *target, uint64_t offset, uint8_t sent,
				    uint8_t received);

/* The server closed the connection (`error` is 0), or it broke. `detail` is appended. */
enum outcome exchange_error_closed(const struct target *target, int error, const char *detail);

#endif
