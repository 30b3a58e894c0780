/* SPDX-License-Identifier: ISC */
#include <config.h>

#include "models/uring/uring_ring.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "models/fault.h"

/* Size of the submission queue; more operations are submitted in parts. */
#define ENTRIES 1024

/* Size of the completion queue; the kernel keeps completions that do not fit (IORING_FEAT_NODROP). */
#define COMPLETIONS 4096

/* Numbers of buffers, powers of two. A buffer is in use from the receive to the send that follows at once, so
 * the number is that of completions in a batch, not that of connections. */
#define LARGE_COUNT 256
#define LARGE_COUNT_BESIDE_SMALL 128
#define LARGE_SIZE (64U << 10)

#define SMALL_COUNT 256
#define SMALL_SIZE 1024U

enum { GROUP_LARGE, GROUP_SMALL };

#define CHUNK_BITS 10
#define CHUNK_SLOTS (1U << CHUNK_BITS)

/* --- set-up ---------------------------------------------------------------------------- */

/* In order of preference; the last one is supported by all kernels. */
static const unsigned setups[] = {
	IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN, /* Linux 6.1 */
	IORING_SETUP_COOP_TASKRUN,                               /* Linux 5.19 */
	0,
};

static int queue_open(struct io_uring *io, bool *multishot)
{
	int r = -EINVAL;
	uint64_t i;

	for (i = fault_number("ECHOD_FAULT_URING_SETUP", 0);
	     i < sizeof setups / sizeof setups[0] && r == -EINVAL; i++) {
		struct io_uring_params params = {
			.flags = setups[i] | IORING_SETUP_CQSIZE | IORING_SETUP_CLAMP |
			         IORING_SETUP_SUBMIT_ALL | IORING_SETUP_R_DISABLED,
			.cq_entries = COMPLETIONS,
		};

		r = io_uring_queue_init_params(ENTRIES, io, &params);
	}
	if (r < 0)
		return r;
	/* with the best set-up, which is newer than multishot receives (Linux 6.0), completions are only
	 * added within calls */
	*multishot = i == 1;
	return 0;
}

/* Operations that the functions below submit. */
static const uint8_t operations[] = {
	IORING_OP_ACCEPT, IORING_OP_ASYNC_CANCEL, IORING_OP_POLL_ADD, IORING_OP_RECV, IORING_OP_SEND,
};

#define OPERATIONS (sizeof operations / sizeof operations[0])

#define SQE_FLAGS ((uint8_t) IOSQE_BUFFER_SELECT)

/* After the ring was enabled; unregistered by io_uring_queue_exit(3). */
static const uint8_t registrations[] = { IORING_REGISTER_RING_FDS, IORING_UNREGISTER_RING_FDS };

#define REGISTRATIONS (sizeof registrations / sizeof registrations[0])

/* io_uring_register(2): liburing 2.3 declares io_uring_register_restrictions(3) and io_uring_enable_rings(3),
 * but its shared library does not export them. Returns 0 or -errno. */
static int ring_control(const struct io_uring *io, unsigned command, const void *list, unsigned count)
{
	return syscall(SYS_io_uring_register, io->ring_fd, command, list, count) < 0 ? -errno : 0;
}

static int restrict_operations(const struct io_uring *io)
{
	struct io_uring_restriction list[OPERATIONS + REGISTRATIONS + 1] = { 0 };
	unsigned n = 0;

	for (size_t i = 0; i < OPERATIONS; i++)
		list[n++] = (struct io_uring_restriction) { .opcode = IORING_RESTRICTION_SQE_OP,
			                                    .sqe_op = operations[i] };
	for (size_t i = 0; i < REGISTRATIONS; i++)
		list[n++] = (struct io_uring_restriction) { .opcode = IORING_RESTRICTION_REGISTER_OP,
			                                    .register_op = registrations[i] };
	list[n++] = (struct io_uring_restriction) { .opcode = IORING_RESTRICTION_SQE_FLAGS_ALLOWED,
		                                    .sqe_flags = SQE_FLAGS };
	return ring_control(io, IORING_REGISTER_RESTRICTIONS, list, n);
}

