/* SPDX-License-Identifier: ISC */
/* drain.h - connections that no worker serves any more, drained by the supervisor
 *
 * They were handed over, and neither a successor nor the service manager's store will take them. They are treated as
 * those of a stopping worker: what has arrived by now is echoed, then they end. Supervisor only.
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
	struct list flushed;     /* drain_take() */
	bool ready;              /* there is memory to drain anything */
	struct stats_slot *slot;
	unsigned count, live;    /* connections that were drained, and those that have not ended yet */
};

/* Prepare for connections that may hold `limit` bytes each, and are counted in `slot`. */
void drain_init(struct drain *drain, size_t limit, struct stats_slot *slot);

/* Drain `new_conn`, whose descriptor and memory it takes over. Where there is no memory, the connection is closed. */
void drain_add(struct drain *drain, const struct new_conn *new_conn);

/* With `flush`, a connection that has got everything does not end, but is returned by drain_take(); as long as that is set. */
void drain_set_flush(struct drain *drain, bool flush);

/* Take back a connection that has got everything, or with `all` any one. Returns whether there was one. */
bool drain_take(struct drain *drain, bool all, struct new_conn *new_conn);

/* Echo what can be echoed now; false once every connection has got everything. To be called again in 10 ms. */
bool drain_serve(struct drain *drain);

/* Close the connections that are left and free it all. Returns their number. */
unsigned drain_cut(struct drain *drain);

#endif
