/* SPDX-License-Identifier: ISC */
/* log_budget.h - share a number of log lines fairly among the sources that cause them
 *
 * In each interval a source may cause at most `share` lines, all sources together at most `all`. So a flood
 * from one source leaves lines for the others. Sources are found by a keyed hash in a table of fixed size; if
 * it is full, the source with the fewest lines is forgotten, so that one that floods is not. Plain memory of
 * one process: no locking.
 */
#ifndef ECHOD_BASE_LOG_BUDGET_H
#define ECHOD_BASE_LOG_BUDGET_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/siphash.h"

#define LOG_BUDGET_SETS 128
#define LOG_BUDGET_WAYS 8

struct log_budget {
	uint32_t share, all;   /* most lines in an interval */
	int64_t interval;      /* microseconds */
	struct siphash_key key;
	bool keyed;
	int64_t window;        /* number of the current interval, counted from 1 */
	uint32_t used;         /* lines in it */
	struct log_source {
		uint64_t tag;  /* hash of the source */
		uint32_t window, used;
	} sources[LOG_BUDGET_SETS][LOG_BUDGET_WAYS];
};

/* Whether the source with this `key` (`size` bytes) may cause a line at time `now` (microseconds). */
bool log_budget_take(struct log_budget *budget, const void *key, size_t size, int64_t now);

#endif
