/* SPDX-License-Identifier: ISC */
/* fdstore.h - sockets that the service manager passes to this process and stores for the next one
 *
 * Three kinds of descriptors come with LISTEN_FDS (sd_listen_fds(3)): sockets of a socket unit, and, from
 * echod's own descriptor store, listeners that were kept over a restart or a crash and queues of connections
 * that were kept over a restart. Stored descriptors are recognized by their FDNAME. Supervisor only.
 */
#ifndef ECHOD_DAEMON_FDSTORE_H
#define ECHOD_DAEMON_FDSTORE_H

#include <stdbool.h>

#include "conf/conf.h"
#include "daemon/sockets.h"

/* Maximum number of queues; more than a manager keeps by default (FileDescriptorStoreMax= of the unit). */
#define FDSTORE_QUEUES_MAX 128

/* Receiving end of a queue with connections (preserve.h). */
struct fdstore_queue {
	int fd;
	unsigned number;
};

struct fdstore_queues {
	struct fdstore_queue items[FDSTORE_QUEUES_MAX];
	unsigned count;
};

struct fdstore {
	struct sockets activated;   /* from a socket unit */
	struct sockets kept;        /* listeners from the store */
	struct fdstore_queues queues; /* queues from the store, ordered by number */
};

/* Take over the descriptors that were passed, and remove their environment variables. Must be called before
 * any fork or open. Unusable descriptors are reported in `errors` and closed. Returns 0; -ENOTSOCK where one
 * of them came from a socket unit; or another -errno. */
int fdstore_collect(struct fdstore *store, struct diagnostics *errors);

/* Copy the collected descriptors to `fds`, at most `max_count`. Returns their number. */
unsigned fdstore_descriptors(const struct fdstore *store, int fds[], unsigned max_count);

/* Store the listeners of `set` that were opened here. */
void fdstore_keep(const struct sockets *set);

/* Store the receiving end of queue `number`, which remains stored when its other end is closed. Returns 0, or
 * -errno where the manager did not accept it. */
int fdstore_keep_queue(unsigned number, int fd);

/* Remove the listeners of `set` from the store. */
void fdstore_forget(const struct sockets *set);

/* Remove queue `number` from the store. */
void fdstore_forget_queue(unsigned number);

enum fdstore_stop {
	FDSTORE_DROPPED, /* the service stops and the manager drops the store */
	FDSTORE_KEPT,    /* the service will be started again, with the store */
	FDSTORE_UNKNOWN, /* the manager decides by itself whether it keeps the store (systemd 254 and
	                  * later); it cannot be asked, or has FileDescriptorStorePreserve=yes */
};

/* Find out what happens to the store after this stop, by asking the manager over D-Bus
 * (org.freedesktop.systemd1(5)) or on its private socket. `set` and `queues` queues are in the store. Sets
 * `*room` to the number of further queues that fit; if 0, that is logged and FDSTORE_DROPPED returned. */
enum fdstore_stop fdstore_ask_stop(const struct sockets *set, unsigned queues, unsigned *room);

/* Whether fdstore_ask_stop() can determine anything on this host. */
bool fdstore_is_useful(void);

#endif
