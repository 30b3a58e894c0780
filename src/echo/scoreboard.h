/* SPDX-License-Identifier: ISC */
/* scoreboard.h - memory that the supervisor and its worker processes share
 *
 * Worker processes are not trusted: one that runs code of an attacker must not be able to change values that
 * the supervisor or another worker relies on. So there are separate files (memfd_create(2)):
 *
 *   struct scoreboard_shared   written by the supervisor, read and trusted by all
 *   one file for each crew     a segment of pages for each of its processes, written by that process (and by
 *                              the supervisor while the process does not run), read by all, trusted by none
 *
 * Each process maps all files readable, and only its own segment writable. The readable mapping was made with
 * a read-only descriptor, or the file is sealed (F_SEAL_FUTURE_WRITE), so it cannot be made writable. The
 * process cannot grow the mapping of its own segment over others either: the system call filter does not
 * permit mremap(2), and without a filter the mapping is sealed where the kernel supports mseal(2). The files
 * are large, but only used pages cost memory, and the pages of a crew are freed when it has ended.
 *
 * A segment has a slot (struct stats_slot) for each worker of the process; a process that serves connections
 * also counts them for admission.h there. In the model "process" each child process has a segment with one
 * slot, which its parent may write as well.
 *
 * The supervisor checks every value that it reads from a segment: counters only grow, and no faster than any
 * hardware allows; other numbers are limited to the capacity of the process. Process ids, sizes and addresses
 * are kept in the supervisor's private memory.
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

/* Maximum number of workers of a crew; lower where addresses have 32 bits. */
#define SCOREBOARD_WORKERS_MAX (sizeof(void *) > 4 ? CONF_WORKERS_MAX : 6000)

/* How a stopping crew treats its connections. */
enum stats_stop {
	STOP_NONE,
	STOP_HAND_OVER, /* hand connections over at once */
	STOP_FLUSH,     /* as STOP_DRAIN, but hand over each connection instead of closing it */
	STOP_DRAIN,     /* echo data that have arrived, then close */
};

/* The request to one crew to stop; closing its stop pipe announces it. Written by the supervisor, trusted by
 * workers. */
struct stop_request {
	_Atomic int stop; /* enum stats_stop; STOP_NONE after the pipe was closed: the supervisor is dead */
	_Atomic int64_t hand_until;    /* clock_usec() until which to wait for space in the queue */
	_Atomic int64_t drain_until;   /* clock_usec() at which remaining connections are cut off */
};

/* Written by the supervisor, read and trusted by all. */
struct scoreboard_shared {
	struct admission_shared admission;
	struct stop_request stop_request[SCOREBOARD_CREWS];
	/* by crew and process that serves connections */
	_Atomic uint32_t generations[SCOREBOARD_CREWS][CONF_WORKERS_MAX];
	/* 1: a child that still runs although its parent was killed */
	_Atomic uint8_t orphans[SCOREBOARD_CREWS][CONF_WORKERS_MAX];
};

/* The parts of a crew. Its workers are numbered in this order. */
struct scoreboard_layout {
	unsigned processes;       /* processes that serve connections */
	unsigned threads;         /* workers in each of them */
	unsigned readers;         /* processes with one worker that serves no connections */
	unsigned children;        /* maximum number of workers that the first process creates itself */
	bool child_processes;     /* children are processes, else threads of the first process */
	uint32_t capacity; /* maximum number of connections of one process, including those of its children */
	uint32_t max_connections; /* of the crew; 0: no limit */
	uint32_t worker_capacity; /* maximum number of connections of one worker; a child has one */
	bool sources;             /* connections are counted by source */
};

struct scoreboard;

/* Make a scoreboard for crews whose processes have at most `capacity` connections. Returns 0 or -errno. */
int scoreboard_make(struct scoreboard **scoreboard, uint32_t capacity);
void scoreboard_free(struct scoreboard *scoreboard);

/* --- the supervisor --------------------------------------------------------------------- */

