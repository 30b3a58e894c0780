/* SPDX-License-Identifier: ISC */
/* sockets.h - the set of listeners of a configuration
 *
 * Supervisor only. Workers and successive crews share listeners: a reload keeps those that the new
 * configuration names as well, and opens only new ones. Listeners that are not named any more are closed when
 * the reload has succeeded.
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

/* Fill `*set` with a listener for every address and protocol of `conf`, in order. Listeners that `have`
 * contains already are copied; they are marked `keep` in `have`, which owns them until sockets_commit().
 * Others are opened. Listeners of `have` on single addresses that a wildcard address of `conf` covers follow:
 * closing them would reset clients needlessly. Files of unix sockets belong to `owner`. Returns 0, or -errno
 * with a message added to `errors` and opened listeners closed. */
int sockets_open(struct sockets *set, const struct conf *conf, struct sockets *have,
                 const struct privileges *owner, struct diagnostics *errors);

/* Move the stream listeners of `have` that are not marked `keep` to `retired`, after listener_refuse_new().
 * The caller must close them later with sockets_close(). */
void sockets_retire(struct sockets *have, struct sockets *retired);

/* Replace `have` by the set opened for `conf`: listeners in both get the new backlog, others of `have` are
 * closed. `have` is empty afterwards. */
void sockets_commit(struct sockets *have, const struct conf *conf);

/* Discard `set`: close the listeners that only `set` has. `set` is empty afterwards. */
void sockets_abandon(struct sockets *set);

/* Returns the number of datagrams that the kernel has dropped since the last call because the queue of a
 * socket of `set` was full: listener_count_dropped(). A drop is counted once, also where the socket is in
 * `next`, the set of a reload, as well. */
uint64_t sockets_count_dropped(struct sockets *set, struct sockets *next);

/* Let no other socket be bound to the addresses of stream listeners any more: after listeners that shared
 * them were closed. */
void sockets_stop_sharing(const struct sockets *set);

enum sockets_files {
	SOCKETS_REMOVE_FILES,
	SOCKETS_KEEP_FILES, /* because the sockets remain open in another process */
};

/* Close all listeners; `files`: what happens to the files of unix listeners. */
void sockets_close(struct sockets *set, enum sockets_files files);

/* Set unix-mode and unix-group of the socket files that were made here. Where that is not permitted, it is
 * logged. */
void sockets_set_files(const struct sockets *set, const struct conf *conf);

/* Set tcp-keepalive of the listeners, in seconds. */
void sockets_set_keepalive(const struct sockets *set, unsigned seconds);

/* Set socket-buffer on all stream listeners; `before` is its former value. 0 restores the kernel's default;
 * on adopted ones only if echod had set it before, because their creator may have set it (ReceiveBuffer= of
 * systemd.socket(5)). */
void sockets_set_buffers(const struct sockets *set, unsigned bytes, unsigned before);

/* Write the addresses to `text`, as in "0.0.0.0:7, [::]:7 (udp) named probes", always terminated. Returns
 * `text`. */
char *sockets_print(const struct sockets *set, char *text, size_t size);

/* Whether the sockets are exactly those of listen and port of `conf`, or `conf` sets neither. */
bool sockets_are_configured(const struct sockets *sockets, const struct conf *conf);

#endif
