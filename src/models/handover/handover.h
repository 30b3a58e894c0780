/* SPDX-License-Identifier: ISC */
/* handover.h - a live connection as one message: to another worker, model or process
 *
 * The message (state.h) has the connection's descriptor and, where bytes are owed, a memfd_create(2) file
 * with them, by SCM_RIGHTS (unix(7)). All crews share one SOCK_SEQPACKET pair, the queue: stopping workers
 * send to it, running ones receive from it before they accept. Its order is kept.
 */
#ifndef ECHOD_MODELS_HANDOVER_H
#define ECHOD_MODELS_HANDOVER_H

#include <stdbool.h>
#include <stdint.h>

#include "models/session.h"
#include "models/session_io.h"

/* Send a connection from handover_take() or handover_read() to `outbox`, without blocking. On success the
 * caller still owns its copy of everything. Nothing is counted. Returns 0, -EAGAIN where the queue is full,
 * -ETOOMANYREFS where too many descriptors are in flight (RLIMIT_NOFILE of the user), or another -errno. */
int handover_pass(int outbox, const struct new_conn *new_conn);

/* Send a session to the outbox of a stopping worker, waiting for space as long as its stop request allows,
 * which may change meanwhile, and increasing the heartbeat. `io` has its pipe. On success slot and source
 * moved with the session, and the caller must session_forget() it. Returns as handover_pass() does, but
 * -ETIMEDOUT where the queue has no space and the time to wait is over; -ECANCELED where the stop request
 * does not allow to hand over. */
int handover_send(struct worker *worker, struct session_io *io, struct session *session);

/* Receive the next connection from `inbox` without blocking. The caller has taken a slot and counts the
 * connection; the source is counted here, unless the connection is `unadmitted`. Two descriptors must be
 * free, because the kernel closes descriptors that it cannot deliver.
 * Returns 0 with `*new_conn` filled in; -EAGAIN where the queue is empty; -EBADMSG where the message was
 * damaged or of an unknown version: the connection is closed, counted and logged, and the next one may be
 * received. */
int handover_receive(int inbox, struct worker *worker, struct new_conn *new_conn);

/* As handover_receive(), but without counting: for the supervisor. */
int handover_take(int inbox, struct new_conn *new_conn);

/* Make `*new_conn` from a state (state.h) of `size` bytes and its connection `fd`, which becomes
 * non-blocking. `file` has the owed bytes from offset `at` on; -1: none. Everything is checked. Returns the
 * number of owed bytes; or -errno with the descriptors still owned by the caller: -ENOTSUP where another
 * version wrote the state, -EBADMSG or -EINVAL where it is damaged. */
int handover_read(const void *state, size_t size, int fd, int file, int64_t at, struct new_conn *new_conn);

/* Log, with a limit to the rate, that `count` connections could not be received because of `error`
 * (-errno). */
void handover_log_damaged(unsigned count, int error);

/* Whether a message can be sent to `outbox`: the queue becomes writable only when most of it is free
 * (unix(7)). */
bool handover_has_space(int outbox);

/* The number of connections in `inbox`; an estimate where another version wrote messages of another size. */
unsigned handover_waiting(int inbox);

/* Before a listener is closed: accept a connection in its backlog, to be sent to the queue. It counts as in
 * the queue, also beyond max-connections; the worker that receives it checks max-per-source. Of `sender` only
 * conf, slot and admission are used. Returns 1 with `*new_conn`, owned by the caller; 0 where the client was
 * refused; or -errno as accept4(2), -EAGAIN where the backlog is empty. Supervisor. */
int handover_accept(const struct listener *listener, const struct worker *sender, struct new_conn *new_conn);

/* Make the queue: messages sent to `*outbox` arrive at `*inbox`. Both are non-blocking and close-on-exec; the
 * send buffer is as large as the kernel allows. Returns 0 or -errno. */
int handover_pair(int *inbox, int *outbox);

#endif
