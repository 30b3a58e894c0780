/* SPDX-License-Identifier: ISC */
/* probes.h - match answers with the probes that were sent, and count the results
 *
 * Each probe `seq` (from 1) has its own content: its number, XORed with a key of the run, then a part of
 * the pattern. An answer is matched by its content, so that a wrong byte is recognised as such, and an
 * answer to another run or another client as a stray. Probes are sent on the flows in turn: probe `seq`
 * on flow (seq - 1) modulo the number of flows. The last PROBES_WINDOW probes are remembered. Pure except
 * for memory allocation; one thread. pattern_make() must have been called.
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
	PROBE_OVERDUE, /* not answered in time; an answer may still come */
	PROBE_FAILED,  /* not sent, dropped on the way, or its connection was lost: no answer will come */
	PROBE_ANSWERED,
	PROBE_DIFFERED, /* an answer came, with a wrong byte or a wrong length */
};

/* Times are nanoseconds. */
struct probe {
	uint64_t sent_at;
	uint64_t rtt; /* if it is answered */
	enum probe_state state;
};

struct probes_flow {
	uint64_t sent, received, corrupted;
	uint64_t highest; /* highest number answered */
	struct histogram rtt;
};

struct probes {
	size_t size;
	uint32_t key;
	unsigned flow_count;
	struct probes_flow *flows;
	struct probe *window; /* probe `seq` is at index seq modulo PROBES_WINDOW */
	uint64_t sent;        /* number of the last probe */
	uint64_t resolved;    /* all probes up to this number are answered, overdue or failed */
	uint64_t received;    /* probes with an intact answer */
	uint64_t corrupted;   /* probes whose answers differed (`differing` counts the answers) */
	uint64_t differing, duplicates, reordered, late, strays;
	struct histogram rtt; /* nanoseconds, of intact answers */
	/* |rtt - rtt of the previous probe of the flow| in nanoseconds, if both are answered (RFC 3393). */
	struct histogram jitter;
};

enum probe_verdict { VERDICT_ANSWER, VERDICT_DUPLICATE, VERDICT_DIFFERS, VERDICT_STRAY };

/* Result for one answer. */
struct probe_match {
	enum probe_verdict verdict;
	uint64_t seq; /* not for strays */
	uint64_t rtt; /* nanoseconds */
	bool late;
	bool reordered;  /* a probe of the flow sent later was answered before (RFC 4737, 3.3) */
	size_t at;       /* if it differs: index of the first wrong byte; the length if only that is wrong */
	int wanted, got; /* if it differs: the bytes there; -1: none */
};

/* Returns 0 or -ENOMEM; call probes_clear() in both cases. */
int probes_init(struct probes *probes, size_t size, uint32_t key, unsigned flows);
void probes_clear(struct probes *probes);

/* Write the content of probe `seq` to `bytes`, probes->size of them. */
void probes_fill(const struct probes *probes, uint64_t seq, uint8_t *bytes);

/* Register a new probe, sent at `now`. Returns its number. */
uint64_t probes_send(struct probes *probes, uint64_t now);

/* Index of the flow of probe `seq`. */
static inline unsigned probes_flow_of(const struct probes *probes, uint64_t seq)
{
	return (unsigned) ((seq - 1) % probes->flow_count);
}

/* Evaluate a received datagram. */
void probes_match(struct probes *probes, const uint8_t *bytes, size_t length, uint64_t now,
		  struct probe_match *match);

/* Evaluate the answer to `seq` from a stream; `bytes` is the whole answer. */
void probes_match_stream(struct probes *probes, uint64_t seq, const uint8_t *bytes, uint64_t now,
			 struct probe_match *match);

/* The number of the probe of which `bytes` are the beginning (at least 4 bytes); 0: none that is
 * remembered. */
uint64_t probes_identify(const struct probes *probes, const uint8_t *bytes, size_t length);

/* The probe `seq`, which must be in the window. */
struct probe *probes_get(const struct probes *probes, uint64_t seq);

/* Number of the oldest outstanding probe; 0: none. */
uint64_t probes_oldest(struct probes *probes);

/* Stop waiting for an answer to `seq`: `state` is PROBE_OVERDUE or PROBE_FAILED. */
void probes_give_up(struct probes *probes, uint64_t seq, enum probe_state state);

/* Number of outstanding probes of the flow; of all flows if it is -1. */
uint64_t probes_underway(struct probes *probes, int flow);

#endif
