/* SPDX-License-Identifier: ISC */
/* stats.h - counters: a slot for each worker, and the metrics made from them
 *
 * A worker adds to its own slot in memory that its process shares with the supervisor (scoreboard.h). Every
 * counter is a lock-free atomic that only grows, also when its slot passes to another worker, so totals
 * survive a worker that is killed at any point. STATUS=, the SIGUSR1 line and the metrics file are all made
 * from scoreboard_total().
 */
#ifndef ECHOD_ECHO_STATS_H
#define ECHOD_ECHO_STATS_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/types.h>

#include "net/peer.h"

/* Rows of STATS_COUNTERS: the ends of connections that were counted as accepted or taken over before. */
#define STATS_ENDS(X) \
	X(STAT_ENDED_EOF, "connections_ended", "reason=\"eof\"", "Connections ended, by reason") \
	X(STAT_ENDED_RESET, "connections_ended", "reason=\"reset\"", "") \
	X(STAT_ENDED_IDLE, "connections_ended", "reason=\"idle\"", "") \
	X(STAT_ENDED_PROXY, "connections_ended", "reason=\"proxy\"", "") \
	X(STAT_ENDED_DRAIN, "connections_ended", "reason=\"drain\"", "") \
	X(STAT_ENDED_ERROR, "connections_ended", "reason=\"error\"", "")

/* The table of counters: identifier, metric name, label set or "", help. Rows of one metric are adjacent. */
#define STATS_COUNTERS(X) \
	X(STAT_ACCEPTED, "connections_accepted", "", "Connections accepted") \
	STATS_ENDS(X) \
	X(STAT_ENDED_LIMIT, "connections_ended", "reason=\"limit\"", "") \
	X(STAT_ENDED_DENIED, "connections_ended", "reason=\"denied\"", "") \
	X(STAT_HANDED_OVER, "connections_handed_over", "", "Live connections passed to a successor") \
	X(STAT_TAKEN_OVER, "connections_taken_over", "", "Live connections taken from a predecessor") \
	X(STAT_DAMAGED, "connections_damaged", "", \
	  "Live connections of a predecessor that could not be taken") \
	X(STAT_RECEIVED, "received_bytes", "", "Bytes received over connections") \
	X(STAT_ECHOED, "echoed_bytes", "", "Bytes sent back over connections") \
	X(STAT_CUT_OFF, "connections_cut_off", "", \
	  "Connections closed at the end of drain-timeout though bytes were owed") \
	X(STAT_EXHAUSTED, "resource_exhaustions", "", \
	  "Times accepting paused for want of descriptors or memory") \
	X(STAT_LIMITED, "limit_pauses", "", "Times accepting paused at max-connections") \
	X(STAT_IDLE_WAKEUPS, "idle_wakeups", "", \
	  "Wake-ups for a descriptor that stayed ready and from which nothing was taken: a defect") \
	X(STAT_UDP_RECEIVED, "datagrams_received", "", "Datagrams received") \
	X(STAT_UDP_ECHOED, "datagrams_echoed", "", "Datagrams sent back") \
	X(STAT_UDP_BYTES, "datagram_echoed_bytes", "", "Bytes sent back in datagrams") \
	X(STAT_UDP_LOW_PORT, "datagrams_dropped", "reason=\"low_port\"", \
	  "Datagrams not answered, by reason") \
	X(STAT_UDP_OWN_PORT, "datagrams_dropped", "reason=\"own_port\"", "") \
	X(STAT_UDP_OWN_ADDRESS, "datagrams_dropped", "reason=\"own_address\"", "") \
	X(STAT_UDP_NOT_UNICAST, "datagrams_dropped", "reason=\"not_unicast\"", "") \
	X(STAT_UDP_DENIED, "datagrams_dropped", "reason=\"denied\"", "") \
	X(STAT_UDP_LOOP, "datagrams_dropped", "reason=\"loop\"", "") \
	X(STAT_UDP_RATE, "datagrams_dropped", "reason=\"rate\"", "") \
	X(STAT_UDP_SEND_FAILED, "datagrams_dropped", "reason=\"send_failed\"", "") \
	X(STAT_UDP_QUEUE_FULL, "datagrams_dropped", "reason=\"queue_full\"", "") \
	X(STAT_LOG_SUPPRESSED, "log_lines_suppressed", "", \
	  "Log lines left out because their source, or all together, had too many") \
	X(STAT_LOG_LOST, "log_records_lost", "", "Log records that found the way to the supervisor full")

