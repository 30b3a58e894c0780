/* SPDX-License-Identifier: ISC */
/* uring_ring.h - an io_uring(7) instance, its receive buffers, and the watches that have operations in it
 *
 * Operations belong to a struct watch. user_data contains the watch's slot, the slot's generation and the
 * operation, so that a completion that arrives after the slot was reused is recognized (`watch` of the event
 * is NULL). A watch whose operation reads or writes memory must keep its slot, and its descriptor, until that
 * operation has completed; a watch with only a poll may be unregistered at any time.
 *
 * Receives take a buffer of the ring when data are there, and the completion returns its number: the buffer
 * belongs to the body until ring_buffer_give(). There are large buffers for single receives and, where the
 * kernel has multishot receives, small ones for these. Sends never wait: when ring_wait() returns they have
 * completed, fully, partly or not at all.
 *
 * One thread, which must be the one that enabled the ring. Needs liburing 2.3 and Linux 5.19; uses features
 * of newer kernels (IORING_SETUP_DEFER_TASKRUN, 6.1) where they exist.
 */
#ifndef ECHOD_MODELS_URING_RING_H
#define ECHOD_MODELS_URING_RING_H

#include <liburing.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "models/uring/uring_buffers.h"
#include "models/poller.h"

#define RING_NO_SLOT UINT32_MAX

/* RING_NONE to RING_SEND fit into `op` of struct uring_state. */
enum ring_op { RING_NONE, RING_POLL, RING_RECV, RING_SEND, RING_MULTISHOT, RING_ACCEPT, RING_CANCEL };

/* How a session is served. */
enum uring_mode {
	URING_FLOWING,   /* by receives and sends in the ring; polled only where the session wants
	                  * something else */
	URING_LEAVING,   /* waits for the end of the multishot receive; then pending data are copied into
	                  * owned memory */
	URING_NO_BUFFER, /* a receive found no buffer: the next operation is a poll */
	URING_ENDING,    /* ended; freed when its operations have completed */
	URING_MODES
};

/* The multishot receive of a session. */
enum uring_multishot {
	MULTISHOT_NONE,      /* not in flight */
	MULTISHOT_ARMED,     /* in flight, nothing received yet */
	MULTISHOT_RECEIVING, /* in flight, has received data */
	MULTISHOT_CANCELLED, /* in flight, a cancellation was requested */
	MULTISHOT_STATES
};

/* State of a session for the body; its invariants are in uring_session.c. */
struct uring_state {
	uint8_t mode : 2;       /* enum uring_mode */
	uint8_t op : 2;         /* enum ring_op: the operation in flight, other than a multishot receive */
	uint8_t multishot : 2;  /* enum uring_multishot */
	uint8_t borrowed : 1;   /* the data to be sent are in a buffer of the ring */
	uint8_t fin_queued : 1; /* a FIN was received behind the data in the receive queue */
	uint8_t backoff : 4; /* number of short single receives before the next multishot receive */
	uint8_t half_closed : 1; /* a poll reported the FIN of the peer, see uring_writable.c */
	uint8_t in_epoll : 1;    /* in the epoll set, until it is writable; no operation is in flight */
	uint16_t queued; /* receive queue: number of small buffers received while a send was in flight, */
	uint16_t first, last;   /* linked by struct buffer_note */
};

_Static_assert(sizeof(struct uring_state) == 8, "every connection has one");

/* The registration of a watch in the ring. */
struct slot {
	uint64_t entry;                  /* address of the watch that has the slot, or free_entry() */
	struct uring_state state;
};

struct ring {
	struct io_uring io;
	struct io_uring_sqe dummy;     /* dummy entry for operations after the ring has failed */
	int failed;                      /* -errno of a submission that cannot be repeated */
	unsigned in_flight;              /* number of operations, including cancellations, that have not
	                                  * completed finally */

	struct buffers large, small;

