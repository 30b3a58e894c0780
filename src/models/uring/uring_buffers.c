/* SPDX-License-Identifier: ISC */
#include <config.h>

#include "models/uring/uring_buffers.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/mman.h>

#define CACHE_LINE 64
#define PAGE 4096

static void *map_pages(size_t size)
{
	void *at =
		mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	return at == MAP_FAILED ? NULL : at;
}

int buffers_open(struct buffers *buffers, struct io_uring *io, uint16_t group, uint16_t first, unsigned count,
                 size_t size)
{
	struct io_uring_buf_reg reg = { .bgid = group };

	*buffers = (struct buffers) { .size = size, .count = count, .first = first };
	/* one cache line more, so that the beginnings of buffers do not compete for the same cache lines */
	buffers->stride = (size < PAGE ? size : (size + PAGE - 1) / PAGE * PAGE) + CACHE_LINE;
	buffers->ring_size = count * sizeof(struct io_uring_buf);
	buffers->ring = map_pages(buffers->ring_size);
	buffers->start = map_pages(buffers->stride * count);
	buffers->notes = calloc(count, sizeof *buffers->notes);
	if (!buffers->ring || !buffers->start || !buffers->notes)
		return -ENOMEM;
	/* most messages are short: use only the pages of a buffer that are needed */
	(void) madvise(buffers->start, buffers->stride * count, MADV_NOHUGEPAGE);
	reg.ring_addr = (uintptr_t) buffers->ring;
	reg.ring_entries = count;
	io_uring_buf_ring_init(buffers->ring);
	for (unsigned i = 0; i < count; i++)
		buffers_give(buffers, (uint16_t) (first + i));
	return io_uring_register_buf_ring(io, &reg, 0);
}

void buffers_close(struct buffers *buffers)
{
	if (buffers->ring)
		munmap(buffers->ring, buffers->ring_size);
	if (buffers->start)
		munmap(buffers->start, buffers->stride * buffers->count);
	free(buffers->notes);
	*buffers = (struct buffers) { 0 };
}

void buffers_give(struct buffers *buffers, uint16_t buffer)
{
	io_uring_buf_ring_add(buffers->ring, buffers_at(buffers, buffer), (unsigned) buffers->size, buffer,
	                      io_uring_buf_ring_mask(buffers->count), 0);
	io_uring_buf_ring_advance(buffers->ring, 1);
}
