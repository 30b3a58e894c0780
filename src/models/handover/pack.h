/* SPDX-License-Identifier: ISC */
/* pack.h - many connections in one message, for the service manager's descriptor store
 *
 * A socket buffer of the size that the kernel gives by default holds 555 messages, whatever their length up to 192
 * bytes: too few for a message for each connection. A pack carries up to PACK_MAX connections. Its message has one byte
 * (0) for each connection, so that FIONREAD says how many wait in a queue, and by SCM_RIGHTS first a file in memory, then
 * the connections. The file has a struct pack_header, and for each connection its state (state.h) and the bytes it owes.
 *
 * Written by one process, read by the next, which may be another version and trusts nothing in it. Supervisor only.
 */
#ifndef ECHOD_MODELS_PACK_H
#define ECHOD_MODELS_PACK_H

#include <stdbool.h>
#include <stdint.h>

#include "base/fdpass.h"
#include "base/list.h"
#include "models/session.h"

#define PACK_MAX (FDPASS_MAX - 1)

#define PACK_MAGIC UINT32_C(0x65636870) /* "echp" */
#define PACK_VERSION 1

struct pack_header {
	uint32_t magic;
	uint16_t version;
	uint16_t size;     /* of this header */
	uint32_t count;    /* connections */
	uint32_t reserved; /* 0 */
};

struct pack {
	struct list link;    /* the owner's */
	unsigned count;      /* connections in fds[] */
	unsigned next;       /* of them, the first that pack_next() has not returned */
	int file;            /* -1: none yet */
	int64_t at;          /* in the file: the next record to write, or once it is sealed to read */
	int64_t size;        /* of a sealed file */
	bool sealed;         /* nothing is added any more */
	int fds[PACK_MAX];
};

/* Begin with no connection. */
void pack_init(struct pack *pack);

/* Close all that is in it; it is empty then. */
void pack_clear(struct pack *pack);

/* Connections in it. */
unsigned pack_left(const struct pack *pack);

/* Add a connection to a pack that has fewer than PACK_MAX and was neither sent nor received. Takes over its descriptor and
 * memory. Returns 0, or -errno with everything still the caller's. */
int pack_add(struct pack *pack, struct new_conn *new_conn);

/* Nothing is added any more: it can be sent or read. pack_send() does that itself. Returns 0; or -errno: it can be read. */
int pack_seal(struct pack *pack);

/* Send it to `queue` (handover_pair()) without waiting; on success it is empty. Not after pack_next(). Returns 0 or -errno as
 * fdpass_send(). */
int pack_send(struct pack *pack, int queue);

/* Receive one from `queue` into an empty pack. Returns the number of connections, which may be 0: nothing waits; or -errno
 * where a message was damaged, of another version (-ENOTSUP), or beyond the limit of descriptors (-EMFILE): it is closed. */
int pack_receive(struct pack *pack, int queue);

/* Take the next connection out of it. Returns 1 with `*new_conn` filled in; 0: there is none; or -errno where a connection, or
 * all that were left (see pack_left()), could not be read: they are closed. */
int pack_next(struct pack *pack, struct new_conn *new_conn);

/* How many connections wait in `queue`. */
unsigned pack_waiting(int queue);

#endif
