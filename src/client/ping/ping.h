/* SPDX-License-Identifier: ISC */
/* ping.h - measure round-trip times, one probe after the other
 *
 * Main thread. Errors have been printed when it returns.
 */
#ifndef ECHOD_CLIENT_PING_H
#define ECHOD_CLIENT_PING_H

#include "client/error.h"

struct client_options;
struct target;

enum outcome ping(const struct client_options *options, const struct target *target);

#endif
