/* SPDX-License-Identifier: ISC */
#include <config.h>

#include "base/log_budget.h"

/* The entry of a source, or the one that it takes: an unused one, else that of the source with the fewest
 * lines. */
static struct log_source *source_find(struct log_budget *budget, uint64_t tag, uint32_t window)
{
	struct log_source *set = budget->sources[tag % LOG_BUDGET_SETS], *least = set;

	for (size_t i = 0; i < LOG_BUDGET_WAYS; i++) {
		if (set[i].window == window && set[i].tag == tag)
			return &set[i];
		if (least->window == window && (set[i].window != window || set[i].used < least->used))
			least = &set[i];
	}
	*least = (struct log_source) { .tag = tag, .window = window };
	return least;
}

bool log_budget_take(struct log_budget *budget, const void *key, size_t size, int64_t now)
{
	int64_t window = now / budget->interval + 1;
	struct log_source *source;

	if (!budget->keyed && siphash_key_make(&budget->key) < 0)
		return true; /* a host without random numbers is not a reason to be silent */
	budget->keyed = true;
	if (window != budget->window) {
		budget->window = window;
		budget->used = 0;
	}
	source = source_find(budget, siphash(&budget->key, key, size), (uint32_t) window);
	if (source->used >= budget->share || budget->used >= budget->all)
		return false;
	source->used++;
	budget->used++;
	return true;
}
