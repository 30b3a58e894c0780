/* state.h - the state of a connection as it is handed over: to another worker, model, process or version
 *
 * A record of a fixed layout (native byte order: it never leaves the machine). The connection's descriptor and the
 * bytes owed travel beside it (handover.h, pack.h). Pure; any thread.
 *
 * How the layout may change: a field that an older reader may ignore is appended to struct state, and reads as 0 where
 * an older writer did not write it. Where ignoring it would be wrong, the writer also sets a new bit of `flags`: a
 * reader refuses bits that it does not know. Only a change that is neither needs another STATE_VERSION.
 */
#ifndef ECHOD_ECHO_STATE_H
#define ECHOD_ECHO_STATE_H

#include <stddef.h>
#include <stdint.h>

#include "echo/conn.h"
#include "net/peer.h"

#define STATE_MAGIC UINT32_C(0x65636864) /* "echd" */
#define STATE_VERSION 2

/* Bytes of a record, of this version and of later ones. The socket buffers of the queue are charged 768 bytes for a
 * message of up to 192 bytes, and much more for a longer one. */
#define STATE_SIZE_MIN 72U
#define STATE_SIZE_MAX 192U

/* More than any connection owes: twice the largest buffer-size. */
#define STATE_OWED_MAX (UINT32_C(32) << 20)

/* Set by the writer, checked by the reader, which trusts nothing in it. */
struct state {
	uint32_t magic;
	uint16_t version;
	uint16_t size;     /* of the record */
	uint32_t check;    /* over all of the record but this field: it tells damage, not malice */
	uint32_t flags;    /* STATE_* */
	uint32_t owed;     /* bytes owed, which travel in a file */
	uint32_t scope;
	uint64_t echoed;
	int64_t since;     /* clock_usec() */
	int64_t active;    /* clock_usec() of the last movement */
	uint8_t address[16];
	uint16_t port;
	uint16_t family;
	uint32_t reserved; /* 0 */
};

_Static_assert(sizeof(struct state) >= STATE_SIZE_MIN && sizeof(struct state) <= STATE_SIZE_MAX, "the size of a record");

#define STATE_EOF 1U

/* Describe `conn` in `*state`. */
void state_encode(struct state *state, const struct conn *conn, const struct peer *peer, int64_t active);

/* The size of the record that begins with these `size` bytes, where it is one of this version and complete. Returns it;
 * -EINVAL (damaged), or -ENOTSUP (another version). */
int state_size(const void *bytes, size_t size);

/* Read a record of `size` bytes. `now` is clock_usec(). Fills `*conn` (owing nothing yet), `*peer`, `*active` and `*owed`
 * (bytes to be read from the file that travelled along).
 * Returns 0, or -EINVAL (damaged) or -ENOTSUP (another version), with nothing filled in. */
int state_decode(const void *bytes, size_t size, int64_t now, struct conn *conn, struct peer *peer, int64_t *active,
                 uint32_t *owed);

#endif
