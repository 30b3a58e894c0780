/* SPDX-License-Identifier: ISC */
/* pack.h - many connections in one message, for the service manager's descriptor store
 *
 * A socket buffer of the default size has room for 555 messages of up to 192 bytes: too few for one message
 * for each connection. A pack contains up to PACK_MAX connections. Its message has one byte (0) for each
 * connection, so that FIONREAD returns the number of connections in a queue, and by SCM_RIGHTS first a file
 * in memory, then the connections. The file has a struct pack_header, and for each connection its state
 * (state.h) and the bytes it owes.
 *
 * Written by one process and read by the next, which may be another version and checks everything. Supervisor
 * only.
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
	uint16_t size;     /* bytes of this header */
	uint32_t count;    /* connections */
	uint32_t reserved; /* 0 */
};

struct pack {
	struct list link;    /* for the owner */
	unsigned count;      /* number of connections in fds[] */
	unsigned next;       /* index of the first one that pack_next() has not returned */
	int file;            /* -1: none yet */
	int64_t at; /* offset in the file of the next record to write, or, once it is sealed, to read */
	int64_t size;        /* bytes of a sealed file */
	bool sealed;         /* no connection can be added */
	int fds[PACK_MAX];
};

/* Initialize an empty pack. */
void pack_init(struct pack *pack);

/* Close all descriptors and empty the pack. */
void pack_clear(struct pack *pack);

/* Number of connections that pack_next() has not returned. */
unsigned pack_left(const struct pack *pack);

/* Add a connection to a pack that has fewer than PACK_MAX and was neither sent nor received. Takes over its
 * descriptor and memory. Returns 0, or -errno with everything still owned by the caller. */
int pack_add(struct pack *pack, struct new_conn *new_conn);

/* End adding, so that the pack can be sent or read; pack_send() calls it. Returns 0, or -errno after which it
 * can only be read. */
int pack_seal(struct pack *pack);

/* Send the pack to `queue` (handover_pair()) without blocking; on success it is empty. Not allowed after
 * pack_next(). Returns 0 or -errno as fdpass_send(). */
int pack_send(struct pack *pack, int queue);

/* Receive a pack from `queue` into an empty one. Returns the number of connections; 0: the queue is empty; or
 * -errno where a message was damaged, of another version (-ENOTSUP), or beyond the limit of descriptors
 * (-EMFILE): it is closed. */
int pack_receive(struct pack *pack, int queue);

/* Take the next connection out of the pack. Returns 1 with `*new_conn` filled in; 0: none is left; or -errno
 * where a connection, or all remaining ones (see pack_left()), could not be read: they are closed. */
int pack_next(struct pack *pack, struct new_conn *new_conn);

/* The number of connections in `queue`. */
unsigned pack_waiting(int queue);

#endif
