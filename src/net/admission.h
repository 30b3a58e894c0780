/* SPDX-License-Identifier: ISC */
/* admission.h - decide which connections are served: limits over all workers, and address lists
 *
 * Two decisions about a new connection. Before accept(2): is a connection slot free (max-connections, over
 * all workers of all crews)? At the limit clients stay in the backlog. After accept(2), which returns the
 * address of the peer: is this peer admitted (allow, deny, max-per-source)?
 *
 * Worker processes do not trust each other: none can write the counts of another. Each process counts its own
 * connections in its own part of shared memory (struct admission_process), which only it writes. To take a
 * slot it increases its own count and then adds up the counts of all others, each limited to the capacity of
 * its process. Two processes that try for the last slot at once see each other; the one that comes first in
 * order gets it. When the supervisor reaps a killed process, it withdraws the counts of that process.
 *
 * Connections in the queue between workers count as well: sent by one process and not yet received by
 * another. If a sender or receiver is killed in the middle of this, a connection may count twice, and too few
 * are admitted until the queue is empty and the supervisor corrects the counts (admission_queue_settle()).
 */
#ifndef ECHOD_NET_ADMISSION_H
#define ECHOD_NET_ADMISSION_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/siphash.h"
#include "net/cidr.h"
#include "net/peer.h"

/* Maximum number of groups; a group is a crew. */
#define ADMISSION_GROUPS 16

/* Connections of one source in one process. Written by the process, read by all. */
struct admission_source {
	_Atomic uint64_t key;        /* family and IPv4 address, or the IPv6 /64 */
	_Atomic uint32_t generation; /* of the process; the entry is free where it differs */
	_Atomic uint32_t count;      /* 0: free */
	_Atomic uint32_t trying;     /* of these: not yet admitted */
};

/* Counts of one process. The table of sources, with open addressing, follows it in memory. Written by the
 * process and, before it starts, by the supervisor. Read by all; readers limit the values, because the
 * process is not trusted. */
struct admission_process {
	_Atomic uint32_t connections; /* of the process */
	_Atomic uint32_t trying;  /* of these: not yet known whether a slot is free */
	_Atomic uint32_t waiting; /* workers of the process that wait for a slot */
	_Atomic uint32_t changes; /* changes of the table; odd: in progress */
	_Atomic uint64_t sent, received; /* connections put into the queue, taken out of it */
};

/* The processes of one crew. Written by the supervisor, read and trusted by all. */
struct admission_group {
	_Atomic uint32_t processes;  /* 0: the group is not in use */
	_Atomic bool sending;        /* its processes may put connections into the queue */
	uint32_t capacity;           /* maximum number of connections of one process */
	uint32_t max_connections; /* of the crew; 0: no limit */
	uint32_t sources; /* entries of a table: a power of two, and a limit of sources; 0: no table */
	size_t stride;               /* bytes from one process to the next */
	const char *first;           /* the first process; the same address in every process, read-only */
	const _Atomic uint32_t *generations; /* by process; 0: does not run */
};

/* Shared by all processes. Written by the supervisor, read and trusted by all. */
struct admission_shared {
	struct siphash_key hash_key;  /* secret, because peers choose their addresses */
	int slot_fd;                     /* see admission_slot_fd() */
	_Atomic uint32_t changes;     /* changes of the fields below; odd: in progress */
	_Atomic uint32_t processes;   /* running processes of all groups */
	_Atomic uint64_t capacity;    /* sum of their capacities */
	_Atomic uint32_t max_connections; /* the least of all groups that accept, see admission_limit() */
	_Atomic bool queue_in_use;
	struct admission_process supervisor; /* its own counts, and counts kept of processes that have
	                                      * ended */
	struct admission_group groups[ADMISSION_GROUPS];
};

/* The view of one worker. Plain data; each thread of the process may have a copy. */
struct admission {
	const struct admission_shared *shared;
	struct admission_process *own; /* of this process; NULL: another process counts for it, and nothing
	                                * is counted here */
	uint32_t group, index;         /* of this process; the group of the supervisor is ADMISSION_GROUPS */
	const struct cidr_set *allow, *deny;
	uint32_t max_connections; /* of this crew, never 0; UINT32_MAX: no limit. See admission_limit(). */
	uint32_t max_per_source;  /* 0: no limit */
};

enum admission_verdict { ADMISSION_OK, ADMISSION_DENIED, ADMISSION_SOURCE };

/* --- workers; any thread ---------------------------------------------------------------- */

