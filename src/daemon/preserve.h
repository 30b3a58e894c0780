/* SPDX-License-Identifier: ISC */
/* preserve.h - live connections in the service manager's descriptor store, over a restart
 *
 * Workers hand connections over one at a time, through one queue (handover.h), which without privileges has
 * room for a few hundred. When the service stops and will be started again, the supervisor receives them from
 * that queue, and sends them in packs (pack.h) into queues whose receiving ends are stored in the service
 * manager: struct preserve. The next process unpacks them into the queue of its workers: struct restore.
 * Order is kept. Supervisor only; no function blocks.
 */
#ifndef ECHOD_DAEMON_PRESERVE_H
#define ECHOD_DAEMON_PRESERVE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/list.h"
#include "daemon/fdstore.h"
#include "echo/stats.h"
#include "models/handover/drain.h"
#include "models/handover/pack.h"
#include "models/session.h"

/* --- at a stop ------------------------------------------------------------------------- */

struct preserve {
	struct list packs;         /* not sent yet, in order; the last one is being filled */
	int queue;                 /* sending end of the last queue; -1: none yet */
	unsigned number;           /* of the next queue in the store */
	unsigned queues_left;      /* queues that still fit into the store */
	int highest;               /* last descriptor that was received: the lowest free one */
	uint64_t kept;             /* number of connections sent */
	struct drain *flush; /* connections that are not quiet go here; NULL: all are preserved as they are */
	struct stats_slot *slot;   /* counts damaged connections */
};

/* Initialize. Names from `number` on are unused in the store, which has room for `queues` queues. */
void preserve_init(struct preserve *preserve, unsigned number, unsigned queues, struct stats_slot *slot);

/* Take at most `max_count` connections from `inbox`. Returns 1 where more may be in the queue, 0 where it is
 * empty, or -errno where no more can be taken now. After an error `rest->fd` is -1, or `*rest` is a
 * connection that the caller owns. */
int preserve_take(struct preserve *preserve, int inbox, unsigned max_count, struct new_conn *rest);

/* Add a connection and take it over. Returns 0, or -errno with the connection still owned by the caller.
 * preserve_or_flush() flushes it first where it is not quiet: where it owes bytes, or bytes from or to its
 * peer are in the kernel. */
int preserve_or_flush(struct preserve *preserve, struct new_conn *new_conn);
int preserve_add(struct preserve *preserve, struct new_conn *new_conn);

/* Whether workers can hand connections over: 0, or -ETOOMANYREFS where more descriptors are in flight than
 * RLIMIT_NOFILE allows. */
int preserve_check_flight(void);

/* Send the remaining connections in order. Returns 0, or -errno with connections left (preserve_next()). */
int preserve_finish(struct preserve *preserve);

/* Send one connection at once and take it over; no other connection may be left to send. Returns 0, or -errno
 * with the connection in `*new_conn`, owned by the caller. */
int preserve_one(struct preserve *preserve, struct new_conn *new_conn);

/* Take back a connection that could not be sent. Returns whether there was one. */
bool preserve_next(struct preserve *preserve, struct new_conn *new_conn);

/* Free everything. Connections that were sent are in the store. */
void preserve_clear(struct preserve *preserve);

/* --- at a start ------------------------------------------------------------------------ */

struct restore {
	struct fdstore_queues queues;  /* from the store, in order */
	unsigned at;                 /* index of the queue being read */
	struct pack pack;            /* being unpacked */
	struct new_conn new_conn;      /* a connection that did not fit into the queue of the workers */
	bool has_new_conn;                /* `new_conn` is valid */
	int64_t retry_at; /* clock_usec() at which to go on without an event of the queue; INT64_MAX: none */
	struct stats_slot *slot;     /* counts damaged connections */
	struct preserve overflow;    /* in memory: connections taken out of the queue of the workers */
};

/* Initialize with the queues of the store; takes them over. */
void restore_init(struct restore *restore, const struct fdstore_queues *queues, struct stats_slot *slot);

/* Whether connections remain to be fed to the workers. */
bool restore_active(const struct restore *restore);

/* The number of these connections. */
unsigned restore_waiting(const struct restore *restore);

/* The number of queues that are still in the store, and a number higher than all of theirs. */
unsigned restore_queues(const struct restore *restore);
unsigned restore_free_number(const struct restore *restore);

/* Feed the queue of the workers: at most PACK_MAX connections, as far as they fit. Call it when `outbox` is
 * writable, or at retry_at. */
void restore_feed(struct restore *restore, int outbox);

/* The queue of the workers is full, and workers that stop wait for space in it: take a batch of connections
 * out of `inbox`, to be fed back later. What cannot be kept goes back into `outbox`. */
void restore_take(struct restore *restore, int inbox, int outbox);

/* Send a connection to `outbox` and take it over; where that fails, keep it in memory, to be fed later. If
 * there is no memory either, it is closed, counted and logged. */
void restore_add(struct restore *restore, int outbox, struct new_conn *new_conn);

/* Take the next connection, instead of feeding it. Returns whether there was one. */
bool restore_next(struct restore *restore, struct new_conn *new_conn);

/* Move the remaining connections to `preserve`. Returns 0, or -errno with connections left
 * (restore_next()). */
int restore_preserve(struct restore *restore, struct preserve *preserve);

/* Remove queues that still have connections from the store. */
void restore_forget(const struct restore *restore);

/* Close the remaining connections. They are lost, unless the manager still has their queue. */
void restore_clear(struct restore *restore);

#endif