int ring_open(struct ring *ring, size_t buffer_size)
{
	unsigned small = (unsigned) fault_number("ECHOD_FAULT_URING_BUFFERS", SMALL_COUNT), large;
	bool multishot = false;
	int r;

	memset(ring, 0, sizeof *ring);
	ring->slots_free = RING_NO_SLOT;
	ring->io.ring_fd = -1;
	r = queue_open(&ring->io, &multishot);
	if (r < 0) {
		ring->io.ring_fd = -1;
		return r;
	}
	large = (unsigned) fault_number("ECHOD_FAULT_URING_BUFFERS",
	                                multishot ? LARGE_COUNT_BESIDE_SMALL : LARGE_COUNT);
	r = buffers_open(&ring->large, &ring->io, GROUP_LARGE, 0, large,
	                 buffer_size < LARGE_SIZE ? buffer_size : LARGE_SIZE);
	if (r == 0 && multishot)
		r = buffers_open(&ring->small, &ring->io, GROUP_SMALL, (uint16_t) large, small,
		                 buffer_size < SMALL_SIZE ? buffer_size : SMALL_SIZE);
	return r < 0 ? r : restrict_operations(&ring->io);
}

int ring_enable(struct ring *ring)
{
	int r = ring_control(&ring->io, IORING_REGISTER_ENABLE_RINGS, NULL, 0);

	if (r < 0)
		return r;
	(void) io_uring_register_ring_fd(&ring->io); /* saves a look-up in each call, where it is known;
	                                              * valid in this thread */
	return 0;
}

void ring_close(struct ring *ring)
{
	if (ring->io.ring_fd >= 0)
		io_uring_queue_exit(&ring->io);
	buffers_close(&ring->large);
	buffers_close(&ring->small);
	for (uint32_t i = 0; i < ring->slot_chunks; i++)
		free(ring->slots[i]);
	free(ring->slots);
	memset(ring, 0, sizeof *ring);
	ring->io.ring_fd = -1;
}

/* --- slots ----------------------------------------------------------------------------- */

/* The entry of a free slot is odd, which no pointer is. It contains the index of the next free slot (32 bits)
 * and the generation of the watch that will use this slot next (16 bits); it has 64 bits also where pointers
 * have 32. */

static struct slot *slot_at(const struct ring *ring, uint32_t slot)
{
	return &ring->slots[slot >> CHUNK_BITS][slot & (CHUNK_SLOTS - 1)];
}

struct uring_state *ring_state(const struct ring *ring, const struct watch *watch)
{
	return &slot_at(ring, watch->slot)->state;
}

static uint64_t free_entry(uint32_t next, uint16_t generation)
{
	return (uint64_t) next << 32 | (uint64_t) generation << 8 | 1;
}

static int slots_grow(struct ring *ring)
{
	/* NOLINT(bugprone-sizeof-expression): the elements are pointers */
	size_t size = (ring->slot_chunks + 1) * sizeof(struct slot *);
	struct slot **slots = realloc(ring->slots, size);

	if (!slots)
		return -ENOMEM;
	ring->slots = slots;
	slots[ring->slot_chunks] = malloc(CHUNK_SLOTS * sizeof **slots);
	if (!slots[ring->slot_chunks])
		return -ENOMEM;
	ring->slot_chunks++;
	return 0;
}

int ring_register(struct ring *ring, struct watch *watch)
{
	struct slot *slot;

	if (ring->slots_free == RING_NO_SLOT) {
		if (ring->slots_used == ring->slot_chunks * CHUNK_SLOTS && slots_grow(ring) < 0)
			return -ENOMEM;
		watch->slot = ring->slots_used++;
		watch->generation = 0;
		slot = slot_at(ring, watch->slot);
	} else {
		watch->slot = ring->slots_free;
		slot = slot_at(ring, watch->slot);
		watch->generation = (uint16_t) (slot->entry >> 8);
		ring->slots_free = (uint32_t) (slot->entry >> 32);
	}
	*slot = (struct slot) { .entry = (uintptr_t) watch };
	return 0;
}

