/* exchange.h - one piece out, the same piece back: what lines typed in and datagrams are sent by
 *
 * Main thread. Each exchange waits for its answer. What went wrong has been said.
 */
#ifndef ECHOD_CLIENT_EXCHANGE_H
#define ECHOD_CLIENT_EXCHANGE_H

#include <stddef.h>
#include <stdint.h>

#define EXCHANGE_RECENT 16

struct client_options;
struct target;

struct exchange {
	const struct client_options *options;
	const struct target *target;
	int net;                /* non-blocking, connected; the caller's */
	uint8_t *back;          /* what came back last: as many bytes as were sent */
	size_t back_size;       /* its room */
	uint64_t sent, matched; /* bytes so far */
	uint64_t again;         /* datagrams that had to be sent again */

	/* Datagrams answered lately: a second answer to one of them is none to the present one. */
	uint8_t *recent[EXCHANGE_RECENT];
	size_t recent_length[EXCHANGE_RECENT];
	unsigned recent_next;
};

void exchange_init(struct exchange *exchange, const struct client_options *options,
		   const struct target *target, int net);
void exchange_clear(struct exchange *exchange);

/* Send `size` bytes (at most what a datagram holds, over UDP) and wait until they are back and compared; they are then in exchange->back.
 * Returns -1, or the outcome to end with. */
int exchange_piece(struct exchange *exchange, const uint8_t *bytes, size_t size);

#endif
