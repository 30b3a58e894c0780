/* SPDX-License-Identifier: ISC */
/* load.h - measure throughput and latency of a server under load
 *
 * Main thread. Opens the connections, starts the threads and prints the report. Errors have been printed
 * when it returns.
 */
#ifndef ECHOD_CLIENT_LOAD_H
#define ECHOD_CLIENT_LOAD_H

#include "client/error.h"

struct client_options;
struct target;

enum outcome load(const struct client_options *options, const struct target *target);

#endif
