/* SPDX-License-Identifier: ISC */
/* pool.h - many objects of one size, densely
 *
 * Objects lie in chunks of POOL_CHUNK bytes without a header of their own; a chunk in which
 * none is left is given back if others have room. One thread at a time for each pool.
 */
#ifndef ECHOD_BASE_POOL_H
#define ECHOD_BASE_POOL_H

#include <stddef.h>

#include "base/list.h"

#define POOL_CHUNK 65536

struct pool {
	struct list chunks; /* those with a free object first */
	size_t object;      /* size of one */
};

/* `object` bytes each, at least a pointer's; aligned as max_align_t where a multiple of it. */
void pool_init(struct pool *pool, size_t object);

/* One object, not cleared, or NULL where there is no memory. */
void *pool_alloc(struct pool *pool);

/* Give it back; NULL is fine. */
void pool_free(struct pool *pool, void *object);

/* Free them all, given back or not. */
void pool_destroy(struct pool *pool);

#endif
