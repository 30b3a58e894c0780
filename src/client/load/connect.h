/* opener.h - open many connections to one address
 *
 * Any thread. Connections are made a bounded number at a time, without blocking on any one of them.
 */
#ifndef ECHOD_CLIENT_OPENER_H
#define ECHOD_CLIENT_OPENER_H

struct load_worker;
struct socket_options;
struct addr;

/* Open every connection of the worker that is to be open from the start (none in connect mode).
 * Returns 0, or -errno with the worker's fault told. */
int load_worker_connect(struct load_worker *worker);

/* Open `count` connections, their descriptors in `fds` (-1 in the ones not made; those >= 0 already are left alone).
 * It is given up when `cancel` becomes readable; in the main thread, where that is -1, on Ctrl-C.
 * Returns how many are open, all or those before the first failure; then `*error` says what it was (ECANCELED where it was
 * given up), and `*what` what could not be done (NULL: connect). */
unsigned connect_many(int *fds, unsigned count, const struct socket_options *sockopts, const struct addr *to,
		      int cancel, int *error, const char **what);

#endif