void ring_unregister(struct ring *ring, struct watch *watch)
{
	slot_at(ring, watch->slot)->entry = free_entry(ring->slots_free, (uint16_t) (watch->generation + 1));
	ring->slots_free = watch->slot;
	watch->slot = RING_NO_SLOT;
}

static uint64_t user_data(const struct watch *watch, enum ring_op op)
{
	return (uint64_t) op << 48 | (uint64_t) watch->generation << 32 | watch->slot;
}

/* The completion of a cancellation is ignored, because the cancelled operation completes as well. */
static const uint64_t cancel_data = (uint64_t) RING_CANCEL << 48 | RING_NO_SLOT;

static struct watch *ring_watch(const struct ring *ring, uint64_t data)
{
	uint32_t slot = (uint32_t) data;
	struct watch *watch;
	uint64_t entry;

	if (slot >= ring->slots_used)
		return NULL;
	entry = slot_at(ring, slot)->entry;
	if (entry & 1)
		return NULL;
	watch = (struct watch *) (uintptr_t) entry;
	return watch->generation == (uint16_t) (data >> 32) ? watch : NULL;
}

/* --- operations ------------------------------------------------------------------------ */

/* Submit queued operations to make room. Returns false where the ring has failed. */
static bool queue_flush(struct ring *ring)
{
	int r = io_uring_submit(&ring->io);

	/* see ring_wait() */
	if (r < 0 && !clock_poll_retry(r == -EAGAIN ? ENOMEM : -r))
		ring->failed = r;
	return ring->failed == 0;
}

static struct io_uring_sqe *sqe_take(struct ring *ring, uint64_t data)
{
	struct io_uring_sqe *sqe = io_uring_get_sqe(&ring->io);

	while (!sqe && queue_flush(ring))
		sqe = io_uring_get_sqe(&ring->io);
	if (!sqe)
		sqe = &ring->dummy;
	ring->in_flight++;
	io_uring_sqe_set_data64(sqe, data);
	return sqe;
}

void ring_poll(struct ring *ring, const struct watch *watch)
{
	struct io_uring_sqe *sqe = sqe_take(ring, user_data(watch, RING_POLL));
	unsigned events = (watch->interest & WATCH_READ ? (unsigned) POLLIN : 0) |
	                  (watch->interest & WATCH_WRITE ? (unsigned) POLLOUT : 0);

	io_uring_prep_poll_add(sqe, watch->fd, events);
}

