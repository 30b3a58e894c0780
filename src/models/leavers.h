/* leavers.h - connections that waited in the queue when it became clear that no successor will come
 *
 * They are drained, as those of a stopping worker are. Supervisor only.
 */
#ifndef ECHOD_MODELS_LEAVERS_H
#define ECHOD_MODELS_LEAVERS_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "models/turn.h"

struct leavers {
	struct list sessions;
	struct turn turn;
	struct stats_tally tally;
	_Atomic uint64_t *counters;
};

/* Take all that wait in `inbox`; each may hold `limit` bytes. They are counted in `counters` (of enum stats_counter).
 * Returns their number. */
int leavers_take(struct leavers *leavers, int inbox, size_t limit, _Atomic uint64_t *counters);

/* Echo what can be echoed now; false once everybody has got everything. To be called again in 10 ms. */
bool leavers_serve(struct leavers *leavers);

/* Close those that are left and free it all. Returns their number. */
unsigned leavers_cut(struct leavers *leavers);

#endif
