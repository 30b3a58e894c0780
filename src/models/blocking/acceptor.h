/* SPDX-License-Identifier: ISC */
/* acceptor.h - where the blocking bodies wait for their next connection
 *
 * An accept_watch with an epoll(7) set of its own. Of the workers that wait for the same listeners one is woken for
 * each connection (EPOLLEXCLUSIVE, epoll_ctl(2)). A worker that was woken may not take the connection: because it
 * stops, takes another one first, or is killed. So each worker that waits in an exclusive way (also io_uring with a
 * multishot accept) watches wakeup_fd, an eventfd(2) that all workers share and that worker_wake_other() makes
 * readable. A worker that sees it watches everything again, which reports what is ready, and after it has taken a
 * connection it wakes the next worker. One thread.
 */
#ifndef ECHOD_MODELS_ACCEPTOR_H
#define ECHOD_MODELS_ACCEPTOR_H

#include "models/accept/accept_watch.h"

struct acceptor {
	struct accept_state accept;
	struct accept_watch watched;
	struct poller *poller;
	struct watch stop, wakeup, other;
	bool woken;    /* another worker asked for a look at all listeners; none has found anything since */
	bool stopping; /* the request to stop has come */
};

/* Begin to wait for the worker's listeners and queue; `other` (-1: none) is one more descriptor
 * of the body's own whose readiness ends a wait. 0 or -errno. */
int acceptor_open(struct acceptor *acceptor, struct worker *worker, int other);

/* Stop waiting. A worker that stops wakes another one, of its successors or its crew. */
void acceptor_close(struct acceptor *acceptor);

/* Wait for the next connection. Returns 1 with `*new_conn` filled in; 0 where something else ended the wait: the
 * request to stop (`stopping`), a heartbeat that was due, `other`, a refused connection; or -errno. */
int acceptor_wait(struct acceptor *acceptor, struct new_conn *new_conn);

/* `busy`: the body can take no more for now, not even from the queue. */
void acceptor_set_busy(struct acceptor *acceptor, bool busy);

#endif
