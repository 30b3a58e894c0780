/* SPDX-License-Identifier: ISC */
/* serve.h - serve one connection to its end in the calling thread
 *
 * Shared by the blocking bodies: a thread or process that serves one connection waits for this socket and for
 * the stop request.
 */
#ifndef ECHOD_MODELS_SERVE_H
#define ECHOD_MODELS_SERVE_H

#include "models/session.h"
#include "models/session_io.h"

/* Serve `new_conn` until it has ended, or was handed over or drained after a stop request. `io` is used by
 * this thread only. Increases the heartbeat of `worker`. Returns whether it was handed over. */
bool serve(struct worker *worker, struct session_io *io, const struct new_conn *new_conn);

/* Prepare `io` for a worker that serves one connection at a time. Returns 0 or -errno. */
int serve_io_open(struct session_io *io, struct worker *worker);

#endif
