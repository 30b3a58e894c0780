/* SPDX-License-Identifier: ISC */
#include <config.h>

#include "base/pool.h"

#include <stdint.h>
#include <sys/mman.h>

/* At the start of each chunk, which is aligned to its size: so the chunk of an object follows from its
 * address. */
struct chunk {
	struct list link;
	void *free;      /* list through the first word of free objects */
	size_t fresh;    /* offset of the part that was never allocated */
	size_t used;     /* objects in use */
} __attribute__((aligned(64)));

void pool_init(struct pool *pool, size_t object)
{
	list_init(&pool->chunks);
	pool->object = object;
}

/* Mapped, not allocated: malloc(3) would spend a page more on each to align it. */
static void *chunk_map(void)
{
	uint8_t *at = mmap(NULL, 2 * POOL_CHUNK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0),
		*chunk;
	size_t before;

	if (at == MAP_FAILED)
		return NULL;
	before = (POOL_CHUNK - (uintptr_t) at % POOL_CHUNK) % POOL_CHUNK;
	chunk = at + before;
	if (before > 0)
		munmap(at, before);
	munmap(chunk + POOL_CHUNK, POOL_CHUNK - before);
	return chunk;
}

static struct chunk *chunk_make(struct pool *pool)
{
	struct chunk *chunk = chunk_map();

	if (!chunk)
		return NULL;
	chunk->free = NULL;
	chunk->fresh = sizeof *chunk;
	chunk->used = 0;
	list_prepend(&pool->chunks, &chunk->link);
	return chunk;
}

static int chunk_full(const struct pool *pool, const struct chunk *chunk)
{
	return !chunk->free && chunk->fresh + pool->object > POOL_CHUNK;
}

static int has_space(const struct pool *pool)
{
	return !list_empty(&pool->chunks) &&
	       !chunk_full(pool, LIST_ENTRY(pool->chunks.next, struct chunk, link));
}

void *pool_alloc(struct pool *pool)
{
	struct chunk *chunk;
	void *object;

	chunk = has_space(pool) ? LIST_ENTRY(pool->chunks.next, struct chunk, link) : chunk_make(pool);
	if (!chunk)
		return NULL;
	object = chunk->free;
	if (object) {
		chunk->free = *(void **) object;
	} else {
		object = (char *) chunk + chunk->fresh;
		chunk->fresh += pool->object;
	}
	chunk->used++;
	/* full chunks are last, so that the first one shows whether there is a free object */
	if (chunk_full(pool, chunk))
		list_move_last(&pool->chunks, &chunk->link);
	return object;
}

void pool_free(struct pool *pool, void *object)
{
	struct chunk *chunk = (void *) ((char *) object - ((uintptr_t) object & (POOL_CHUNK - 1)));

	if (!object)
		return;
	*(void **) object = chunk->free;
	chunk->free = object;
	chunk->used--;
	list_remove(&chunk->link);
	/* keep an empty chunk if no other has a free object: it may be needed again at once */
	if (chunk->used == 0 && has_space(pool))
		munmap(chunk, POOL_CHUNK);
	else
		list_prepend(&pool->chunks, &chunk->link);
}

void pool_destroy(struct pool *pool)
{
	while (!list_empty(&pool->chunks)) {
		struct chunk *chunk = LIST_ENTRY(pool->chunks.next, struct chunk, link);

		list_remove(&chunk->link);
		munmap(chunk, POOL_CHUNK);
	}
}
