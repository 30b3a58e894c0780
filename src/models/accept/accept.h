/* SPDX-License-Identifier: ISC */
/* accept.h - from where and when a worker takes connections
 *
 * Accepts from the listeners and takes the connections that predecessors handed over; knows the limits and what to do
 * at them. It watches nothing itself: the body watches the descriptors while `open` and `inheriting` say so, and calls
 * in when one is readable. The listeners are not watched at max-connections and for a moment after descriptors or
 * memory ran out: then clients wait in the backlog. Connections that were handed over were admitted before and have
 * their slot: they are taken beyond max-connections too (a reload may have lowered it), but wait in the queue while the
 * process can hold no more.
 *
 * No worker accepts on behalf of another worker. Of the loops of one process only the holder of the token takes
 * connections (accept_token.h); the workers of a pool wait for the listeners in an exclusive way (acceptor.h).
 *
 * One thread for each struct accept_state.
 */
#ifndef ECHOD_MODELS_ACCEPT_H
#define ECHOD_MODELS_ACCEPT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "models/accept/accept_token.h"
#include "models/session.h"

struct accept_state {
	struct worker *worker;
	bool open;          /* watch the stream listeners */
	bool inheriting;    /* watch the queue of handed-over connections */
	bool waiting;       /* at max-connections: watch slot_fd, call accept_retry() */
	bool limited;       /* max-connections were reached since the last slot was taken: logged once */
	bool paused;        /* descriptors or memory ran out: until retry_at */
	bool queue_pending; /* the queue could not be taken from: it comes before the listeners */
	bool busy;          /* accept_set_busy() */
	bool stopped;       /* accept_stop() */
	bool prepare;       /* an adopted listener may have connections that were made before its present options */
	int64_t retry_at;   /* while paused or waiting: call accept_retry() then; INT64_MAX: need not */
	int slot_fd;        /* readable when a slot becomes free */
	struct accept_batch own, *batch; /* connections to ask a listener for in one iteration: its own, or the token's */
	unsigned batch_max; /* most connections to take in one iteration from one listener, or from the queue */
	unsigned taken;     /* in this iteration: accepted, refused or inherited */
};

enum accept_result {
	ACCEPT_NONE,       /* none is there, or none may be taken now */
	ACCEPT_CONNECTION, /* `*new_conn` is filled in */
	ACCEPT_REFUSED,    /* one was refused, logged and closed */
};

void accept_init(struct accept_state *accept, struct worker *worker);

/* End waiting for a slot; at the end of the worker. */
void accept_close(struct accept_state *accept);

/* Accept one connection from listener `index`; or take one from the queue where that is due first. */
enum accept_result accept_one(struct accept_state *accept, size_t index, struct new_conn *new_conn);

/* Take one connection from the queue. Never ACCEPT_REFUSED but for a damaged message. */
enum accept_result accept_inherit(struct accept_state *accept, struct new_conn *new_conn);

/* A listener was asked for at most batch->size connections and had `got`: adapt the size. */
void accept_adapt(struct accept_state *accept, unsigned got);

/* The end of an iteration: where something was taken, the next loop of the process gets its turn. Brings `open` and
 * `inheriting` up to date. */
void accept_iteration_end(struct accept_state *accept);

/* Try again: when slot_fd is readable while `waiting`, or `retry_at` has come. */
void accept_retry(struct accept_state *accept);

/* The body itself can take no more (`busy`), or can again. */
void accept_set_busy(struct accept_state *accept, bool busy);

/* The worker stops: take nothing from now on. */
void accept_stop(struct accept_state *accept);

/* Take one of max-connections slots; false where all are taken: `waiting` now. Only while not `waiting`. */
bool accept_take_slot(struct accept_state *accept);

/* Count and log that max-connections are reached; accept_take_slot() does it by itself. */
void accept_limit_reached(struct accept_state *accept);

/* A connection was accepted by a completion, after its slot was taken: whether this worker may keep it. Refuses, logs
 * and closes it otherwise. */
bool accept_admit(struct accept_state *accept, int fd, const struct addr *addr, struct new_conn *new_conn);

/* Whether a descriptor of this kind (enum watch_kind) is still to be watched: false where it is one from which no
 * connection may be taken now. */
bool accept_is_watched(const struct accept_state *accept, unsigned kind);

/* accept(2) failed with `error`: pauses where a resource has run out, ignores an error of one client. */
void accept_error(struct accept_state *accept, int error);

#endif
