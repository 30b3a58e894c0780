/* state.h - a connection as a message, for another worker, another model, another process
 *
 * Fixed-size, host byte order (it never leaves the machine), versioned. The descriptor and the
 * owed bytes travel beside it (handover.h). Pure; any thread.
 */
#ifndef ECHOD_ECHO_STATE_H
#define ECHOD_ECHO_STATE_H

#include <stddef.h>
#include <stdint.h>

#include "echo/conn.h"
#include "net/peer.h"

#define STATE_MAGIC UINT32_C(0x65636864) /* "echd" */
#define STATE_VERSION 1

/* What stands in a message. New fields go to the end with a new version; an older reader
 * refuses a version it does not know. */
struct state {
	uint32_t magic;
	uint16_t version;
	uint16_t size;     /* of this struct */
	uint32_t flags;    /* STATE_* */
	uint32_t owed;     /* bytes owed, in the file that travels along where not 0 */
	uint64_t echoed;
	int64_t since;     /* clock_usec() */
	int64_t active;    /* clock_usec() of the last movement */
	uint8_t address[16];
	uint32_t scope;
	uint16_t port;
	uint16_t family;
	uint32_t check;    /* over all before it */
	uint32_t reserved; /* 0 */
};

#define STATE_EOF 1U

/* Describe `conn`, whose owed bytes are all in memory, in `*state`. */
void state_encode(struct state *state, const struct conn *conn, const struct peer *peer, int64_t active);

/* Read a message of `size` bytes at `message`. `now` is clock_usec(). Fills `*conn` (owing nothing yet), `*peer`,
 * `*active` and `*owed` (bytes to be read from the file that travelled along).
 * Returns 0, or -EINVAL (damaged) or -ENOTSUP (another version), `*conn` untouched. */
int state_decode(const void *message, size_t size, int64_t now, struct conn *conn, struct peer *peer,
                 int64_t *active, uint32_t *owed);

#endif
