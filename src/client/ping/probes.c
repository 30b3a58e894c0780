/* SPDX-License-Identifier: ISC */
/* probes.c - see probes.h */
#include <config.h>

#include "client/ping/probes.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "client/pattern.h"

#define NUMBER_BYTES 4
#define SEARCH_MAX 1024 /* probes compared with a damaged answer */

int probes_init(struct probes *probes, size_t size, uint32_t key, unsigned flows)
{
	*probes = (struct probes) { .size = size, .key = key, .flow_count = flows };
	histogram_clear(&probes->rtt);
	histogram_clear(&probes->jitter);
	probes->window = calloc(PROBES_WINDOW, sizeof *probes->window);
	probes->flows = calloc(flows, sizeof *probes->flows);
	if (!probes->window || !probes->flows)
		return -ENOMEM;
	for (unsigned i = 0; i < flows; i++)
		histogram_clear(&probes->flows[i].rtt);
	return 0;
}

void probes_clear(struct probes *probes)
{
	free(probes->window);
	free(probes->flows);
	probes->window = NULL;
	probes->flows = NULL;
}

static struct probes_flow *flow_of(const struct probes *probes, uint64_t seq)
{
	return &probes->flows[probes_flow_of(probes, seq)];
}

struct probe *probes_get(const struct probes *probes, uint64_t seq)
{
	return &probes->window[seq % PROBES_WINDOW];
}

/* --- content ------------------------------------------------------------------------------------------ */

static uint32_t number_hide(const struct probes *probes, uint64_t seq)
{
	return (uint32_t) seq ^ probes->key;
}

static pattern_offset content_offset(const struct probes *probes, uint64_t seq)
{
	return pattern_after(pattern_start(seq), probes->key);
}

void probes_fill(const struct probes *probes, uint64_t seq, uint8_t *bytes)
{
	uint32_t number = number_hide(probes, seq);
	pattern_offset offset = content_offset(probes, seq);
	size_t at = 0;

	for (; at < probes->size && at < NUMBER_BYTES; at++)
		bytes[at] = (uint8_t) (number >> (24 - 8 * at));
	while (at < probes->size) {
		size_t part = probes->size - at < PATTERN_RUN ? probes->size - at : PATTERN_RUN;

		memcpy(bytes + at, pattern_bytes(offset), part);
		offset = pattern_after(offset, part);
		at += part;
	}
}

static uint8_t byte_wanted(const struct probes *probes, uint64_t seq, size_t at)
{
	if (at < NUMBER_BYTES)
		return (uint8_t) (number_hide(probes, seq) >> (24 - 8 * at));
	return *pattern_bytes(pattern_after(content_offset(probes, seq), at - NUMBER_BYTES));
}

/* The index of the first byte of `bytes` that differs from probe `seq`, or the smaller of both lengths. */
static size_t content_compare(const struct probes *probes, uint64_t seq, const uint8_t *bytes, size_t length)
{
	size_t max = length < probes->size ? length : probes->size, at = 0;

	for (; at < max && at < NUMBER_BYTES; at++)
		if (bytes[at] != byte_wanted(probes, seq, at))
			return at;
	return at + pattern_compare(content_offset(probes, seq), bytes + at, max - at);
}

/* --- sending ------------------------------------------------------------------------------------------ */

uint64_t probes_send(struct probes *probes, uint64_t now)
{
	*probes_get(probes, ++probes->sent) = (struct probe) { .sent_at = now, .state = PROBE_UNDERWAY };
	flow_of(probes, probes->sent)->sent++;
	/* Probes that leave the window count as resolved. */
	if (probes->sent > PROBES_WINDOW && probes->resolved < probes->sent - PROBES_WINDOW)
		probes->resolved = probes->sent - PROBES_WINDOW;
	return probes->sent;
}

uint64_t probes_oldest(struct probes *probes)
{
	while (probes->resolved < probes->sent
	       && probes_get(probes, probes->resolved + 1)->state != PROBE_UNDERWAY)
		probes->resolved++;
	return probes->resolved < probes->sent ? probes->resolved + 1 : 0;
}

void probes_give_up(struct probes *probes, uint64_t seq, enum probe_state state)
{
	probes_get(probes, seq)->state = state;
}

uint64_t probes_underway(struct probes *probes, int flow)
{
	uint64_t count = 0;

	if (probes_oldest(probes) == 0)
		return 0;
	for (uint64_t seq = probes->resolved + 1; seq <= probes->sent; seq++)
		count += probes_get(probes, seq)->state == PROBE_UNDERWAY
		      && (flow < 0 || probes_flow_of(probes, seq) == (unsigned) flow);
	return count;
}

/* --- matching ----------------------------------------------------------------------------------------- */

static bool is_known(const struct probes *probes, uint64_t seq)
{
	return seq >= 1 && seq <= probes->sent && probes->sent - seq < PROBES_WINDOW;
}

/* The full number of which the answer has the low 32 bits: the nearest one to the last sent. */
static uint64_t number_read(const struct probes *probes, const uint8_t *bytes)
{
	uint32_t low = ((uint32_t) bytes[0] << 24 | (uint32_t) bytes[1] << 16 | (uint32_t) bytes[2] << 8
			| bytes[3])
		     ^ probes->key;

	return probes->sent - (uint32_t) ((uint32_t) probes->sent - low);
}

