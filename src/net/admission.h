/* admission.h - who may connect, and how many
 *
 * Two questions about a new connection. Is there room (max-connections, over all workers of
 * all crews)? Asked before accept(2), so that at the limit the backlog holds the clients. May
 * this peer come (allow, deny, max-per-source)? Asked after accept(2), which names the peer.
 *
 * The counts live in memory shared by every process that is forked later. Each count has an
 * owner, the process that serves the connection, named by a number below admission_make()'s
 * `owners`; what a killed process held is given back by whoever reaps it
 * (admission_forget_owner()), so nothing leaks. Connections on their way from one worker to
 * another belong to nobody for a moment, but count all the time: the queue owns them. The count of connections is a lock-free
 * atomic; the table of sources is behind a robust, process-shared mutex and only touched when
 * max-per-source is set.
 */
#ifndef ECHOD_NET_ADMISSION_H
#define ECHOD_NET_ADMISSION_H

#include <stdbool.h>
#include <stdint.h>

#include "net/network.h"
#include "net/peer.h"

struct admission_shared;

/* One worker's view. Plain data; a copy may be made for each thread. */
struct admission {
	struct admission_shared *shared;
	const struct network_set *allow, *deny;
	uint32_t max_connections; /* never 0 here; UINT32_MAX: no limit */
	uint32_t max_per_source;  /* 0: no limit */
	uint32_t owner;
};

enum admission_verdict { ADMISSION_OK, ADMISSION_DENIED, ADMISSION_SOURCE };

/* Make the shared part for `owners` owners and at most three quarters of `sources` (a power of two)
 * pairs of a source and an owner; of both only what is used costs memory. Supervisor, once. NULL with errno
 * set on failure. */
struct admission_shared *admission_make(uint32_t owners, uint32_t sources);
void admission_free(struct admission_shared *shared);

/* Take one of max-connections places; false where all are taken. Any worker. */
bool admission_take_place(const struct admission *admission);

/* Take a place whatever the limit: for a connection that was accepted before it could be asked for. */
void admission_force_place(const struct admission *admission);

/* Likewise for one that is taken out of the queue, unless its owner holds `most` places already. */
bool admission_hold_place(const struct admission *admission, uint32_t most);

/* The caller's connection from `peer` goes into the queue to another worker: its place and its source become the
 * queue's. */
void admission_enqueue(const struct admission *admission, const struct peer *peer);

/* It came out of the queue: its source becomes the caller's, whatever the limit. Its place is given back, since the caller
 * has taken one before it looked. Where a predecessor of this process enqueued it, the queue holds neither. `peer` NULL:
 * it came damaged, and its source is the queue's until admission_forget_queue(). */
void admission_dequeue(const struct admission *admission, const struct peer *peer);

/* One that the caller enqueued could not be sent: both are the caller's again. */
void admission_take_back(const struct admission *admission, const struct peer *peer);

/* Nothing is in the queue: what is still counted as being there was damaged, or was on its way when a process was
 * killed. Where one is on its way right now, it is not counted until it arrives. */
void admission_forget_queue(struct admission_shared *shared);

/* Give the place back; wakes workers that wait for one. */
void admission_give_place(const struct admission *admission);

/* A descriptor (an eventfd, the same for all workers) that becomes readable when somebody waits and a place
 * becomes free. */
int admission_room_fd(const struct admission_shared *shared);

/* Announce that this worker waits for a place, or does no longer. A waiting worker must try
 * admission_take_place() once more after announcing, before it sleeps. */
void admission_wait(const struct admission *admission);
void admission_wait_done(const struct admission *admission);

/* Whether the peer may come; counts it against its source where that is limited. A unix peer
 * always may. */
enum admission_verdict admission_admit(const struct admission *admission, const struct peer *peer);

/* An admitted peer's connection has ended. */
void admission_leave(const struct admission *admission, const struct peer *peer);

/* The process numbered `owner` is gone: give back every place and source it held. */
void admission_forget_owner(struct admission_shared *shared, uint32_t owner);

/* Connections over all workers, and those counted from one peer's source. For tests and statistics. */
uint32_t admission_places_taken(const struct admission_shared *shared);
uint32_t admission_source_count(const struct admission *admission, const struct peer *peer);

#endif