	struct slot **slots;             /* in chunks, which are never moved */
	uint32_t slot_chunks, slots_used, slots_free;
};

/* A completion that was taken from the queue. */
struct ring_event {
	struct watch *watch; /* NULL: unregistered before the completion */
	enum ring_op op;
	int result;          /* result of the system call, or -errno */
	bool last;           /* the operation has ended; a multishot operation must be started again */
	bool buffered;       /* `buffer` belongs to the body now, even if no data were received */
	uint16_t buffer;
};

/* Make a ring whose receive buffers have at most `buffer_size` bytes, and register its restrictions: it
 * accepts only the operations below (IORING_REGISTER_RESTRICTIONS), because no system call filter sees
 * operations of a ring. Nothing can be submitted until ring_enable(). Any thread, before the process is
 * confined (sandbox.h). Returns 0 or -errno; after both ring_close() is due. */
int ring_open(struct ring *ring, size_t buffer_size);

/* Enable the ring. From then on only the calling thread may use it. Returns 0 or -errno. */
int ring_enable(struct ring *ring);

/* Builds with fault points: submit every operation and SQE flag that the restrictions exclude, and make
 * registrations that they exclude. Those that are not refused are logged as an error, then the number of
 * those that were. */
void ring_try_forbidden(struct ring *ring);

void ring_close(struct ring *ring);

/* Register `watch`, before its first operation. Returns 0 or -ENOMEM. */
int ring_register(struct ring *ring, struct watch *watch);

/* Unregister `watch`. Later completions of its operations have no watch. */
void ring_unregister(struct ring *ring, struct watch *watch);

/* Report once when `watch->fd` is ready for `watch->interest`. The result is the poll(2) events. */
void ring_poll(struct ring *ring, const struct watch *watch);

/* Accept all connections (SOCK_NONBLOCK, SOCK_CLOEXEC) until cancelled or an error. */
void ring_accept(struct ring *ring, const struct watch *watch);

/* Receive once, when there are data. */
void ring_recv(struct ring *ring, const struct watch *watch);

/* Receive into small buffers (ring->small.count > 0) until cancelled, FIN, an error, or until no buffer is
 * left (-ENOBUFS); io_uring_prep_recv_multishot(3). */
void ring_recv_multishot(struct ring *ring, const struct watch *watch);

/* The state of `watch`, valid from ring_register(), which clears it, to ring_unregister(). */
struct uring_state *ring_state(const struct ring *ring, const struct watch *watch);

/* Send what is possible without waiting; -EAGAIN: nothing is. `data` must stay valid until it completes. */
void ring_send(struct ring *ring, const struct watch *watch, const uint8_t *data, size_t size);

/* Cancel the operation of `watch`: it completes with -ECANCELED unless it completes otherwise before. */
void ring_cancel(struct ring *ring, const struct watch *watch, enum ring_op op);

/* Cancel every operation. */
void ring_cancel_all(struct ring *ring);

/* Submit operations, and wait for a completion for at most `timeout` ms (-1: no limit). Returns 0 or
 * -errno. */
int ring_wait(struct ring *ring, int timeout);

/* Take the next completion. Returns false if none is left. */
bool ring_next(struct ring *ring, struct ring_event *event);

static inline uint8_t *ring_buffer(const struct ring *ring, uint16_t buffer)
{
	return buffers_at(buffers_have(&ring->small, buffer) ? &ring->small : &ring->large, buffer);
}

/* The number of the buffer that contains `at`, or ends there. */
static inline uint16_t ring_buffer_at(const struct ring *ring, const uint8_t *at)
{
	return buffers_number(buffers_hold(&ring->small, at) ? &ring->small : &ring->large, at);
}

/* Return a buffer to the kernel. */
static inline void ring_buffer_give(struct ring *ring, uint16_t buffer)
{
	buffers_give(buffers_have(&ring->small, buffer) ? &ring->small : &ring->large, buffer);
}

#endif
