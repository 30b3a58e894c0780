/* SPDX-License-Identifier: ISC */
/* acceptor.h - wait for the next connection, for the blocking bodies
 *
 * An accept_watch with its own epoll(7) set. Of the workers that wait for the same listeners one is woken for
 * each connection (EPOLLEXCLUSIVE, epoll_ctl(2)). A woken worker may not take the connection, because it
 * stops, takes another connection first, or is killed. So each worker that waits exclusively (also io_uring
 * with a multishot accept) watches wakeup_fd, an eventfd(2) that all workers share and that
 * worker_wake_other() makes readable. A worker that reads it watches everything again, which reports ready
 * descriptors, and after it has taken a connection it wakes the next worker. One thread.
 */
#ifndef ECHOD_MODELS_ACCEPTOR_H
#define ECHOD_MODELS_ACCEPTOR_H

#include "models/accept/accept_watch.h"

struct acceptor {
	struct accept_state accept;
	struct accept_watch watched;
	struct poller *poller;
	struct watch stop, wakeup, other;
	bool woken;    /* another worker requested a check of all listeners, and none has been found ready
	                * since */
	bool other_ready; /* `other` was readable at the last wait */
	bool stopping; /* the worker was asked to stop */
};

/* Start to wait for the worker's listeners and queue. `other` (-1: none) is one more descriptor whose
 * readiness ends a wait. Returns 0 or -errno. */
int acceptor_open(struct acceptor *acceptor, struct worker *worker, int other);

/* Stop waiting. A worker that stops wakes another one of its crew or the next one. */
void acceptor_close(struct acceptor *acceptor);

/* Close the descriptors in a forked process, where the parent goes on to use them. */
void acceptor_close_forked(struct acceptor *acceptor);

/* Wait for the next connection. Returns 1 with `*new_conn` filled in; 0 where another event ended the wait:
 * stop request (`stopping`), heartbeat, `other`, a refused connection; or -errno. */
int acceptor_wait(struct acceptor *acceptor, struct new_conn *new_conn);

/* Set from where the body has capacity to take connections. */
void acceptor_set_scope(struct acceptor *acceptor, enum accept_scope scope);

#endif
