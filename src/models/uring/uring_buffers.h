/* SPDX-License-Identifier: ISC */
/* uring_buffers.h - a group of receive buffers that the kernel takes from, io_uring_register_buf_ring(3)
 *
 * A receive takes one at the moment data are there, and its completion names it: from then on it
 * is the body's until buffers_give(). Buffers are named by numbers, which the groups of one ring
 * share among them. One thread.
 */
#ifndef ECHOD_MODELS_URING_BUFFERS_H
#define ECHOD_MODELS_URING_BUFFERS_H

#include <liburing.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* For the body: what a buffer holds, and which comes behind it. */
struct buffer_note {
	uint16_t from, size;
	uint16_t next;
};

struct buffers {
	struct io_uring_buf_ring *shelf; /* free ones, as the kernel takes them */
	size_t shelf_size;
	uint8_t *start;
	size_t size, stride;             /* of one */
	unsigned count;                  /* a power of two; 0: there is no such group */
	uint16_t first;                  /* the number of its first buffer */
	struct buffer_note *notes;       /* the body's, one for each */
};

/* Make and register group `group` of `count` buffers, of at most 64 KiB each, with the numbers from `first` on.
 * 0 or -errno; then buffers_close() is still due. */
int buffers_open(struct buffers *buffers, struct io_uring *io, uint16_t group, uint16_t first, unsigned count, size_t size);

/* After io_uring_queue_exit(3). Also one that was only set to zero. */
void buffers_close(struct buffers *buffers);

/* The kernel may fill the buffer again. */
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

/* The buffer in which, or at whose end, `at` points; it must be of this group. */
static inline uint16_t buffers_number(const struct buffers *buffers, const uint8_t *at)
{
	return (uint16_t) (buffers->first + (size_t) (at - buffers->start) / buffers->stride);
}

static inline bool buffers_hold(const struct buffers *buffers, const uint8_t *at)
{
	return at >= buffers->start && at < buffers->start + buffers->stride * buffers->count;
}

#endif
