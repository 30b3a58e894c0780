/* SPDX-License-Identifier: ISC */
/* accept.h - whether a worker may take connections, and from which source
 *
 * Accepts from the listeners and receives connections that predecessors handed over, within the limits. It
 * does not wait: the body watches the descriptors that `open` and `inheriting` select, and calls in when one
 * is readable. The listeners are not watched at max-connections and for a moment after descriptors or memory
 * ran out; clients wait in the backlog meanwhile. Handed-over connections were admitted before and have a
 * slot: they are taken beyond max-connections too (a reload may have lowered it), but wait in the queue while
 * the process is at its capacity.
 *
 * No worker accepts on behalf of another worker. Of the loops of one process only the holder of the token
 * takes connections (accept_token.h); the workers of a pool wait for the listeners exclusively (acceptor.h).
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

/* From where a body has capacity to take connections. */
enum accept_scope { ACCEPT_ANY, ACCEPT_QUEUE_ONLY, ACCEPT_NOTHING };

struct accept_state {
	struct worker *worker;
	bool open;          /* watch the stream listeners */
	bool inheriting;    /* watch the queue of handed-over connections */
	bool waiting;       /* at max-connections: watch slot_fd, then call accept_retry() */
	bool limited;       /* max-connections was reached since the last slot was taken: logged once */
	bool paused;        /* descriptors or memory ran out: until retry_at */
	enum accept_scope scope; /* accept_set_scope() */
	bool stopped;       /* accept_stop() */
	bool prepare;       /* connections of an adopted listener may be older than its present options */
	int64_t retry_at;   /* clock_usec() at which to call accept_retry(), while paused or waiting; else
	                     * INT64_MAX */
	int slot_fd;        /* readable when a slot becomes free */
	struct accept_batch own, *batch; /* batch size of one iteration: its own, or the token's */
	unsigned batch_max; /* maximum number of connections to take in one iteration from one listener, or
	                     * from the queue */
	unsigned taken;     /* in this iteration: accepted, refused or received from the queue */

	/* Stop counting the connections from the source of `peer` that have ended in child processes.
	 * Returns whether there were any. NULL: the worker has no child processes. */
	bool (*collect)(struct accept_state *accept, const struct peer *peer);
};

enum accept_result {
	ACCEPT_NONE,       /* there is none, or none may be taken now */
	ACCEPT_CONNECTION, /* `*new_conn` is filled in */
	ACCEPT_REFUSED,    /* a connection was refused, logged and closed */
};

void accept_init(struct accept_state *accept, struct worker *worker);

/* Stop waiting for a slot, at the end of the worker. */
void accept_close(struct accept_state *accept);

/* Accept one connection from listener `index`, or take one from the queue, which comes first. */
enum accept_result accept_one(struct accept_state *accept, size_t index, struct new_conn *new_conn);

/* Take one connection from the queue. ACCEPT_REFUSED: the message was damaged, or the connection came from
 * the backlog of a removed listener and its source has max-per-source connections. */
enum accept_result accept_inherit(struct accept_state *accept, struct new_conn *new_conn);

/* Adapt the batch size after `got` of at most batch->size connections were taken from a listener. */
void accept_adapt(struct accept_state *accept, unsigned got);

/* End an iteration: pass the token on if a connection was taken; update `open` and `inheriting`. */
void accept_iteration_end(struct accept_state *accept);

/* Try again: when slot_fd is readable while `waiting`, or at `retry_at`. */
void accept_retry(struct accept_state *accept);

/* Set from where the body has capacity to take connections; ACCEPT_ANY at first. */
void accept_set_scope(struct accept_state *accept, enum accept_scope scope);

/* Take no more connections, because the worker stops, and wait no longer for a slot. */
void accept_stop(struct accept_state *accept);

/* Take one of max-connections slots, while not `waiting`. Returns false, and sets `waiting`, where all are
 * taken. */
bool accept_take_slot(struct accept_state *accept);

/* Count and log that max-connections is reached; accept_take_slot() calls it. */
void accept_limit_reached(struct accept_state *accept);

/* After a connection was accepted by a completion, with its slot taken before: returns whether it is
 * admitted. Otherwise refuses, logs and closes it. */
bool accept_admit(struct accept_state *accept, int fd, const struct addr *addr, struct new_conn *new_conn);

/* Whether a descriptor of this kind (enum watch_kind) is still to be watched: false for descriptors from
 * which no connection may be taken now. */
bool accept_is_watched(const struct accept_state *accept, unsigned kind);

/* Handle `error` of accept(2): pause where a resource has run out, ignore an error of one client. */
void accept_error(struct accept_state *accept, int error);

#endif
