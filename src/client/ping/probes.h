/* probes.h - the account of probes: what was sent, which one an answer belongs to, what became of each
 *
 * Probe number `seq` (from 1) has a content of its own: its number, hidden by a key of the run, then a piece of
 * the pattern. An answer is matched by that content, so a wrong byte is told as such, and an answer to another
 * run or another client is a stray. The last PROBES_WINDOW probes are remembered.
 * Pure but for memory; one thread. pattern_make() must have been called.
 */
#ifndef ECHOD_CLIENT_PROBES_H
#define ECHOD_CLIENT_PROBES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "client/histogram.h"

#define PROBES_WINDOW 65536u

enum probe_state {
	PROBE_UNDERWAY,
	PROBE_OVERDUE, /* not answered in time; it may still be */
	PROBE_FAILED,  /* could not be sent, or its connection was lost: no answer will come */
	PROBE_ANSWERED,
	PROBE_DIFFERED, /* an answer came, with a wrong byte or a wrong length */
};

struct probe {
	uint64_t sent_at; /* ticks */
	enum probe_state state;
};

struct probes {
	size_t size;
	uint32_t key;
	struct probe *window; /* probe seq is at seq modulo PROBES_WINDOW */
	uint64_t sent;        /* also the number of the last one */
	uint64_t settled;     /* all up to this number are answered, overdue or failed */
	uint64_t highest;     /* number of the highest one answered */
	uint64_t received;    /* intact ones, each once */
	uint64_t corrupted;   /* answered, but not intact: probes, where `differing` counts answers */
	uint64_t differing, duplicates, reordered, late, strays;
	struct histogram rtt; /* ticks, of the intact */
};

enum probe_verdict { VERDICT_ANSWER, VERDICT_DUPLICATE, VERDICT_DIFFERS, VERDICT_STRAY };

/* What an answer turned out to be. */
struct probe_match {
	enum probe_verdict verdict;
	uint64_t seq; /* but for strays */
	uint64_t rtt; /* ticks */
	bool late;
	bool reordered;  /* one sent after it was answered before it (RFC 4737, 3.3) */
	size_t at;       /* differs: the index of the first wrong byte; the length where only that is wrong */
	int wanted, got; /* differs: the bytes there; -1: none */
};

/* Returns 0 or -ENOMEM. */
int probes_init(struct probes *probes, size_t size, uint32_t key);
void probes_clear(struct probes *probes);

/* Write the content of probe `seq` to `bytes`, probes->size of them. */
void probes_fill(const struct probes *probes, uint64_t seq, uint8_t *bytes);

/* A new probe goes out at `now`. Returns its number. */
uint64_t probes_send(struct probes *probes, uint64_t now);

/* A datagram came back. */
void probes_match(struct probes *probes, const uint8_t *bytes, size_t length, uint64_t now,
		  struct probe_match *match);

/* All bytes of the answer to `seq` came back, over a stream, `bytes` being the whole of it. */
void probes_match_stream(struct probes *probes, uint64_t seq, const uint8_t *bytes, uint64_t now,
			 struct probe_match *match);

/* The state of `seq`, which is in the window. */
struct probe *probes_get(const struct probes *probes, uint64_t seq);

/* The number of the oldest probe that is under way, or 0. */
uint64_t probes_oldest(struct probes *probes);

/* No answer to `seq` is awaited any more: PROBE_OVERDUE or PROBE_FAILED. */
void probes_give_up(struct probes *probes, uint64_t seq, enum probe_state how);

/* How many are under way. */
uint64_t probes_underway(struct probes *probes);

#endif
