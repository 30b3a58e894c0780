/* store.h - what outlives this process: sockets the service manager passes and keeps
 *
 * Three kinds of descriptors come with LISTEN_FDS (sd_listen_fds(3)): sockets of a socket
 * unit, listeners of ours that were kept over a restart or a crash, and the queue of
 * connections that were handed over. Ours are told by their FDNAME. Supervisor only.
 */
#ifndef ECHOD_DAEMON_STORE_H
#define ECHOD_DAEMON_STORE_H

#include <stdbool.h>

#include "conf/conf.h"
#include "daemon/sockets.h"

struct store {
	struct sockets activated; /* of a socket unit */
	struct sockets kept;      /* ours, from before */
	int inbox, outbox;        /* ours, from before; -1: none */
};

/* Take over what was passed, and clear the environment of it. To be called first thing, before anything forks or
 * opens descriptors. Descriptors that are of no use are told in `errors` and closed. Returns 0;
 * -ENOTSOCK where one came from a socket unit; or another -errno. */
int store_collect(struct store *store, struct conf_errors *errors);

/* The descriptors collected, to be kept open; returns their number, at most `most`. */
unsigned store_descriptors(const struct store *store, int fds[], unsigned most);

/* Have the manager keep the listeners of `set` that were opened here, and the queue. */
void store_keep(const struct sockets *set, int inbox, int outbox);

/* Have the manager forget the listeners of `set`. */
void store_forget(const struct sockets *set);

/* Have the manager forget the queue. */
void store_forget_queue(void);

/* Whether the manager is about to start this service anew once it has stopped (its job is a
 * restart), and has kept the queue and the listeners of `set`: asked over D-Bus
 * (org.freedesktop.systemd1(5)). False where that cannot be found out; a store too small is logged. */
bool store_survives(const struct sockets *set);

#endif
