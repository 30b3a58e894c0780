/* SPDX-License-Identifier: ISC */
/* connect.h - open many connections to one address
 *
 * Any thread.
 */
#ifndef ECHOD_CLIENT_CONNECT_H
#define ECHOD_CLIENT_CONNECT_H

struct socket_options;
struct addr;

/* Open `count` connections without blocking on one of them. `fds` receives their descriptors, -1 for those
 * that were not opened; entries that are >= 0 already are kept. It ends early when the descriptor `cancel`
 * is readable, or after an interrupt if `cancel` is -1 (main thread only). Returns the number of open
 * connections. If that is less than `count`, `*error` is the errno of the first failure (ECANCELED: ended
 * early) and `*what` the operation that failed (NULL: connect). */
unsigned connect_many(int *fds, unsigned count, const struct socket_options *sockopts, const struct addr *to,
		      int cancel, int *error, const char **what);

#endif
