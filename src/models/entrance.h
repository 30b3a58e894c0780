/* entrance.h - where the blocking bodies wait for their next connection
 *
 * The intake with a small epoll(7) set around it, so that of many workers that wait for the
 * same listeners one is woken for each connection. One thread.
 */
#ifndef ECHOD_MODELS_ENTRANCE_H
#define ECHOD_MODELS_ENTRANCE_H

#include "models/intake.h"
#include "models/watch.h"

struct entrance {
	struct intake intake;
	struct ready *ready;
	struct watch *listeners;
	struct watch stop, inbox, room, other;
	bool listening, in_room, inheriting;
	bool stopping; /* the order to stop has come */
};

/* Begin to wait for the worker's listeners and inbox; `other` (-1: none) is one more descriptor
 * of the body's own whose readiness ends a wait. 0 or -errno. */
int entrance_open(struct entrance *entrance, struct worker *worker, int other);
void entrance_close(struct entrance *entrance);

/* Wait for the next connection. Returns 1 with `*arrival` filled in; 0 where something else
 * ended the wait: the order to stop (`stopping`), a sign of life that was due, `other`. */
int entrance_wait(struct entrance *entrance, struct arrival *arrival);

/* `busy`: the body can take no more for now, not even from the inbox. */
void entrance_busy(struct entrance *entrance, bool busy);

#endif
