/* SPDX-License-Identifier: ISC */
/* poller.h - a descriptor that a body waits for, and the readiness back-ends that wait
 *
 * A struct watch is embedded in whatever the descriptor belongs to; the back-end hands it back
 * with each event and keeps its own place in `slot`. Back-ends report, the body dispatches.
 * All functions of one struct poller are called by one thread.
 */
#ifndef ECHOD_MODELS_POLLER_H
#define ECHOD_MODELS_POLLER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum watch_kind {
	WATCH_SESSION,
	WATCH_LISTENER,
	WATCH_INBOX,  /* the queue of handed-over connections */
	WATCH_SLOT,   /* a slot of max-connections has become free */
	WATCH_TOKEN,  /* this loop holds the accept token now */
	WATCH_WAKEUP, /* another worker asks for a look at the listeners */
	WATCH_STOP,
	WATCH_OTHER,
};

enum watch_interest { WATCH_READ = 1, WATCH_WRITE = 2 };

struct watch {
	int fd;
	uint32_t slot;       /* the back-end's */
	uint16_t generation; /* of the slot, where the back-end uses slots again */
	uint8_t kind;        /* enum watch_kind: what it is embedded in */
	uint8_t interest : 2; /* enum watch_interest; may be 0: then only errors are reported, where the call reports them */
	uint8_t shared_ofd : 1;  /* another process may have the same open file: closing ours does not unwatch it (epoll(7)) */
};

struct watch_event {
	struct watch *watch;
	bool readable, writable; /* an error or hang-up sets both */
};

struct poller; /* the back-end's own */

struct poller_ops {
	/* Prepare for at most `most` descriptors at a time. 0 or -errno. */
	int (*open)(struct poller **poller, size_t most);
	void (*close)(struct poller *poller);
	/* Watch `watch->fd` for `watch->interest`. `exclusive`: of the workers that watch it one is woken, where the
	 * back-end can do that (epoll(7)). 0 or -errno (-EMFILE: it cannot be watched here, FD_SETSIZE). */
	int (*add)(struct poller *poller, struct watch *watch, bool exclusive);
	/* `watch->interest` has changed. 0 or -errno. */
	int (*change)(struct poller *poller, struct watch *watch);
	/* Watch it no longer; before the descriptor is closed. `closing`: this process closes it at
	 * once, so that unless it is `shared_ofd` the kernel forgets it by itself. */
	void (*remove)(struct poller *poller, struct watch *watch, bool closing);
	/* Wait for `timeout` ms (-1: for ever) for at most `most` events. Their number, or -errno. */
	int (*wait)(struct poller *poller, struct watch_event *events, int most, int timeout);
};

extern const struct poller_ops poller_select, poller_poll, poller_epoll;

#endif
