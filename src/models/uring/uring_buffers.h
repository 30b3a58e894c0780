/* SPDX-License-Identifier: ISC */
/* uring_buffers.h - a group of receive buffers for the kernel, io_uring_register_buf_ring(3)
 *
 * A receive takes a buffer when data are there, and its completion returns the number of the buffer, which
 * then belongs to the body until buffers_give(). The groups of one ring share one range of numbers. One
 * thread.
 */
#ifndef ECHOD_MODELS_URING_BUFFERS_H
#define ECHOD_MODELS_URING_BUFFERS_H

#include <liburing.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* For the body: the data in a buffer, and the next buffer of a queue. */
struct buffer_note {
	uint16_t from, size;
	uint16_t next;
};

struct buffers {
	struct io_uring_buf_ring *ring;  /* ring of free buffers, read by the kernel */
	size_t ring_size;
	uint8_t *start;
	size_t size, stride;             /* bytes of a buffer; distance between two buffers */
	unsigned count;                  /* a power of two; 0: the group does not exist */
	uint16_t first;                  /* number of its first buffer */
	struct buffer_note *notes;       /* for the body, one for each buffer */
};

/* Make and register group `group` of `count` buffers, of at most 64 KiB each, with numbers from `first` on.
 * Returns 0 or -errno; buffers_close() is needed in both cases. */
int buffers_open(struct buffers *buffers, struct io_uring *io, uint16_t group, uint16_t first, unsigned count,
                 size_t size);

/* Free the group, after io_uring_queue_exit(3). A zeroed group is allowed. */
void buffers_close(struct buffers *buffers);

/* Return a buffer to the kernel. */
void buffers_give(struct buffers *buffers, uint16_t buffer);

static inline bool buffers_have(const struct buffers *buffers, uint16_t buffer)
{
	return buffer >= buffers->first && (unsigned) (buffer - buffers->first) < buffers->count;
}

static inline uint8_t *buffers_at(const struct buffers *buffers, uint16_t buffer)
{
	return buffers->start + (size_t) (buffer - buffers->first) * buffers->stride;
}

static inline struct buffer_note *buffers_note(const struct buffers *buffers, uint16_t buffer)
{
	return &buffers->notes[buffer - buffers->first];
}

/* The number of the buffer that contains `at`, or ends there; `at` must be in this group. */
static inline uint16_t buffers_number(const struct buffers *buffers, const uint8_t *at)
{
	return (uint16_t) (buffers->first + (size_t) (at - buffers->start) / buffers->stride);
}

static inline bool buffers_hold(const struct buffers *buffers, const uint8_t *at)
{
	return at >= buffers->start && at < buffers->start + buffers->stride * buffers->count;
}

#endif
