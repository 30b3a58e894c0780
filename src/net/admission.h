/* SPDX-License-Identifier: ISC */
/* admission.h - which connections are taken: limits over all workers, and lists of addresses
 *
 * Two questions about a new connection. Is a connection slot free (max-connections, over all workers of all crews)? Asked
 * before accept(2), so that at the limit the backlog holds the clients. Is this peer admitted (allow, deny,
 * max-per-source)? Asked after accept(2), which names the peer.
 *
 * Worker processes do not trust each other: none can write what another one counts. Each process counts its own
 * connections in its own part of shared memory (struct admission_process), which only it writes; to take a slot it counts
 * its own up, and then adds up the counts of all others. What it reads there is limited to what that process can hold. Two
 * processes that try for the last slot at once see each other; the one that comes first in order gets it. A process that was
 * killed leaves nothing behind: the supervisor withdraws its part when it reaps it.
 *
 * Connections in the queue between workers count as well: sent by one process and not yet received by another. While a
 * sender or receiver is killed in the middle, a connection may count twice, so that too few are admitted until the queue is
 * empty, when the supervisor settles the account.
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

/* Most groups: one for each crew. */
#define ADMISSION_GROUPS 16

/* Connections of one source in one process. Written by the process, read by all. */
struct admission_source {
	_Atomic uint64_t key;        /* family and IPv4 address, or the IPv6 /64 */
	_Atomic uint32_t generation; /* of the process; another one: the entry is free */
	_Atomic uint32_t count;      /* 0: free */
	_Atomic uint32_t trying;     /* of them those that are not yet admitted */
};

/* The counts of one process; behind it is its table of sources, with open addressing. Written by the process, read by
 * all; trusted by nobody: readers limit the values. The supervisor writes it only before the process starts. */
struct admission_process {
	_Atomic uint32_t held;    /* connections it holds */
	_Atomic uint32_t trying;  /* of them those for which it is still looking whether a slot is free */
	_Atomic uint32_t waiting; /* its workers that wait for a slot */
	_Atomic uint32_t changes; /* of the table; odd: one is under way */
	_Atomic uint64_t sent, received; /* connections put into the queue and taken out of it */
};

/* The processes of one crew. Written by the supervisor, read and trusted by all. */
struct admission_group {
	_Atomic uint32_t processes;  /* 0: the group is not in use */
	_Atomic bool sending;        /* its processes may put connections into the queue */
	uint32_t capacity;           /* most connections of one process */
	uint32_t sources;            /* entries of a table: a power of two, more than `capacity`; 0: no table */
	size_t stride;               /* bytes from one process to the next */
	const char *first;           /* the first one; the same address in every process, readable only */
	const _Atomic uint32_t *generations; /* of each; 0: it does not run */
};

/* What all share. Written by the supervisor, read and trusted by all. */
struct admission_shared {
	struct siphash_key hash_key;  /* peers choose their addresses */
	int room;                     /* see admission_room_fd() */
	_Atomic uint32_t changes;     /* of what follows; odd: one is under way */
	_Atomic uint32_t processes;   /* that run, over all groups */
	_Atomic uint64_t capacity;    /* most connections of all of them together */
	_Atomic bool queue_in_use;
	struct admission_process supervisor; /* its own counts, and what remains of processes that have ended */
	struct admission_group groups[ADMISSION_GROUPS];
};

/* One worker's view. Plain data; a copy may be made for each thread of the process. */
struct admission {
	const struct admission_shared *shared;
	struct admission_process *own; /* of this process; NULL: another process counts for it, and nothing is counted here */
	uint32_t group, index;         /* which that is; the supervisor's group is ADMISSION_GROUPS */
	const struct cidr_set *allow, *deny;
	uint32_t max_connections; /* never 0 here; UINT32_MAX: no limit */
	uint32_t max_per_source;  /* 0: no limit */
};

