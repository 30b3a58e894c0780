/* SPDX-License-Identifier: ISC */
/* accept_watch.h - watch the descriptors from which a worker takes connections
 *
 * Keeps the set of watched descriptors equal to what struct accept_state selects. Used by the readiness loop
 * and, with epoll(7) and exclusive waits, by the blocking bodies. One thread.
 */
#ifndef ECHOD_MODELS_ACCEPT_WATCH_H
#define ECHOD_MODELS_ACCEPT_WATCH_H

#include "models/accept/accept.h"
#include "models/poller.h"

struct accept_watch {
	struct accept_state *accept;
	const struct poller_ops *ops;
	struct poller *poller;
	enum poller_wake wake;   /* of listeners and queue; POLLER_WAKE_ONE: see EPOLLEXCLUSIVE in
	                          * epoll_ctl(2) */
	bool listening;          /* all stream listeners are watched */
	struct watch *listeners; /* one for each listener of the worker; `fd` -1: not watched, also of the
	                          * watches below */
	struct watch inbox, slot, token;
};

/* Start to watch what `accept` selects now. `accept`, `ops` and `poller` must outlive the watch. Returns 0 or
 * -errno; accept_watch_close() is needed in both cases. */
int accept_watch_open(struct accept_watch *watch, struct accept_state *accept, const struct poller_ops *ops,
                      struct poller *poller, enum poller_wake wake);
void accept_watch_close(struct accept_watch *watch);

/* Update the watched descriptors to the present state of `accept`. Pauses accepting where memory is
 * missing. */
void accept_watch_update(struct accept_watch *watch);

/* Stop watching the listeners and the queue and start again, which reports ready ones at once. Needed with
 * exclusive waits, where another worker may have consumed the wake-up without acting on it. */
void accept_watch_rearm(struct accept_watch *watch);

/* The index of the listener of `listener`, which comes from an event. */
size_t accept_watch_index(const struct accept_watch *watch, const struct watch *listener);

#endif
