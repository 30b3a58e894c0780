/* SPDX-License-Identifier: ISC */
/* drain.h - the supervisor drains connections that no worker serves any more
 *
 * These connections were handed over, and neither a successor nor the service manager's store takes them.
 * They are drained as in a stopping worker: data that have arrived are echoed, then they are closed. A
 * PROXY protocol header is received first; `allow` and `deny` apply to the peer that it names.
 * Supervisor only.
 */
#ifndef ECHOD_MODELS_DRAIN_H
#define ECHOD_MODELS_DRAIN_H

#include <stdbool.h>
#include <stddef.h>

#include "models/session_io.h"

struct drain {
	struct list sessions;
	struct session_io io;
	struct local_stats local_stats;
	struct list flushed;     /* for drain_take() */
	bool ready;              /* memory for draining is available */
	const struct worker *self; /* stands for the supervisor */
	unsigned count, live;    /* number of connections that were drained, and of those that have not
	                          * ended yet */
};

/* Initialize for the supervisor, which `self` stands for: conf, slot and admission, without max-per-source.
 * It must remain valid until drain_cut(). */
void drain_init(struct drain *drain, const struct worker *self);

/* Drain `new_conn`, whose descriptor and memory it takes over. Without memory, the connection is closed. One
 * that was not admitted before is refused where `allow` and `deny` say so. */
void drain_add(struct drain *drain, const struct new_conn *new_conn);

/* While `flush` is set, connections whose peer has acknowledged everything are not closed, but returned by
 * drain_take(). */
void drain_set_flush(struct drain *drain, bool flush);

enum drain_which {
	DRAIN_FLUSHED, /* connections whose peer has acknowledged everything */
	DRAIN_ALL,
};

/* Take back a connection. Returns whether there was one. */
bool drain_take(struct drain *drain, enum drain_which which, struct new_conn *new_conn);

/* Echo data that can be echoed now. Returns false once every connection has ended; otherwise call it again in
 * 10 ms. */
bool drain_serve(struct drain *drain);

/* Close the remaining connections and free all memory. Returns the number of connections. */
unsigned drain_cut(struct drain *drain);

#endif
