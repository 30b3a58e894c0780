/* SPDX-License-Identifier: ISC */
/* handover.h - a live connection as one message: to another worker, model or process
 *
 * The message (state.h) carries the connection's descriptor and, where bytes are owed, a
 * memfd_create(2) file with them, by SCM_RIGHTS (unix(7)). All crews share one SOCK_SEQPACKET
 * pair: stopping workers send into it, running ones take from it before they accept; what lies
 * in it waits its turn in order, over a restart too, when the service manager keeps the pair.
 */
#ifndef ECHOD_MODELS_HANDOVER_H
#define ECHOD_MODELS_HANDOVER_H

#include <stdbool.h>
#include <stdint.h>

#include "models/session.h"

/* Send the session, which owes only what is in memory (session_io_empty_pipe()), into `outbox`
 * without waiting. On success the caller still has its copy of everything. Nothing is counted.
 * Returns 0, -EAGAIN where the queue is full, -ETOOMANYREFS where too many
 * descriptors are in flight (RLIMIT_NOFILE of the user), or another -errno. */
int handover_send(int outbox, const struct session *session);

/* Send on a connection that handover_take() or handover_read() made, without waiting. On success the caller still has its
 * copy of everything. Nothing is counted. Returns as handover_send() does. */
int handover_pass(int outbox, const struct new_conn *new_conn);

/* Send into the outbox of a worker that stops, waiting for room as long as its orders say, which
 * may change meanwhile, and showing life. On success the place and the source have gone along, and the caller
 * must session_forget() it. Returns also -ECANCELED where they are to hand over nothing. */
int handover_send_wait(struct worker *worker, const struct session *session);

/* Take the next connection from `inbox` without waiting; its place has been taken, its source is counted here.
 * There must be room for two descriptors: the kernel closes what it cannot deliver.
 * Returns 0 with `*new_conn` filled in; -EAGAIN where none waits; -EBADMSG where what came was damaged or of an unknown
 * version: it is closed, counted, logged, and the next may be tried. */
int handover_receive(int inbox, struct worker *worker, struct new_conn *new_conn);

/* The same where nothing is counted: for whoever is no worker. Returns as handover_receive() does. */
int handover_take(int inbox, struct new_conn *new_conn);

/* Make `*new_conn` of a state (state.h) of `size` bytes and its connection `fd`, which becomes non-blocking. `file` has the
 * bytes owed from `at` on; -1: there is none. Everything is checked. Returns the number of bytes owed; or -errno, with
 * the descriptors still the caller's: -ENOTSUP where another version wrote the state, -EBADMSG or -EINVAL where
 * something is damaged. */
int handover_read(const void *state, size_t size, int fd, int file, int64_t at, struct new_conn *new_conn);

/* Log, with a limit to the rate, that `count` connections could not be taken up because of `error` (-errno). */
void handover_log_damaged(unsigned count, int error);

/* How many connections wait in `inbox`. With messages of a length that another version wrote, about so many. */
unsigned handover_waiting(int inbox);

/* For a listener that is about to be closed: accept the connections that wait in its backlog and send them into the
 * queue, waiting for room as handover_send_wait() does. Each takes a slot, also beyond max-connections. Of `sender`
 * only conf, slot, admission, outbox_fd, orders and next_beat are used. Supervisor. */
void handover_backlog(const struct listener *listener, struct worker *sender);

/* Make the pair: what is sent to `*outbox` arrives at `*inbox`. Both non-blocking and
 * close-on-exec, the send buffer as large as the kernel allows. Returns 0 or -errno. */
int handover_pair(int *inbox, int *outbox);

#endif
