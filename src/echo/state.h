/* SPDX-License-Identifier: ISC */
/* state.h - the record of a connection that is handed over: to another worker, model, process or version
 *
 * The layout is fixed (native byte order, because a record never leaves the machine). The connection's
 * descriptor and its owed bytes travel beside it (handover.h, pack.h). Pure; any thread.
 *
 * How to change the layout: append a field to struct state if older readers may ignore it; it reads as 0
 * where an older writer did not write it. Where ignoring it would be wrong, the writer also sets a new bit of
 * `flags`: a reader refuses unknown bits. Any other change needs a new STATE_VERSION.
 */
#ifndef ECHOD_ECHO_STATE_H
#define ECHOD_ECHO_STATE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "echo/conn.h"
#include "net/proxy.h"

#define STATE_MAGIC UINT32_C(0x65636864) /* "echd" */
#define STATE_VERSION 2

/* Size of a record in bytes, of this version and of later ones. The kernel charges the socket buffers of the
 * queue 768 bytes for a message of up to 192 bytes, and much more for a longer one. */
#define STATE_SIZE_MIN 72U
#define STATE_SIZE_MAX 192U

/* Twice the largest buffer-size: more than any connection owes. */
#define STATE_OWED_MAX (UINT32_C(32) << 20)

/* Set by the writer. The reader checks every field. */
struct state {
	uint32_t magic;
	uint16_t version;
	uint16_t size;     /* bytes of the record */
	uint32_t check;    /* over the record without this field: detects damage, not forgery */
	uint32_t flags;    /* STATE_* */
	uint32_t owed;     /* bytes owed; they travel in a file */
	uint32_t scope;
	uint64_t echoed;
	int64_t since;     /* clock_usec() */
	int64_t active;    /* clock_usec() of the last byte sent or received */
	uint8_t address[16];
	uint16_t port;
	uint16_t family;
	uint32_t reserved; /* 0 */
	/* the proxy, since 1.1; its family is 0 where there is none */
	uint8_t proxy_address[16];
	uint32_t proxy_scope;
	uint16_t proxy_port;
	uint16_t proxy_family;
	uint32_t header_left; /* struct proxied */
	uint32_t reserved_too; /* 0 */
};

_Static_assert(sizeof(struct state) >= STATE_SIZE_MIN && sizeof(struct state) <= STATE_SIZE_MAX, "the size "
                                                                                                 "of a "
                                                                                                 "record");

#define STATE_EOF 1U
#define STATE_UNADMITTED 2U /* accepted, but max-per-source has not been checked */

#define STATE_HEADER \
	4U /* a PROXY protocol header is still expected: the bytes owed are its begin; not admitted yet */

/* Fill `*state` from `conn`. `flags` is 0 or STATE_UNADMITTED. */
void state_encode(struct state *state, const struct conn *conn, const struct peer *peer,
                  const struct proxied *proxied, int64_t active, uint32_t flags);

/* Check the header of a record at the beginning of `size` bytes. Returns the size of the record, -EINVAL
 * (damaged or incomplete), or -ENOTSUP (another version). */
int state_size(const void *bytes, size_t size);

/* Whether a record that state_decode() has accepted has STATE_UNADMITTED. */
bool state_is_unadmitted(const void *bytes);

/* Read a record of `size` bytes. `now` is clock_usec(). Fills `*conn` (owing nothing yet), `*peer`,
 * `*proxied`, `*active` and `*owed` (number of bytes to read from the file that came with the record).
 * Returns 0, or -EINVAL (damaged) or -ENOTSUP (another version) with nothing filled in. */
int state_decode(const void *bytes, size_t size, int64_t now, struct conn *conn, struct peer *peer,
                 struct proxied *proxied, int64_t *active, uint32_t *owed);

#endif
