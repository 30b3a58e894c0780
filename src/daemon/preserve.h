/* SPDX-License-Identifier: ISC */
/* preserve.h - live connections in the service manager's descriptor store, over a restart
 *
 * Workers hand connections over one at a time, through one queue (handover.h), which without privileges holds a few
 * hundred. When the service stops and will be started again, the supervisor takes them out of that queue, and sends them
 * in packs (pack.h) into queues of which the service manager keeps the receiving end: struct preserve. The next process
 * takes the packs apart and feeds the queue of its workers: struct restore. Order is kept. Supervisor only; nothing here
 * waits.
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
	unsigned queues_left;      /* queues that the store still has room for */
	int highest;               /* descriptor that arrived last: the lowest free one */
	uint64_t kept;             /* connections sent */
	struct drain *flush;       /* where connections go that are not quiet; NULL: all are preserved as they are */
	struct stats_slot *slot;   /* where damaged connections are counted */
};

/* Begin. `number` and those that follow are free names in the store, which has room for `queues` queues. */
void preserve_init(struct preserve *preserve, unsigned number, unsigned queues, struct stats_slot *slot);

/* Take at most `most` connections from `inbox`. Returns 1 where more may wait, 0 where none does; or -errno where no more can
 * be taken now: then a connection may be in `*rest`, the caller's; else its fd is -1. */
int preserve_take(struct preserve *preserve, int inbox, unsigned most, struct new_conn *rest);

/* Add a connection; takes it over. Returns 0, or -errno with the connection still the caller's. preserve_or_flush() has it
 * flushed first where it is not quiet: where it owes bytes, or its peer has sent or not acknowledged some. */
int preserve_or_flush(struct preserve *preserve, struct new_conn *new_conn);
int preserve_add(struct preserve *preserve, struct new_conn *new_conn);

/* Add a pack that was received and has not been read; it is empty then. Returns 0 or -ENOMEM. */
int preserve_add_pack(struct preserve *preserve, struct pack *pack);

/* Whether workers can hand connections over: 0; -ETOOMANYREFS where more descriptors are in flight than RLIMIT_NOFILE allows. */
int preserve_check_flight(void);

/* Send what is left, in order, as far as possible. Returns 0; or -errno with connections left (preserve_next()). */
int preserve_finish(struct preserve *preserve);

/* Send one connection at once; takes it over. Nothing else may be left to be sent. Returns 0; or -errno with the connection
 * still the caller's, in `*new_conn`. */
int preserve_one(struct preserve *preserve, struct new_conn *new_conn);

/* Take back a connection that could not be sent. Returns whether there was one. */
bool preserve_next(struct preserve *preserve, struct new_conn *new_conn);

/* Free it all. What was sent is in the store. */
void preserve_clear(struct preserve *preserve);

/* --- at a start ------------------------------------------------------------------------ */

struct restore {
	struct fdstore_queues queues;  /* from the store, in order */
	unsigned at;                 /* of them, the one being read */
	struct pack pack;            /* being taken apart */
	struct new_conn new_conn;      /* did not fit into the queue of the workers */
	bool holding;                /* there is one in `new_conn` */
	int64_t retry_at;            /* clock_usec() at which to go on although the queue says nothing; INT64_MAX: no need */
	struct stats_slot *slot;     /* where damaged connections are counted */
};

/* Begin with what the store had; takes `queues` over. */
void restore_init(struct restore *restore, const struct fdstore_queues *queues, struct stats_slot *slot);

/* Whether there are still connections to be fed to the workers. */
bool restore_active(const struct restore *restore);

/* How many. */
unsigned restore_waiting(const struct restore *restore);

/* Queues that are still in the store, and a number beyond those of all of them. */
unsigned restore_queues(const struct restore *restore);
unsigned restore_free_number(const struct restore *restore);

/* Feed the queue of the workers: at most PACK_MAX connections, as far as there is room. To be called when `outbox` can be
 * written to, or at retry_at. */
void restore_feed(struct restore *restore, int outbox);

/* Take the next connection, instead of feeding it. Returns whether there was one. */
bool restore_next(struct restore *restore, struct new_conn *new_conn);

/* Move all that is left to `preserve`. Returns 0, or -errno with connections left (restore_next()). */
int restore_preserve(struct restore *restore, struct preserve *preserve);

/* Have the manager forget the queues that still hold connections. */
void restore_forget(const struct restore *restore);

/* Close what is left. It is lost, unless the manager still has its queue. */
void restore_clear(struct restore *restore);

#endif
