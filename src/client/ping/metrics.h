/* SPDX-License-Identifier: ISC */
/* metrics.h - summary of a ping as OpenMetrics text, for a textfile collector
 *
 * Main thread.
 */
#ifndef ECHOD_CLIENT_PING_METRICS_H
#define ECHOD_CLIENT_PING_METRICS_H

#include "client/ping/session.h"

struct ping_loss;

/* Replace the file `path` atomically. `loss` is that of all probes, `flow_loss` that of each flow.
 * Returns 0 or -errno. */
int ping_metrics_write(const struct ping *ping, const struct ping_loss *loss,
		       const struct ping_loss *flow_loss, bool success, const char *path);

#endif
