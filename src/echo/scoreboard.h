/* scoreboard.h - the memory that the supervisor and its worker processes share
 *
 * Worker processes are not trusted: one that runs code of an attacker must not be able to change what the supervisor or another
 * worker relies on. So there are separate files (memfd_create(2)):
 *
 *   struct scoreboard_shared   written by the supervisor, read and trusted by all
 *   one file for each crew     a segment of pages for each of its processes, written by that process (and by the
 *                              supervisor while the process does not run), read by all, trusted by nobody
 *
 * Each process maps all files readable, and writable only its own segment. The
 * readable mapping was made with a read-only descriptor, or the file is sealed (F_SEAL_FUTURE_WRITE), so it cannot be
 * made writable; where the kernel can (mseal(2)), the own mapping cannot grow either. The files are large, but only pages
 * that are used cost memory, and those of a crew are freed when it has ended.
 *
 * A segment has a slot (struct stats_slot) for each worker of the process; a process that serves connections also counts
 * them for admission.h there. In the model "process" each child process has a segment with one slot, which its parent
 * may write as well.
 *
 * Whatever the supervisor reads from a segment it checks: counters only grow, and no faster than any hardware allows;
 * other numbers are limited to what a process can hold. Process ids, sizes and addresses are kept in its private memory.
 */
#ifndef ECHOD_ECHO_SCOREBOARD_H
#define ECHOD_ECHO_SCOREBOARD_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/types.h>

#include "conf/conf.h"
#include "echo/stats.h"
#include "net/admission.h"

#define SCOREBOARD_CREWS ADMISSION_GROUPS

/* Most workers of a crew: of 32 bit addresses, files must leave most to others. */
#define SCOREBOARD_WORKERS_MAX (sizeof(void *) > 4 ? CONF_WORKERS_MAX : 6000)

/* How a stopping crew treats its connections. */
enum stats_stop {
	STOP_NONE,
	STOP_HAND_OVER, /* hand them over at once */
	STOP_FLUSH,     /* as STOP_DRAIN, but hand each over where it would end */
	STOP_DRAIN,     /* echo what has arrived by now, then end them */
};

/* The request to one crew to stop; its stop pipe says when to look. Written by the supervisor, trusted by workers. */
struct stop_request {
	_Atomic int stop;              /* enum stats_stop; STOP_NONE although the pipe closed: the supervisor is dead */
	_Atomic int64_t hand_until;    /* clock_usec() until which to wait for room to hand over */
	_Atomic int64_t drain_until;   /* clock_usec() at which what is left is cut off */
};

/* Written by the supervisor, read and trusted by all. */
struct scoreboard_shared {
	struct admission_shared admission;
	struct stop_request stop_request[SCOREBOARD_CREWS];
	_Atomic uint32_t generations[SCOREBOARD_CREWS][CONF_WORKERS_MAX]; /* of the processes that serve connections */
	_Atomic uint8_t orphans[SCOREBOARD_CREWS][CONF_WORKERS_MAX]; /* children whose parent was killed and that still run */
};

/* What a crew consists of. Its workers are numbered in this order. */
struct scoreboard_layout {
	unsigned processes;       /* that serve connections */
	unsigned threads;         /* workers in each of them */
	unsigned readers;         /* processes with one worker that serves no connections */
	unsigned children;        /* most workers that the first process makes itself */
	bool child_processes;     /* they are processes, else threads of that process */
	uint32_t capacity;        /* most connections of one process, those of its children included */
	uint32_t worker_capacity; /* most connections of one worker; of a child one */
	bool sources;             /* connections are counted by source */
};

struct scoreboard;

/* Make it for crews whose processes have at most `capacity` connections. Returns 0 or -errno. */
int scoreboard_make(struct scoreboard **scoreboard, uint32_t capacity);
void scoreboard_free(struct scoreboard *scoreboard);

/* --- the supervisor --------------------------------------------------------------------- */

/* Its writable view. */
struct scoreboard_shared *scoreboard_shared(struct scoreboard *scoreboard);

/* What the supervisor counts itself, in its private memory. */
struct stats_slot *scoreboard_own_slot(struct scoreboard *scoreboard);

/* Find room for a crew. Returns its number, or -EBUSY (too many crews), -ENOSPC (the layout is too large), -ENOMEM. */
int scoreboard_crew_open(struct scoreboard *scoreboard, const struct scoreboard_layout *layout);

/* No process of the crew runs any more. */
void scoreboard_crew_close(struct scoreboard *scoreboard, unsigned crew);

/* Process `process` (those that serve, then the readers) is about to be forked, for the first time or again. */
void scoreboard_process_start(struct scoreboard *scoreboard, unsigned crew, unsigned process);

/* It has ended and was reaped: its slots are free, its counters are kept. Returns the connections that it was serving. */
uint32_t scoreboard_process_end(struct scoreboard *scoreboard, unsigned crew, unsigned process);

/* The parent of the crew's child processes has ended: report each child in use, with the process id that its slot
 * claims, to be checked by `is_child`. Those that are confirmed are orphans from now on, the slots of others are free. */
void scoreboard_find_orphans(struct scoreboard *scoreboard, unsigned crew,
                             bool (*is_child)(void *context, unsigned child, pid_t pid), void *context);

/* An orphan was reaped; `handed_over`: its connection is in the queue. Returns the connections that it was serving. */
uint32_t scoreboard_orphan_end(struct scoreboard *scoreboard, unsigned crew, unsigned child, bool handed_over);

/* Whether every worker of the crew's processes is ready. */
bool scoreboard_crew_ready(const struct scoreboard *scoreboard, unsigned crew);

/* Whether every worker that is ready has shown life since the last call. */
bool scoreboard_crew_alive(struct scoreboard *scoreboard, unsigned crew);

/* Add up all counters, those of processes and crews that have ended included. None is ever smaller than before. */
void scoreboard_total(struct scoreboard *scoreboard, struct stats_total *total);

/* Note all counters as they are now: what a worker counted before is not lost where it overwrites them. Returns the number
 * of workers. */
unsigned scoreboard_look(struct scoreboard *scoreboard);

/* Connections of worker `index`, over all crews that have one of this number at work; false where none has. `*end` is
 * set to the number after the highest. */
bool scoreboard_worker_connections(const struct scoreboard *scoreboard, unsigned index, uint64_t *connections, unsigned *end);

/* --- worker processes ------------------------------------------------------------------- */

/* After fork: keep only what process `process` of the crew may write. */
void scoreboard_enter(const struct scoreboard *scoreboard, unsigned crew, unsigned process);

/* In a child process of such a process. */
void scoreboard_enter_child(const struct scoreboard *scoreboard, unsigned crew, unsigned child);

/* The view of a worker. */
const struct scoreboard_shared *scoreboard_view(const struct scoreboard *scoreboard);

/* The slot of worker `index`; children follow the crew's other workers. Writable for its process, and in the supervisor. */
struct stats_slot *scoreboard_slot(const struct scoreboard *scoreboard, unsigned crew, unsigned index);

/* The counts of a process that serves connections, likewise. */
struct admission_process *scoreboard_admission(const struct scoreboard *scoreboard, unsigned crew, unsigned process);

/* Whether the counters are possible for a worker that runs since `started` (clock_usec()). */
bool scoreboard_is_plausible(const struct stats_slot *slot, int64_t started, int64_t now);

#endif