static size_t bytes_equal(const struct probes *probes, uint64_t seq, const uint8_t *bytes, size_t length)
{
	size_t equal = 0;

	for (size_t at = 0; at < length; at++)
		equal += bytes[at] == byte_wanted(probes, seq, at);
	return equal;
}

/* The probe of which this may be a damaged answer: it has most bytes in common, more than half. 0: none. */
static uint64_t origin_find(const struct probes *probes, const uint8_t *bytes, size_t length)
{
	size_t max = length < probes->size ? length : probes->size;
	size_t look = max < 256 ? max : 256, best = look / 2;
	uint64_t origin = 0;

	for (uint64_t back = 0; back < SEARCH_MAX && is_known(probes, probes->sent - back); back++) {
		size_t equal = bytes_equal(probes, probes->sent - back, bytes, look);

		if (equal > best) {
			best = equal;
			origin = probes->sent - back;
		}
	}
	return origin;
}

static void match_differs(struct probes *probes, uint64_t seq, const uint8_t *bytes, size_t length,
			  struct probe_match *match)
{
	struct probe *probe = probes_get(probes, seq);

	match->verdict = VERDICT_DIFFERS;
	match->seq = seq;
	match->at = content_compare(probes, seq, bytes, length);
	match->wanted = match->at < probes->size ? byte_wanted(probes, seq, match->at) : -1;
	match->got = match->at < length ? bytes[match->at] : -1;
	probes->differing++;
	if (probe->state == PROBE_ANSWERED || probe->state == PROBE_DIFFERED)
		return;
	probe->state = PROBE_DIFFERED;
	probes->corrupted++;
	flow_of(probes, seq)->corrupted++;
}

/* Add the difference of two consecutive probes of a flow if both are answered (RFC 3393). */
static void jitter_add(struct probes *probes, uint64_t first, uint64_t second)
{
	const struct probe *a = probes_get(probes, first), *b = probes_get(probes, second);

	if (first >= 1 && is_known(probes, first) && second <= probes->sent && a->state == PROBE_ANSWERED
	    && b->state == PROBE_ANSWERED)
		histogram_add(&probes->jitter, a->rtt < b->rtt ? b->rtt - a->rtt : a->rtt - b->rtt);
}

static void match_intact(struct probes *probes, uint64_t seq, uint64_t now, struct probe_match *match)
{
	struct probe *probe = probes_get(probes, seq);
	struct probes_flow *flow = flow_of(probes, seq);
	unsigned step = probes->flow_count;

	match->seq = seq;
	match->rtt = now > probe->sent_at ? now - probe->sent_at : 0;
	if (probe->state == PROBE_ANSWERED) {
		match->verdict = VERDICT_DUPLICATE;
		probes->duplicates++;
		return;
	}
	match->verdict = VERDICT_ANSWER;
	match->late = probe->state == PROBE_OVERDUE;
	match->reordered = seq < flow->highest;
	if (seq > flow->highest)
		flow->highest = seq;
	probes->late += match->late;
	probes->reordered += match->reordered;
	probes->received++;
	flow->received++;
	if (probe->state == PROBE_DIFFERED) { /* an intact answer came later */
		probes->corrupted--;
		flow->corrupted--;
	}
	histogram_add(&probes->rtt, match->rtt);
	histogram_add(&flow->rtt, match->rtt);
	probe->rtt = match->rtt;
	probe->state = PROBE_ANSWERED;
	if (seq > step)
		jitter_add(probes, seq - step, seq);
	jitter_add(probes, seq, seq + step);
}

void probes_match(struct probes *probes, const uint8_t *bytes, size_t length, uint64_t now,
		  struct probe_match *match)
{
	uint64_t seq = length >= NUMBER_BYTES ? number_read(probes, bytes) : 0;

	*match = (struct probe_match) { .wanted = -1, .got = -1 };
	if (seq >= 1 && seq <= probes->sent && length == probes->size
	    && content_compare(probes, seq, bytes, length) == length) {
		if (is_known(probes, seq)) {
			match_intact(probes, seq, now, match);
		} else {
			/* A probe of this run that has left the window. */
			match->verdict = VERDICT_STRAY;
			probes->strays++;
		}
		return;
	}
	/* If it is not a probe of wrong length with the right bytes, search for its origin. */
	if (!is_known(probes, seq)
	    || content_compare(probes, seq, bytes, length) < (length < probes->size ? length : probes->size))
		seq = length > 0 ? origin_find(probes, bytes, length) : 0;
	if (seq != 0) {
		match_differs(probes, seq, bytes, length, match);
		return;
	}
	match->verdict = VERDICT_STRAY;
	probes->strays++;
}

void probes_match_stream(struct probes *probes, uint64_t seq, const uint8_t *bytes, uint64_t now,
			 struct probe_match *match)
{
	*match = (struct probe_match) { .wanted = -1, .got = -1 };
	if (content_compare(probes, seq, bytes, probes->size) == probes->size)
		match_intact(probes, seq, now, match);
	else
		match_differs(probes, seq, bytes, probes->size, match);
}

uint64_t probes_identify(const struct probes *probes, const uint8_t *bytes, size_t length)
{
	uint64_t seq = length >= NUMBER_BYTES ? number_read(probes, bytes) : 0;

	if (length > probes->size)
		length = probes->size;
	return is_known(probes, seq) && content_compare(probes, seq, bytes, length) == length ? seq : 0;
}
