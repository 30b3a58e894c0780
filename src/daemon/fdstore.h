/* SPDX-License-Identifier: ISC */
/* fdstore.h - sockets that the service manager passes to this process and keeps for the next one
 *
 * Three kinds of descriptors come with LISTEN_FDS (sd_listen_fds(3)): sockets of a socket
 * unit, listeners of ours that were kept over a restart or a crash, and queues of
 * connections that were kept over a restart. Ours are recognized by their FDNAME. Supervisor only.
 */
#ifndef ECHOD_DAEMON_FDSTORE_H
#define ECHOD_DAEMON_FDSTORE_H

#include <stdbool.h>

#include "conf/conf.h"
#include "daemon/sockets.h"

/* More than a manager keeps by default (FileDescriptorStoreMax= of the unit). */
#define FDSTORE_QUEUES_MAX 128

/* Receiving ends of queues with connections (preserve.h). */
struct fdstore_queue {
	int fd;
	unsigned number;
};

struct fdstore_queues {
	struct fdstore_queue items[FDSTORE_QUEUES_MAX];
	unsigned count;
};

struct fdstore {
	struct sockets activated;   /* of a socket unit */
	struct sockets kept;        /* ours, from before */
	struct fdstore_queues queues; /* ours, from before, by number */
};

/* Take over what was passed, and clear the environment of it. To be called first thing, before anything forks or
 * opens descriptors. Descriptors that are of no use are told in `errors` and closed. Returns 0;
 * -ENOTSOCK where one came from a socket unit; or another -errno. */
int fdstore_collect(struct fdstore *store, struct conf_errors *errors);

/* The descriptors collected, to be kept open; returns their number, at most `most`. */
unsigned fdstore_descriptors(const struct fdstore *store, int fds[], unsigned most);

/* Have the manager keep the listeners of `set` that were opened here. */
void fdstore_keep(const struct sockets *set);

/* Have the manager keep the receiving end of queue `number`, also after its other end was closed. Returns 0; or -errno where
 * the manager did not take it. */
int fdstore_keep_queue(unsigned number, int fd);

/* Have the manager forget the listeners of `set`. */
void fdstore_forget(const struct sockets *set);

/* Have the manager forget queue `number`. */
void fdstore_forget_queue(unsigned number);

enum fdstore_stop {
	FDSTORE_DROPPED, /* the service stops: the manager drops the store */
	FDSTORE_KEPT,    /* the service will be started again, with the store */
	FDSTORE_UNKNOWN, /* the manager knows, and does the right thing, but cannot be asked (systemd 254 and later) */
};

/* What becomes of the store now that this service was told to stop. The manager is asked over D-Bus
 * (org.freedesktop.systemd1(5)), or on its own socket. `set` and `queues` queues were stored before. `*room`: how many more
 * queues the store takes; where that is 0, it is logged, and the answer is FDSTORE_DROPPED. */
enum fdstore_stop fdstore_ask_stop(const struct sockets *set, unsigned queues, unsigned *room);

/* Whether fdstore_ask_stop() can find out anything here. */
bool fdstore_is_useful(void);

#endif
