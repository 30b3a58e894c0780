/* intake.h - where a worker's connections come from
 *
 * Accepts from the listeners and takes what predecessors handed over; knows the limits and
 * what to do at them. It watches nothing itself: the body watches the descriptors while
 * `open` says so, and calls in when one is readable. At max-connections, and for a moment
 * after running out of descriptors or memory, `open` is false: the body stops watching the
 * listeners, and the backlog is the back-pressure. What was handed over was admitted once, has
 * its place, and is taken beyond max-connections too where a reload has lowered it, but waits in the inbox while the
 * process can hold no more.
 *
 * One thread.
 */
#ifndef ECHOD_MODELS_INTAKE_H
#define ECHOD_MODELS_INTAKE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "models/session.h"

struct intake {
	struct worker *worker;
	bool open;          /* watch the stream listeners */
	bool inheriting;    /* watch the inbox */
	bool behind;        /* more may lie in the inbox than could be taken: it comes before the listeners */
	bool waiting;       /* at max-connections: watch room_fd, call intake_retry() */
	bool busy;          /* the body can serve no more: intake_busy() */
	int64_t retry_at;   /* a pause: call intake_retry() then; INT64_MAX: none */
	bool prepare;       /* an adopted listener may have connections that its present options came too late for */
	int room_fd;
	unsigned most;      /* connections to take in one turn from one listener or the inbox, at the most */
	unsigned batch;     /* connections to ask a listener for in one turn: intake_asked() */
	unsigned full;      /* turns since it changed, in all of which so many were there */
};

void intake_init(struct intake *intake, struct worker *worker);

/* Stop announcing interest; at the end of the worker. */
void intake_close(struct intake *intake);

/* Accept one connection from listener `index`. Returns 1 with `*arrival` filled in; 0 where there is none
 * now (or `open` has become false); a refused peer is closed, logged and passed over. */
int intake_accept(struct intake *intake, size_t index, struct arrival *arrival);

/* A body that takes more than one a turn has asked a listener for at most `batch`, and `got` were there. */
void intake_asked(struct intake *intake, unsigned got);

/* Take one connection from the predecessors' queue. Returns 1 or 0 likewise. */
int intake_inherit(struct intake *intake, struct arrival *arrival);

/* Try to open again: when room_fd is readable while `waiting`, or `retry_at` has come. */
void intake_retry(struct intake *intake);

/* The body itself can take no more (`busy`), or can again. */
void intake_busy(struct intake *intake, bool busy);

/* This worker has been woken for connections that it does not serve now, and nobody else may
 * have been: send at most `most` of those who wait in each backlog into the queue, where all see them,
 * as far as there is room, or, if `wait`, waiting for it as long as the orders to a stopping worker say. */
void intake_pass_on(struct intake *intake, unsigned most, bool wait);

/* Take one of max-connections places; false where all are taken: `waiting` now. Only while not `waiting`. */
bool intake_place(struct intake *intake);

/* Count and tell that max-connections are taken; intake_place() does it by itself. */
void intake_limit_reached(struct intake *intake);

/* A connection was accepted elsewhere (by a completion): whether this worker may keep it. Refuses, logs and
 * closes it otherwise. The place must have been taken before. */
bool intake_admit(struct intake *intake, int fd, const struct addr *addr, struct arrival *arrival);

/* What accept(2) failed with: pauses for exhaustion, ignores what concerns one client only. */
void intake_failed(struct intake *intake, int error);

#endif
