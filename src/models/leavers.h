/* leavers.h - connections that waited in the queue when it became clear that no successor will come
 *
 * They are drained, as those of a stopping worker are. Supervisor only.
 */
#ifndef ECHOD_MODELS_LEAVERS_H
#define ECHOD_MODELS_LEAVERS_H

#include <stdbool.h>
#include <stddef.h>

#include "models/turn.h"

struct leavers {
	struct list sessions;
	struct turn turn;
	struct stats_tally tally;
	struct stats_slot *slot;
};

/* Messages taken from the queue in one call of leavers_take(): whoever still holds the sending end could keep it filled. */
#define LEAVERS_BATCH 1024

/* Prepare; each connection may hold `limit` bytes, and is counted in `slot`. Returns 0 or -ENOMEM. */
int leavers_open(struct leavers *leavers, size_t limit, struct stats_slot *slot);

/* Take at most LEAVERS_BATCH messages from `inbox`, and add the number of connections to `*count`. Returns whether more may
 * be waiting. */
bool leavers_take(struct leavers *leavers, int inbox, unsigned *count);

/* Echo what can be echoed now; false once everybody has got everything. To be called again in 10 ms. */
bool leavers_serve(struct leavers *leavers);

/* Close those that are left and free it all. Returns their number. */
unsigned leavers_cut(struct leavers *leavers);

#endif
