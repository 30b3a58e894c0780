/* stats.h - what echod counts: one slot a worker, in memory that all its processes share
 *
 * The supervisor makes the board before it forks; workers add to their own slot and nobody
 * else's; the supervisor reads all. Every counter is a lock-free atomic that only grows, also
 * when its slot goes to another worker: so totals survive a worker that is killed at any point,
 * and no reader ever sees one go back. STATUS=, the SIGUSR1 line and the metrics file all come
 * from stats_total().
 */
#ifndef ECHOD_ECHO_STATS_H
#define ECHOD_ECHO_STATS_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/types.h>

#include "base/ratelimit.h"

/* Every counter, once: identifier, metric name, label set or "", help. Rows of one metric stand together. */
#define STATS_COUNTERS(X) \
	X(STAT_ACCEPTED, "connections_accepted", "", "Connections accepted") \
	X(STAT_ENDED_EOF, "connections_ended", "reason=\"eof\"", "Connections ended, by reason") \
	X(STAT_ENDED_RESET, "connections_ended", "reason=\"reset\"", "") \
	X(STAT_ENDED_IDLE, "connections_ended", "reason=\"idle\"", "") \
	X(STAT_ENDED_LIMIT, "connections_ended", "reason=\"limit\"", "") \
	X(STAT_ENDED_DENIED, "connections_ended", "reason=\"denied\"", "") \
	X(STAT_ENDED_DRAIN, "connections_ended", "reason=\"drain\"", "") \
	X(STAT_ENDED_ERROR, "connections_ended", "reason=\"error\"", "") \
	X(STAT_HANDED_OVER, "connections_handed_over", "", "Live connections passed to a successor") \
	X(STAT_TAKEN_OVER, "connections_taken_over", "", "Live connections taken from a predecessor") \
	X(STAT_DAMAGED, "connections_damaged", "", "Live connections of a predecessor that could not be taken") \
	X(STAT_RECEIVED, "received_bytes", "", "Bytes received over connections") \
	X(STAT_ECHOED, "echoed_bytes", "", "Bytes sent back over connections") \
	X(STAT_CUT_OFF, "connections_cut_off", "", "Connections closed at the end of drain-timeout though bytes were owed") \
	X(STAT_EXHAUSTED, "resource_exhaustions", "", "Times accepting paused for want of descriptors or memory") \
	X(STAT_LIMITED, "limit_pauses", "", "Times accepting paused at max-connections") \
	X(STAT_IDLE_WAKEUPS, "idle_wakeups", "", "Wake-ups for a descriptor that stayed ready and from which nothing was taken: a defect") \
	X(STAT_UDP_RECEIVED, "datagrams_received", "", "Datagrams received") \
	X(STAT_UDP_ECHOED, "datagrams_echoed", "", "Datagrams sent back") \
	X(STAT_UDP_BYTES, "datagram_echoed_bytes", "", "Bytes sent back in datagrams") \
	X(STAT_UDP_LOW_PORT, "datagrams_dropped", "reason=\"low_port\"", "Datagrams not answered, by reason") \
	X(STAT_UDP_OWN_PORT, "datagrams_dropped", "reason=\"own_port\"", "") \
	X(STAT_UDP_OWN_ADDRESS, "datagrams_dropped", "reason=\"own_address\"", "") \
	X(STAT_UDP_NOT_UNICAST, "datagrams_dropped", "reason=\"not_unicast\"", "") \
	X(STAT_UDP_DENIED, "datagrams_dropped", "reason=\"denied\"", "") \
	X(STAT_UDP_LOOP, "datagrams_dropped", "reason=\"loop\"", "") \
	X(STAT_UDP_RATE, "datagrams_dropped", "reason=\"rate\"", "") \
	X(STAT_UDP_SEND_FAILED, "datagrams_dropped", "reason=\"send_failed\"", "") \
	X(STAT_UDP_QUEUE_FULL, "datagrams_dropped", "reason=\"queue_full\"", "") \
	X(STAT_LOG_SUPPRESSED, "log_lines_suppressed", "", "Log lines left out because their source, or all together, had too many") \
	X(STAT_LOG_LOST, "log_records_lost", "", "Log records that found the way to the supervisor full")

