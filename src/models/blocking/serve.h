/* serve.h - one connection served to its end by the thread that calls
 *
 * What the blocking bodies have in common: a thread or process that has nothing else to do
 * waits for this one socket and for the order to stop.
 */
#ifndef ECHOD_MODELS_SERVE_H
#define ECHOD_MODELS_SERVE_H

#include "models/session.h"
#include "models/turn.h"

/* Serve `arrival` until it has ended or, after the order to stop, was handed over or drained.
 * `turn` has room for this thread alone. Shows life for `worker` meanwhile. */
void serve(struct worker *worker, struct turn *turn, const struct arrival *arrival);

/* Open a turn for a worker that serves one connection at a time. 0 or -errno. */
int serve_turn_open(struct turn *turn, struct worker *worker);

#endif