/* The writable mapping. */
struct scoreboard_shared *scoreboard_shared(struct scoreboard *scoreboard);

/* The slot for what the supervisor itself counts, in its private memory. */
struct stats_slot *scoreboard_own_slot(struct scoreboard *scoreboard);

/* Reserve a file for a crew. Returns the number of the crew, or -EBUSY (too many crews), -ENOSPC (the layout
 * is too large), -ENOMEM. */
int scoreboard_crew_open(struct scoreboard *scoreboard, const struct scoreboard_layout *layout);

/* Free the file of a crew of which no process runs any more. */
void scoreboard_crew_close(struct scoreboard *scoreboard, unsigned crew);

/* Prepare the slots of process `process` (serving processes first, then readers) before it is forked, for the
 * first time or again. */
void scoreboard_process_start(struct scoreboard *scoreboard, unsigned crew, unsigned process);

/* After a process was reaped: free its slots, keep its counters. Returns the number of connections that it
 * was serving. */
uint32_t scoreboard_process_end(struct scoreboard *scoreboard, unsigned crew, unsigned process);

/* After the parent of the crew's child processes has ended: call `is_child` for each child in use, with the
 * process id that its slot claims. Children that it confirms become orphans; the slots of the others are
 * freed. A child that has not written its process id yet can no longer do so. Returns the number of
 * connections in the freed slots. */
uint32_t scoreboard_find_orphans(struct scoreboard *scoreboard, unsigned crew,
                                 bool (*is_child)(void *context, unsigned child, pid_t pid), void *context);

enum scoreboard_end { SCOREBOARD_CLOSED, SCOREBOARD_HANDED_OVER };

/* After an orphan was reaped. `end`: whether its connection is in the queue. Returns the number of
 * connections that it was serving. */
uint32_t scoreboard_orphan_end(struct scoreboard *scoreboard, unsigned crew, unsigned child,
                               enum scoreboard_end end);

/* Whether every worker of the crew's processes is ready. */
bool scoreboard_crew_ready(const struct scoreboard *scoreboard, unsigned crew);

/* Whether every ready worker has increased its heartbeat since the last call. */
bool scoreboard_crew_alive(struct scoreboard *scoreboard, unsigned crew);

/* Add up all counters, including those of processes and crews that have ended. No sum is ever smaller than
 * before. */
void scoreboard_total(struct scoreboard *scoreboard, struct stats_total *total);

/* Copy all counters now, so that they are kept if their worker overwrites them later. Returns the number of
 * workers. */
unsigned scoreboard_sample(struct scoreboard *scoreboard);

/* Connections of worker `index` over all crews in which such a worker runs; false where there is none. `*end`
 * is set to the highest number plus 1. */
bool scoreboard_worker_connections(const struct scoreboard *scoreboard, unsigned index, uint64_t *connections,
                                   unsigned *end);

/* --- worker processes ------------------------------------------------------------------- */

/* After fork: unmap or protect everything that process `process` of the crew must not write. */
void scoreboard_enter(const struct scoreboard *scoreboard, unsigned crew, unsigned process);

/* The same in a child process of that process. */
void scoreboard_enter_child(const struct scoreboard *scoreboard, unsigned crew, unsigned child);

/* The read-only mapping, for workers. */
const struct scoreboard_shared *scoreboard_view(const struct scoreboard *scoreboard);

/* The slot of worker `index`; children follow the other workers of the crew. Writable for its process and for
 * the supervisor. */
struct stats_slot *scoreboard_slot(const struct scoreboard *scoreboard, unsigned crew, unsigned index);

/* The counts of a process that serves connections; writable for that process and for the supervisor. */
struct admission_process *scoreboard_admission(const struct scoreboard *scoreboard, unsigned crew,
                                               unsigned process);

/* Whether the counters are possible for a worker that has run since `started` (clock_usec()). */
bool scoreboard_is_plausible(const struct stats_slot *slot, int64_t started, int64_t now);

#endif