/* The present limit of connections. During a reload the old and the new crew accept at the same time, and the
 * lower of their limits holds for both until the old one is asked to stop. With two limits at once a worker
 * could consume the event of a free slot that only the other crew may take. */
uint32_t admission_limit(const struct admission *admission);

/* Take a connection slot. Returns false where all admission_limit() slots are taken. */
bool admission_slot_acquire(const struct admission *admission);

/* Take a slot beyond any limit: for a connection that was accepted before a slot could be taken. */
void admission_slot_force(const struct admission *admission);

/* Take a slot for a connection from the queue, beyond max-connections. Returns false where this process has
 * `capacity` slots already. */
bool admission_slot_acquire_capped(const struct admission *admission, uint32_t capacity);

/* Release a slot and wake workers that wait for one. */
void admission_slot_release(const struct admission *admission);

/* Count a connection of the peer's source, whatever the limit. */
void admission_add_source(const struct admission *admission, const struct peer *peer);

/* Before a connection from `peer` is sent to the queue: pass its slot to the queue and uncount its source.
 * `peer` NULL: its source is not counted. A connection that moves counts twice for a moment, so this and the
 * two functions below wake workers that wait for a slot, which may have been refused one in that moment. */
void admission_enqueue(const struct admission *admission, const struct peer *peer);

/* The connection could not be sent: take slot and source back. */
void admission_enqueue_undo(const struct admission *admission, const struct peer *peer);

/* After a connection was received from the queue, with a slot taken before: count its source, whatever the
 * limit. `peer` NULL: its source is not counted. */
void admission_dequeue(const struct admission *admission, const struct peer *peer);

/* Whether connections are in the queue. They are admitted already, but not counted in any table of
 * sources. */
bool admission_queue_pending(const struct admission *admission);

/* The eventfd, shared by all workers, that becomes readable when a slot becomes free while a worker waits.
 * A misbehaving process may consume the event first, so a waiting worker must also try again after some
 * time. */
int admission_slot_fd(const struct admission_shared *shared);

/* Begin or end to wait for a slot. Between admission_wait(), which consumes an earlier event, and sleeping, a
 * worker must try once more to take a slot. A worker that ends to wait wakes others if a slot is free. */
void admission_wait(const struct admission *admission);
void admission_wait_done(const struct admission *admission);

/* Whether the peer is admitted. Counts the connection for its source if sources are limited. A unix peer is
 * always admitted. */
enum admission_verdict admission_admit(const struct admission *admission, const struct peer *peer);

/* Whether `max-per-source` counts both peers as one source. */
bool admission_same_source(const struct peer *a, const struct peer *b);

/* The connection of an admitted peer has ended. */
void admission_leave(const struct admission *admission, const struct peer *peer);

/* Number of connections over all workers, including the queue; and of those from the source of one peer. */
uint32_t admission_slots_taken(const struct admission_shared *shared);
uint32_t admission_source_count(const struct admission *admission, const struct peer *peer);

/* --- the supervisor --------------------------------------------------------------------- */

/* Initialize `shared`, which must be zero. Returns 0 or -errno. */
int admission_open(struct admission_shared *shared);
void admission_close(struct admission_shared *shared);

/* Activate a group: `processes` processes of `capacity` connections each, at `first`, `first` + `stride`, ...
 * None of them runs. */
void admission_group_open(struct admission_shared *shared, uint32_t group,
                          const struct admission_group *layout);

/* From now on the supervisor puts connections into the queue itself. */
void admission_queue_begin(struct admission_shared *shared);

/* From now on the processes of the group put connections into the queue, because they stop. Its
 * max-connections no longer limits other groups. */
void admission_group_stopping(struct admission_shared *shared, uint32_t group);

/* Deactivate the group, of which no process runs. */
void admission_group_close(struct admission_shared *shared, uint32_t group);

/* Before a process of the group is forked: clear its counts (`process`, writable) and make them valid under a
 * new `generation`, which is not 0. */
void admission_process_start(struct admission_shared *shared, uint32_t group,
                             struct admission_process *process, _Atomic uint32_t *generation);

/* After the process has ended: drop its connections; what it sent is still in the queue. Wakes workers that
 * wait. */
void admission_process_end(struct admission_shared *shared, uint32_t group, struct admission_process *process,
                           _Atomic uint32_t *generation);

/* Add `count` (which may be negative) to the connections of processes whose parent was killed. */
void admission_add_orphans(struct admission_shared *shared, int count);

/* Correct the counts of the queue, which contains `count` connections. Call it while no process sends or
 * receives; the next call corrects a count that was wrong for a moment. */
void admission_queue_settle(struct admission_shared *shared, unsigned count);

#endif
