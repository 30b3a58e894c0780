/* SPDX-License-Identifier: ISC */
/* pool.h - allocate objects of one size
 *
 * Objects have no header and are allocated in chunks of POOL_CHUNK bytes; an empty chunk is unmapped if
 * another chunk has free objects. One thread at a time for each pool.
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

/* Objects have `object` bytes, at least the size of a pointer; aligned as max_align_t if that is a multiple
 * of its size. */
void pool_init(struct pool *pool, size_t object);

/* Returns an object, not cleared, or NULL if there is no memory. */
void *pool_alloc(struct pool *pool);

/* Free an object; `object` may be NULL. */
void pool_free(struct pool *pool, void *object);

/* Free all objects, also those in use. */
void pool_destroy(struct pool *pool);

#endif
