/* uring_ring.h - an io_uring(7) instance, its receive buffers, and who waits for what in it
 *
 * Operations are named by the struct watch they belong to. user_data holds the watch's slot, the
 * slot's generation and the operation, so that a completion that comes after the slot went to
 * somebody else is recognised (ring_watch() finds nobody). A watch whose operation reads or
 * writes the watch's own memory must keep its slot, and its descriptor, until that operation
 * has completed; one that merely polls may leave at any time.
 *
 * Receives take a buffer of the ring's at the moment data are there, and the completion names
 * it: it belongs to the body until ring_buffer_give(). There are large ones for single receives
 * and, where the kernel knows streams, small ones for these. Sends never wait: they are done, in
 * part or whole or not at all, when the ring_wait() after them returns.
 *
 * One thread, the one that opened it. Needs liburing 2.3 and Linux 5.19; uses what newer
 * kernels have (IORING_SETUP_DEFER_TASKRUN, 6.1) where they have it.
 */
#ifndef ECHOD_MODELS_URING_RING_H
#define ECHOD_MODELS_URING_RING_H

#include <liburing.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "models/uring_buffers.h"
#include "models/watch.h"

#define RING_NO_SLOT UINT32_MAX

/* The first four fit into struct watch's `op`. */
enum ring_op { RING_NONE, RING_POLL, RING_RECV, RING_SEND, RING_STREAM, RING_ACCEPT, RING_CANCEL };

/* What the body notes about the stream of a session: see uring.h. */
struct stream {
	bool in_flight : 1;
	bool cancelled : 1;
	bool stuck : 1;
	bool finished : 1;
	bool flowing : 1;
	uint8_t calm : 3;
	uint16_t held, first, last;
};

/* A place in the ring. */
struct slot {
	uint64_t entry;                  /* the address of the watch that has the slot, or free_entry() */
	struct stream stream;
};

struct ring {
	struct io_uring io;
	struct io_uring_sqe nowhere;     /* what is prepared once the ring has failed */
	int failed;                      /* -errno of a submission that cannot be repaired */
	unsigned in_flight;              /* operations not yet completed for good, cancellations too */

	struct buffers large, small;

	struct slot **slots;             /* in chunks, which stay where they are */
	uint32_t slot_chunks, slots_used, slots_free;
};

/* A completion, taken out of the queue. */
struct ring_event {
	struct watch *watch; /* NULL: it left before this came */
	enum ring_op op;
	int result;          /* as the system call's, or -errno */
	bool last;           /* the operation is over; a multishot one must be made anew */
	bool buffered;       /* `buffer` is the body's now, even where nothing was received */
	uint16_t buffer;
};

/* Make a ring whose receive buffers have at most `buffer_size` bytes. 0 or -errno. */
int ring_open(struct ring *ring, size_t buffer_size);
void ring_close(struct ring *ring);

/* Give `watch` a slot, before its first operation. 0 or -ENOMEM. */
int ring_join(struct ring *ring, struct watch *watch);

/* Take it away; completions that still come find nobody. */
void ring_leave(struct ring *ring, struct watch *watch);

/* Report once when `watch->fd` is ready for `watch->interest`. The result is the poll(2) events. */
void ring_poll(struct ring *ring, const struct watch *watch);

/* Accept (SOCK_NONBLOCK, SOCK_CLOEXEC) whatever comes until cancelled or an error. */
void ring_accept(struct ring *ring, const struct watch *watch);

/* Receive once there is anything to be received. */
void ring_recv(struct ring *ring, const struct watch *watch);

/* Receive into small buffers (ring->small.count > 0) whatever comes until cancelled, FIN, an error, or want of buffers
 * (-ENOBUFS). */
void ring_recv_stream(struct ring *ring, const struct watch *watch);

/* The notes about the stream of `watch`, from ring_join(), which clears them, to ring_leave(). */
struct stream *ring_stream(const struct ring *ring, const struct watch *watch);

/* Send what can be sent without waiting; -EAGAIN: nothing can. `data` stays until it completes. */
void ring_send(struct ring *ring, const struct watch *watch, const uint8_t *data, size_t size);

/* End the operation of `watch` early: it completes with -ECANCELED if it had not completed otherwise. */
void ring_cancel(struct ring *ring, const struct watch *watch, enum ring_op op);

/* End every operation early. */
void ring_cancel_all(struct ring *ring);

/* Start what was asked for, and wait for a completion for at most `timeout` ms (-1: for ever).
 * 0 or -errno. */
int ring_wait(struct ring *ring, int timeout);

/* Take the next completion. False: none is left. */
bool ring_next(struct ring *ring, struct ring_event *event);

static inline uint8_t *ring_buffer(const struct ring *ring, uint16_t buffer)
{
	return buffers_at(buffers_have(&ring->small, buffer) ? &ring->small : &ring->large, buffer);
}

/* The buffer in which, or at whose end, `at` points. */
static inline uint16_t ring_buffer_at(const struct ring *ring, const uint8_t *at)
{
	return buffers_number(buffers_hold(&ring->small, at) ? &ring->small : &ring->large, at);
}

/* The kernel may fill the buffer again. */
static inline void ring_buffer_give(struct ring *ring, uint16_t buffer)
{
	buffers_give(buffers_have(&ring->small, buffer) ? &ring->small : &ring->large, buffer);
}

#endif
