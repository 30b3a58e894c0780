/* SPDX-License-Identifier: ISC */
/* serve.h - one connection served to its end by the thread that calls
 *
 * What the blocking bodies have in common: a thread or process that has nothing else to do
 * waits for this one socket and for the order to stop.
 */
#ifndef ECHOD_MODELS_SERVE_H
#define ECHOD_MODELS_SERVE_H

#include "models/session.h"
#include "models/session_io.h"

/* Serve `new_conn` until it has ended or, after the order to stop, was handed over or drained.
 * `io` is used by this thread only. Shows life for `worker` meanwhile. */
void serve(struct worker *worker, struct session_io *io, const struct new_conn *new_conn);

/* Prepare `io` for a worker that serves one connection at a time. 0 or -errno. */
int serve_io_open(struct session_io *io, struct worker *worker);

#endif
