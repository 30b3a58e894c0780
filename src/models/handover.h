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

/* Send the session, which owes only what is in memory (turn_empty_pipe()), into `outbox`
 * without waiting. On success the caller still has its copy of everything and must
 * session_forget() it. Returns 0, -EAGAIN where the queue is full, -ETOOMANYREFS where too many
 * descriptors are in flight (RLIMIT_NOFILE of the user), or another -errno. */
int handover_send(int outbox, const struct session *session);

/* Send, waiting for room until `deadline` (clock_usec()); 0: do not wait. */
int handover_send_wait(int outbox, const struct session *session, int64_t deadline);

/* Take the next connection from `inbox` without waiting; its place and source are counted.
 * Returns 0 with `*arrival` filled in; -EAGAIN where none waits; -EBADMSG where what came was damaged or of an unknown
 * version: it is closed, logged, and the next may be tried. */
int handover_receive(int inbox, struct worker *worker, struct arrival *arrival);

/* How many connections wait in `inbox`. */
unsigned handover_waiting(int inbox);

/* No successor will come: take every connection that waits in `inbox`, send it what it is owed as
 * far as it takes it at once, and close it. Returns their number. */
unsigned handover_end_waiting(int inbox);

/* Accept those who wait in the backlog of `listener` and may come (`admission`; no place is taken for them
 * yet), `most` of them, and send them into `outbox` as far as it has room: for whoever stops watching a listener
 * and may have been the only one who was woken for them (EPOLLEXCLUSIVE), and for a listener
 * that is about to be closed. `*accepted` counts them. */
void handover_backlog(const struct listener *listener, const struct admission *admission, int outbox,
                      unsigned most, _Atomic uint64_t *accepted);

/* Make the pair: what is sent to `*outbox` arrives at `*inbox`. Both non-blocking and
 * close-on-exec, the send buffer as large as the kernel allows. Returns 0 or -errno. */
int handover_pair(int *inbox, int *outbox);

#endif
