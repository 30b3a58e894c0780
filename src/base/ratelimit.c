/* SPDX-License-Identifier: ISC */
#include <config.h>

#include "base/ratelimit.h"

bool ratelimit_allow(struct ratelimit *limit, int64_t now, int64_t interval, uint32_t burst)
{
	int64_t window = atomic_load_explicit(&limit->window, memory_order_relaxed);

	if (window == 0 || now - window >= interval || now < window)
		if (atomic_compare_exchange_strong(&limit->window, &window, now))
			atomic_store(&limit->used, 0);
	if (atomic_load_explicit(&limit->used, memory_order_relaxed) < burst &&
	    atomic_fetch_add(&limit->used, 1) < burst)
		return true;
	atomic_fetch_add_explicit(&limit->suppressed, 1, memory_order_relaxed);
	return false;
}

uint64_t ratelimit_take_suppressed(struct ratelimit *limit)
{
	if (atomic_load_explicit(&limit->suppressed, memory_order_relaxed) == 0)
		return 0;
	return atomic_exchange(&limit->suppressed, 0);
}