enum stats_counter {
#define X(id, name, labels, help) id,
	STATS_COUNTERS(X)
#undef X
	STATS_COUNT
};

enum stats_slot_state { SLOT_FREE, SLOT_STARTING, SLOT_READY };

/* A child is being created in this slot. The child or its parent replaces it by the process id, or the
 * supervisor by 0 after the parent has ended. */
#define STATS_PID_UNKNOWN (-1)

/* The slot of a worker. Written by its process; readers check the values (scoreboard.h). */
struct stats_slot {
	_Atomic uint64_t counters[STATS_COUNT];
	_Atomic uint32_t live;     /* connections being served */
	_Atomic uint32_t heartbeats;    /* increased while the worker's loop goes on */
	_Atomic uint64_t unsent;   /* draining: bytes in the kernel that clients have not acknowledged yet */
	_Atomic int32_t pid;       /* process id of a child, a hint that must be checked; 0: none, or
	                            * STATS_PID_UNKNOWN */
	_Atomic uint32_t state;    /* enum stats_slot_state */
	_Atomic uint32_t blocked;  /* of a child: 1 while it waits for space in the queue */
	_Atomic uint32_t children; /* of a worker that creates others: number of child slots used so far */
	struct peer peer;          /* of a child's connection, written before it starts; family AF_UNSPEC: its
	                            * source is not counted */
} __attribute__((aligned(64)));

/* Counters local to a worker, added to its slot once in each iteration. */
struct local_stats {
	uint64_t received, echoed;
	uint64_t work; /* never cleared: steps of any kind, see base/idle.h */
};

static inline void stats_add(struct stats_slot *slot, enum stats_counter counter, uint64_t n)
{
	atomic_fetch_add_explicit(&slot->counters[counter], n, memory_order_relaxed);
}

static inline void stats_heartbeat(struct stats_slot *slot)
{
	atomic_fetch_add_explicit(&slot->heartbeats, 1, memory_order_relaxed);
}

/* Mark the worker as serving. Counts as a heartbeat, so that a check before the first regular heartbeat does
 * not find the worker hung. */
static inline void stats_slot_ready(struct stats_slot *slot)
{
	stats_heartbeat(slot);
	atomic_store(&slot->state, SLOT_READY);
}

/* Add `local_stats` to the slot and clear them. */
static inline void stats_publish(struct stats_slot *slot, struct local_stats *local_stats)
{
	if (local_stats->received) {
		stats_add(slot, STAT_RECEIVED, local_stats->received);
		local_stats->received = 0;
	}
	if (local_stats->echoed) {
		stats_add(slot, STAT_ECHOED, local_stats->echoed);
		local_stats->echoed = 0;
	}
}

/* Free the slot of a child. The next child continues its counters. */
void stats_slot_free(struct stats_slot *slot);

/* Sums over all workers at one moment. */
struct stats_total {
	uint64_t counters[STATS_COUNT];
	uint64_t live, unsent;
};

/* Write the sums as OpenMetrics text, without "# EOF". */
void stats_write_openmetrics(const struct stats_total *total, FILE *out);

/* The counter's metric name and labels, for tests and the statistics line. */
const char *stats_name(enum stats_counter counter);
const char *stats_labels(enum stats_counter counter);

#endif
