/* SPDX-License-Identifier: ISC */
/* uring_ring.h - an io_uring(7) instance, its receive buffers, and the watches that have operations in it
 *
 * Operations are named by the struct watch they belong to. user_data holds the watch's slot, the
 * slot's generation and the operation, so that a completion that comes after the slot was given to
 * another watch is recognised (`watch` of the event is NULL). A watch whose operation reads or
 * writes the watch's own memory must keep its slot, and its descriptor, until that operation
 * has completed; one that merely polls may leave at any time.
 *
 * Receives take a buffer of the ring's at the moment data are there, and the completion names
 * it: it belongs to the body until ring_buffer_give(). There are large ones for single receives
 * and, where the kernel has multishot receives, small ones for these. Sends never wait: they are done, in
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

#include "models/uring/uring_buffers.h"
#include "models/event/poller.h"

#define RING_NO_SLOT UINT32_MAX

/* RING_NONE to RING_SEND fit into `op` of struct uring_state. */
enum ring_op { RING_NONE, RING_POLL, RING_RECV, RING_SEND, RING_MULTISHOT, RING_ACCEPT, RING_CANCEL };

/* How the body goes on with a session. */
enum uring_mode {
	URING_FLOWING,   /* receives and sends are operations of the ring; polled only where the session wants more */
	URING_LEAVING,   /* as soon as the multishot receive has ended, pending data go into memory of the session's own */
	URING_NO_BUFFER, /* a receive found no buffer: the next wait is a poll */
	URING_ENDING,    /* the session has ended and is freed when its operations have completed */
	URING_MODES
};

/* The multishot receive of a session. */
enum uring_multishot {
	MULTISHOT_NONE,      /* not in flight */
	MULTISHOT_ARMED,     /* in flight, nothing received yet */
	MULTISHOT_RECEIVING, /* in flight, has received */
	MULTISHOT_CANCELLED, /* in flight, was asked to end */
	MULTISHOT_STATES
};

/* What the body notes about a session; uring_session.c names its invariants. */
struct uring_state {
	uint8_t mode : 2;       /* enum uring_mode */
	uint8_t op : 2;         /* enum ring_op: the operation in flight beside a multishot receive */
	uint8_t multishot : 2;  /* enum uring_multishot */
	uint8_t borrowed : 1;   /* the data to be sent lie in a buffer of the ring */
	uint8_t fin_queued : 1; /* FIN was received behind the data in the receive queue */
	uint8_t backoff;        /* short single receives to come before the next multishot receive */
	uint16_t queued;        /* receive queue: small buffers received while a send was in flight, */
	uint16_t first, last;   /* linked by struct buffer_note */
};

_Static_assert(sizeof(struct uring_state) == 8, "every connection has one");

/* The registration of a watch in the ring. */
struct slot {
	uint64_t entry;                  /* the address of the watch that has the slot, or free_entry() */
	struct uring_state state;
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
int ring_register(struct ring *ring, struct watch *watch);

/* Take it away; completions that still come find nobody. */
void ring_unregister(struct ring *ring, struct watch *watch);

/* Report once when `watch->fd` is ready for `watch->interest`. The result is the poll(2) events. */
void ring_poll(struct ring *ring, const struct watch *watch);

/* Accept (SOCK_NONBLOCK, SOCK_CLOEXEC) whatever comes until cancelled or an error. */
void ring_accept(struct ring *ring, const struct watch *watch);

/* Receive once there is anything to be received. */
void ring_recv(struct ring *ring, const struct watch *watch);

/* Receive into small buffers (ring->small.count > 0) until cancelled, FIN, an error, or until no buffer is left
 * (-ENOBUFS); io_uring_prep_recv_multishot(3). */
void ring_recv_multishot(struct ring *ring, const struct watch *watch);

/* The body's notes about `watch`, from ring_register(), which clears them, to ring_unregister(). */
struct uring_state *ring_state(const struct ring *ring, const struct watch *watch);

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
