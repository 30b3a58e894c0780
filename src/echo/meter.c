#include <config.h>

#include "echo/meter.h"

#include <arpa/inet.h>
#include <string.h>

#define NSEC_PER_SEC INT64_C(1000000000)
#define NSEC_PER_USEC 1000

/* What stands for the network of `source`. The families cannot meet: bits 48 and up tell. */
static uint64_t network_key(const struct addr *source)
{
	uint64_t key = 0;

	switch (source->sa.sa_family) {
	case AF_INET:
		return UINT64_C(1) << 48 | ntohl(source->in.sin_addr.s_addr) >> 8;
	case AF_INET6:
		for (int i = 0; i < 6; i++)
			key = key << 8 | source->in6.sin6_addr.s6_addr[i];
		return UINT64_C(2) << 48 | key;
	default:
		return 0;
	}
}

/* Not secret: who wants a network's share used up can forge that very network as well. */
static _Atomic int64_t *network_cell(struct meter *meter, const struct addr *source)
{
	uint64_t key = network_key(source);

	key = (key ^ key >> 32) * UINT64_C(0x9e3779b97f4a7c15);
	key = (key ^ key >> 29) * UINT64_C(0xbf58476d1ce4e5b9);
	return &meter->cells[(key >> 32) & (METER_CELLS - 1)];
}

unsigned meter_take(struct meter *meter, unsigned rate, const struct addr *source, int64_t now, unsigned count)
{
	int64_t interval, full, begin, room, old;
	_Atomic int64_t *cell;

	if (rate == 0)
		return count;
	cell = network_cell(meter, source);
	old = atomic_load_explicit(cell, memory_order_relaxed);
	/* rounded up: never more than the rate */
	interval = (NSEC_PER_SEC + rate - 1) / rate;
	now *= NSEC_PER_USEC;
	full = now + interval * rate;
	do {
		begin = old > now ? old : now;
		room = (full - begin) / interval;
		if (room <= 0)
			return 0;
		if (room < count)
			count = (unsigned) room;
	} while (!atomic_compare_exchange_weak(cell, &old, begin + interval * count));
	return count;
}
