/* SPDX-License-Identifier: ISC */
/* accept_watch.h - the descriptors from which a worker takes connections, watched with a readiness back-end
 *
 * Keeps the set of watched descriptors equal to what struct accept_state asks for. Used by the readiness loop and, with
 * epoll(7) and exclusive waits, by the blocking bodies. One thread.
 */
#ifndef ECHOD_MODELS_ACCEPT_WATCH_H
#define ECHOD_MODELS_ACCEPT_WATCH_H

#include "models/accept/accept.h"
#include "models/event/poller.h"

struct accept_watch {
	struct accept_state *accept;
	const struct poller_ops *ops;
	struct poller *poller;
	bool exclusive;          /* one waiting worker is woken for an event, see EPOLLEXCLUSIVE in epoll_ctl(2) */
	bool listening;          /* all stream listeners are watched */
	struct watch *listeners; /* one for each of the worker's; `fd` -1: not watched; likewise the next ones */
	struct watch inbox, slot, token;
};

/* Watch what accept_state asks for now. `accept`, `ops` and `ready` must outlive it. Returns 0 or -errno, after which
 * accept_watch_close() is still right. */
int accept_watch_open(struct accept_watch *watch, struct accept_state *accept, const struct poller_ops *ops,
                      struct poller *poller, bool exclusive);
void accept_watch_close(struct accept_watch *watch);

/* Watch from now on what accept_state asks for now; pauses accepting where that fails for want of memory. */
void accept_watch_update(struct accept_watch *watch);

/* Stop watching the listeners and the queue, and watch them again: what is ready is reported at once. Needed with
 * exclusive waits, where another worker may have been woken and not have acted on it. */
void accept_watch_rearm(struct accept_watch *watch);

/* The index of the listener that `listener`, from an event, belongs to. */
size_t accept_watch_index(const struct accept_watch *watch, const struct watch *listener);

#endif
