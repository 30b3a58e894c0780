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

/* Take all that wait in `inbox`; each may hold `limit` bytes. They are counted in `slot`.
 * Returns their number. */
int leavers_take(struct leavers *leavers, int inbox, size_t limit, struct stats_slot *slot);

/* Echo what can be echoed now; false once everybody has got everything. To be called again in 10 ms. */
bool leavers_serve(struct leavers *leavers);

/* Close those that are left and free it all. Returns their number. */
unsigned leavers_cut(struct leavers *leavers);

#endif
