/* SPDX-License-Identifier: ISC */
/* filter.h - copy standard input through the server to standard output and compare every byte
 *
 * Main thread. Errors have been printed when a function returns. `net` is connected and stays the
 * caller's. `*done` receives what was transferred.
 */
#ifndef ECHOD_CLIENT_FILTER_H
#define ECHOD_CLIENT_FILTER_H

#include "client/error.h"

struct transfer;
struct client_options;
struct target;

/* Copy over a stream socket (non-blocking), in both directions at once. Sent data is kept until it has come
 * back, in a buffer that grows only if the server holds back more than a megabyte before it answers. */
enum outcome filter_stream(const struct client_options *options, const struct target *target, int net,
			   struct transfer *done);

/* Copy over a datagram socket, one datagram at a time. Lost datagrams are sent again, so that the copy is
 * exact. */
enum outcome filter_datagram(const struct client_options *options, const struct target *target, int net,
			     struct transfer *done);

#endif
