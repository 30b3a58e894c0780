/* SPDX-License-Identifier: ISC */
/* sockets.h - the set of listeners a configuration asks for
 *
 * Supervisor only. Listeners are shared by workers and by successive crews: a reload keeps
 * those that the new configuration names too and opens only what is new; what nobody names any more
 * is closed when the reload has succeeded.
 */
#ifndef ECHOD_DAEMON_SOCKETS_H
#define ECHOD_DAEMON_SOCKETS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "conf/conf.h"
#include "daemon/privileges.h"
#include "net/listener.h"

struct sockets {
	struct listener *items;
	size_t count;
};

/* Fill `*set` with a listener for every address and protocol of `conf`, in order: taken from
 * `have` where it is there already (those are marked `keep` in `have` and remain its own until
 * sockets_commit()), opened otherwise. After them come listeners of `have` on single addresses that a wildcard address of `conf`
 * covers: to close them would reset clients for nothing. The files of unix sockets
 * belong to `owner`. On failure a message is added to `errors`, what was opened is closed, and -errno returned. */
int sockets_open(struct sockets *set, const struct conf *conf, struct sockets *have, const struct privileges *owner,
                 struct conf_errors *errors);

/* Move the stream listeners of `have` that are not marked `keep` to `retired`, after listener_refuse_new(): they are to be closed
 * later, by sockets_close(). */
void sockets_retire(struct sockets *have, struct sockets *retired);

/* The new set, opened for `conf`, has replaced `have`: what is in both gets the new backlog, what only `have` has is closed.
 * `have` is empty afterwards. */
void sockets_commit(struct sockets *have, const struct conf *conf);

/* The new set is not wanted after all: close what only `set` has. `set` is empty afterwards. */
void sockets_abandon(struct sockets *set);

/* The number of datagrams that the kernel has dropped since the last call because the queue of a socket of `set` was full:
 * listener_count_dropped(). A drop is counted once, also where a socket is in `next` too, the set of a reload. */
uint64_t sockets_count_dropped(struct sockets *set, struct sockets *next);

/* Close all of them. `unlink_paths` false: leave the files of unix listeners alone, their sockets
 * live on elsewhere. */
void sockets_close(struct sockets *set, bool unlink_paths);

/* Set tcp-keepalive of the listeners, in seconds. */
void sockets_set_keepalive(const struct sockets *set, unsigned seconds);

/* Set socket-buffer on all stream listeners; 0 returns it to the kernel, but on adopted ones only if echod had set it before
 * (`were_set`), since their creator may have (ReceiveBuffer= of systemd.socket(5)). */
void sockets_set_buffers(const struct sockets *set, unsigned bytes, bool were_set);

/* Write the addresses as "0.0.0.0:7, [::]:7 (udp) named probes" into `text`, always terminated. Returns it. */
char *sockets_print(const struct sockets *set, char *text, size_t size);

#endif