enum stats_counter {
#define X(id, name, labels, help) id,
	STATS_COUNTERS(X)
#undef X
	STATS_COUNT
};

enum stats_slot_state { SLOT_FREE, SLOT_STARTING, SLOT_READY };

struct stats_slot {
	_Atomic uint64_t counters[STATS_COUNT];
	_Atomic uint32_t live;   /* connections being served */
	_Atomic uint32_t beats;  /* signs of life */
	_Atomic uint64_t unsent; /* draining: bytes in the kernel that clients have not taken yet */
	_Atomic int32_t pid;     /* process the worker runs in, 0: slot not in use */
	_Atomic uint32_t state;  /* enum stats_slot_state */
	uint32_t seen;           /* the supervisor's: beats at the last look */
} __attribute__((aligned(64)));

/* What a worker counts on its way; published once a turn of its loop. */
struct stats_tally {
	uint64_t received, echoed;
	uint64_t work; /* never cleared: steps of any kind, see base/idle.h */
};

/* How a stopping crew treats its connections. */
enum stats_stop { STOP_NONE, STOP_HAND_OVER, STOP_DRAIN };

/* Orders to one crew; the stop pipe says when to look. */
struct stats_orders {
	_Atomic int stop;              /* enum stats_stop; STOP_NONE although the pipe closed: the supervisor is dead */
	_Atomic int64_t hand_until;    /* clock_usec() until which to wait for room to hand over */
	_Atomic int64_t drain_until;   /* clock_usec() at which what is left is cut off */
};

#define STATS_CREWS 64

struct stats_board {
	struct ratelimit trouble_lines;    /* descriptors or memory ran out */
	struct ratelimit limit_lines;      /* max-connections reached */
	struct stats_orders orders[STATS_CREWS];
	struct stats_slot others; /* what the supervisor counts, or has to count for a worker that died */
	uint32_t slots_count;
	_Atomic uint32_t slots_used; /* highest slot ever used, plus one */
	struct stats_slot slots[];
};

/* Make a board of `slots` slots in shared, inherited memory, of which only used pages cost.
 * Supervisor, once. Returns NULL with errno set where there is no memory. */
struct stats_board *stats_board_make(uint32_t slots);

void stats_board_free(struct stats_board *board);

static inline void stats_add(struct stats_slot *slot, enum stats_counter counter, uint64_t n)
{
	atomic_fetch_add_explicit(&slot->counters[counter], n, memory_order_relaxed);
}

static inline void stats_beat(struct stats_slot *slot)
{
	atomic_fetch_add_explicit(&slot->beats, 1, memory_order_relaxed);
}

/* The worker in the slot accepts, or serves. That is its first sign of life: whoever looks before it has come to give
 * another must not take it for hung. */
static inline void stats_slot_ready(struct stats_slot *slot)
{
	stats_beat(slot);
	atomic_store(&slot->state, SLOT_READY);
}

/* Add the tally to the slot and clear it. */
static inline void stats_publish(struct stats_slot *slot, struct stats_tally *tally)
{
	if (tally->received) {
		stats_add(slot, STAT_RECEIVED, tally->received);
		tally->received = 0;
	}
	if (tally->echoed) {
		stats_add(slot, STAT_ECHOED, tally->echoed);
		tally->echoed = 0;
	}
}

/* Note that the slot of this number is in use from now on: higher ones are never looked at. */
void stats_slot_use(struct stats_board *board, uint32_t number);

/* Make the slot free for another worker, who counts on from where it is; called by whoever reaped
 * its process. Returns the connections it was serving. */
uint32_t stats_slot_free(struct stats_slot *slot);

/* Sums over the board at one moment. */
struct stats_total {
	uint64_t counters[STATS_COUNT];
	uint64_t live, unsent;
};

void stats_total(const struct stats_board *board, struct stats_total *total);

/* Write all of it as OpenMetrics text ("# EOF" included). */
void stats_write_openmetrics(const struct stats_total *total, FILE *out);

/* The counter's metric name and labels, for tests and the statistics line. */
const char *stats_name(enum stats_counter counter);
const char *stats_labels(enum stats_counter counter);

#endif