void ring_accept(struct ring *ring, const struct watch *watch)
{
	struct io_uring_sqe *sqe = sqe_take(ring, user_data(watch, RING_ACCEPT));

	io_uring_prep_multishot_accept(sqe, watch->fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
}

void ring_recv(struct ring *ring, const struct watch *watch)
{
	struct io_uring_sqe *sqe = sqe_take(ring, user_data(watch, RING_RECV));

	io_uring_prep_recv(sqe, watch->fd, NULL, 0, 0);
	sqe->flags |= IOSQE_BUFFER_SELECT;
	sqe->buf_group = GROUP_LARGE;
	/* a client that was just answered has rarely sent its next message yet */
	sqe->ioprio |= IORING_RECVSEND_POLL_FIRST;
}

void ring_recv_multishot(struct ring *ring, const struct watch *watch)
{
	struct io_uring_sqe *sqe = sqe_take(ring, user_data(watch, RING_MULTISHOT));

	io_uring_prep_recv_multishot(sqe, watch->fd, NULL, 0, 0);
	sqe->flags |= IOSQE_BUFFER_SELECT;
	sqe->buf_group = GROUP_SMALL;
}

void ring_send(struct ring *ring, const struct watch *watch, const uint8_t *data, size_t size)
{
	io_uring_prep_send(sqe_take(ring, user_data(watch, RING_SEND)), watch->fd, data, size,
	                   MSG_DONTWAIT | MSG_NOSIGNAL);
}

void ring_cancel(struct ring *ring, const struct watch *watch, enum ring_op op)
{
	io_uring_prep_cancel64(sqe_take(ring, cancel_data), user_data(watch, op), 0);
}

void ring_cancel_all(struct ring *ring)
{
	io_uring_prep_cancel64(sqe_take(ring, cancel_data), 0, IORING_ASYNC_CANCEL_ANY);
}

/* --- completions ----------------------------------------------------------------------- */

int ring_wait(struct ring *ring, int timeout)
{
	struct __kernel_timespec ts = { .tv_sec = timeout / 1000, .tv_nsec = timeout % 1000 * 1000000LL };
	struct io_uring_cqe *cqe;
	int r;

	if (ring->failed < 0)
		return ring->failed;
	r = io_uring_submit_and_wait_timeout(&ring->io, &cqe, 1, timeout < 0 ? NULL : &ts, NULL);
	if (r >= 0 || r == -ETIME || r == -EBUSY)
		return 0;
	/* EAGAIN: no memory for a request; operations not submitted stay in the queue for the next call */
	return clock_poll_retry(r == -EAGAIN ? ENOMEM : -r) ? 0 : r;
}

bool ring_next(struct ring *ring, struct ring_event *event)
{
	struct io_uring_cqe *cqe;
	unsigned head;

	io_uring_for_each_cqe(&ring->io, head, cqe) {
		*event = (struct ring_event) {
			.watch = ring_watch(ring, cqe->user_data),
			.op = (enum ring_op) (cqe->user_data >> 48 & 0xff),
			.result = cqe->res,
			.last = !(cqe->flags & IORING_CQE_F_MORE),
			.buffered = cqe->flags & IORING_CQE_F_BUFFER,
			.buffer = (uint16_t) (cqe->flags >> IORING_CQE_BUFFER_SHIFT),
		};
		if (event->last)
			ring->in_flight--;
		io_uring_cq_advance(&ring->io, 1);
		return true;
	}
	return false;
}

/* --- tests ----------------------------------------------------------------------------- */

#ifdef ECHOD_FAULTS
/* Submit one operation that does nothing if it is carried out. Returns its result. */
static int submit_one(struct io_uring *io, uint8_t operation, uint8_t flags)
{
	struct io_uring_sqe *sqe = io_uring_get_sqe(io);
	struct io_uring_cqe *cqe;
	int r;

	if (!sqe)
		return -ENOSPC;
	memset(sqe, 0, sizeof *sqe);
	sqe->opcode = operation;
	sqe->flags = flags;
	sqe->fd = -1;
	r = io_uring_submit_and_wait(io, 1);
	if (r < 0)
		return r;
	r = io_uring_peek_cqe(io, &cqe);
	if (r < 0)
		return r;
	r = cqe->res;
	io_uring_cqe_seen(io, cqe);
	return r;
}

static unsigned was_refused(int r, const char *what, unsigned number)
{
	/* EPERM: of the system call filter, which sees registrations */
	if (r == -EACCES || r == -EPERM)
		return 1;
	log_event(LOG_ERR, EVENT_INTERNAL, "The ring does not refuse %s %u: %s", what, number,
	          r < 0 ? strerror(-r) : "it succeeded");
	return 0;
}

void ring_try_forbidden(struct ring *ring)
{
	static const uint8_t flags[] = { IOSQE_FIXED_FILE, IOSQE_IO_DRAIN, IOSQE_IO_LINK, IOSQE_IO_HARDLINK,
		                         IOSQE_ASYNC };
	unsigned refused = 0;

	for (unsigned i = 0; i < IORING_OP_LAST; i++)
		if (!memchr(operations, (int) i, OPERATIONS))
			refused += was_refused(submit_one(&ring->io, (uint8_t) i, 0), "operation", i);
	for (size_t i = 0; i < sizeof flags; i++)
		refused += was_refused(submit_one(&ring->io, IORING_OP_POLL_ADD, flags[i]), "flag", flags[i]);
	for (unsigned i = 0; i < IORING_REGISTER_LAST; i++)
		if (!memchr(registrations, (int) i, REGISTRATIONS))
			refused += was_refused(ring_control(&ring->io, i, NULL, 0), "registration", i);
	log_event(LOG_NOTICE, EVENT_INTERNAL, "The ring refused %u forbidden operations and registrations",
	          refused);
}
#endif
