/* SPDX-License-Identifier: ISC */
/* poller.h - interface of the readiness back-ends, and a watched descriptor
 *
 * A struct watch is embedded in the object that the descriptor belongs to; the back-end returns it with each
 * event and stores its index in `slot`. Back-ends report, the body dispatches. All functions of one struct
 * poller are called by one thread.
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
	WATCH_SLOT,   /* a slot of max-connections became free */
	WATCH_TOKEN,  /* this loop has the accept token now */
	WATCH_WAKEUP, /* another worker requests a check of the listeners */
	WATCH_STOP,
	WATCH_OTHER,
};

enum watch_interest { WATCH_READ = 1, WATCH_WRITE = 2 };

struct watch {
	int fd;
	uint32_t slot;       /* for the back-end */
	uint16_t generation; /* of the slot, for back-ends that reuse slots */
	uint8_t kind;        /* enum watch_kind: the object that it is embedded in */
	uint8_t interest : 2; /* enum watch_interest; 0: only errors are reported, by back-ends that report
	                       * them */
	uint8_t shared_ofd : 1;  /* another process may have the same open file: closing it here does not
	                          * stop watching it (epoll(7)) */
};

struct watch_event {
	struct watch *watch;
	bool readable, writable; /* an error or hang-up sets both */
};

struct poller; /* private to the back-end */

/* Which of the workers that watch a descriptor an event wakes, where the back-end supports it (epoll(7)). */
enum poller_wake { POLLER_WAKE_ALL, POLLER_WAKE_ONE };

/* Whether a descriptor is closed at once by this process after it was removed. */
enum poller_removal { POLLER_STAYS_OPEN, POLLER_CLOSES };

struct poller_ops {
	/* Prepare for at most `max_watches` descriptors at a time. Returns 0 or -errno. */
	int (*open)(struct poller **poller, size_t max_watches);
	void (*close)(struct poller *poller);
	/* Start to watch `watch->fd` for `watch->interest`. Returns 0 or -errno; -EMFILE: this back-end
	 * cannot watch it (FD_SETSIZE). */
	int (*add)(struct poller *poller, struct watch *watch, enum poller_wake wake);
	/* Apply a change of `watch->interest`. Returns 0 or -errno. */
	int (*change)(struct poller *poller, struct watch *watch);
	/* Stop to watch, before the descriptor is closed. With POLLER_CLOSES the kernel removes it by itself,
	 * unless it is `shared_ofd`. */
	void (*remove)(struct poller *poller, struct watch *watch, enum poller_removal removal);
	/* Wait up to `timeout` ms (-1: no limit). Stores at most `max_events` events. Returns their number,
	 * or -errno. */
	int (*wait)(struct poller *poller, struct watch_event *events, int max_events, int timeout);
};

extern const struct poller_ops poller_select, poller_poll, poller_epoll;

/* The descriptor of a poller of poller_epoll: it is readable while events are waiting (epoll(7)). */
int poller_epoll_fd(const struct poller *poller);

/* Close the descriptor of a poller of poller_epoll in a forked process, where the parent goes on to use it.
 * Its memory is left, because each page of it that is written to would be copied. */
void poller_epoll_close_forked(struct poller *poller);

#endif