enum admission_verdict { ADMISSION_OK, ADMISSION_DENIED, ADMISSION_SOURCE };

/* --- workers; any thread ---------------------------------------------------------------- */

/* Take a connection slot; false where all max-connections are taken. */
bool admission_take_place(const struct admission *admission);

/* Take a slot whatever the limit: for a connection that was accepted before it could be asked for. */
void admission_force_place(const struct admission *admission);

/* Likewise for a connection that is taken out of the queue, unless this process holds `most` already. */
bool admission_hold_place(const struct admission *admission, uint32_t most);

/* Give a slot back; wakes workers that wait for one. */
void admission_give_place(const struct admission *admission);

/* A connection of this process from `peer` goes into the queue to another worker, with its slot. */
void admission_enqueue(const struct admission *admission, const struct peer *peer);

/* It could not be sent: slot and source are this process's again. */
void admission_take_back(const struct admission *admission, const struct peer *peer);

/* A connection came out of the queue, for which this process has taken a slot before it looked; its source is counted,
 * whatever the limit. `peer` NULL: it was damaged; the caller gives the slot back. */
void admission_dequeue(const struct admission *admission, const struct peer *peer);

/* Whether connections are in the queue: they are admitted already, but in no process's table of sources. */
bool admission_queue_pending(const struct admission *admission);

/* A descriptor (an eventfd, the same for all workers) that becomes readable when a worker waits and a slot becomes free. A
 * process that has gone wrong may read it first: a worker that waits must look again by time as well. */
int admission_room_fd(const struct admission_shared *shared);

/* Announce that this worker waits for a slot, or does no longer. A waiting worker must try
 * admission_take_place() once more after announcing, before it sleeps. */
void admission_wait(const struct admission *admission);
void admission_wait_done(const struct admission *admission);

/* Whether the peer may connect; counts it against its source where that is limited. A unix peer
 * always may. */
enum admission_verdict admission_admit(const struct admission *admission, const struct peer *peer);

/* An admitted peer's connection has ended. */
void admission_leave(const struct admission *admission, const struct peer *peer);

/* Connections over all workers, those in the queue included, and those counted from one peer's source. */
uint32_t admission_places_taken(const struct admission_shared *shared);
uint32_t admission_source_count(const struct admission *admission, const struct peer *peer);

/* --- the supervisor --------------------------------------------------------------------- */

/* Prepare `shared` (zeros). Returns 0 or -errno. */
int admission_open(struct admission_shared *shared);
void admission_close(struct admission_shared *shared);

/* Put a group into use: `processes` of `capacity` connections each at `first`, `first` + `stride`, ..., of which none runs. */
void admission_group_open(struct admission_shared *shared, uint32_t group, const struct admission_group *layout);

/* The supervisor puts connections into the queue itself from now on. */
void admission_queue_begin(struct admission_shared *shared);

/* The processes of the group stop: they put connections into the queue from now on. */
void admission_group_stopping(struct admission_shared *shared, uint32_t group);

/* The group is not in use any more; no process of it runs. */
void admission_group_close(struct admission_shared *shared, uint32_t group);

/* Process `index` of the group is about to be forked: its counts (`process`, writable) are cleared and valid from now on
 * under `generation`, not 0 and another one than before. */
void admission_process_start(struct admission_shared *shared, uint32_t group, struct admission_process *process,
                             _Atomic uint32_t *generation);

/* It has ended: it holds nothing any more, and what it sent is still in the queue. Wakes workers that wait. */
void admission_process_end(struct admission_shared *shared, uint32_t group, struct admission_process *process,
                           _Atomic uint32_t *generation);

/* Processes whose parent was killed hold `count` connections more, or less. */
void admission_add_orphans(struct admission_shared *shared, int count);

/* `count` connections are in the queue: settle the account. To be called while no process sends or receives; a count
 * that is wrong for a moment is put right by the next call. */
void admission_queue_settle(struct admission_shared *shared, unsigned count);

#endif
