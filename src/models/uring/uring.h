/* SPDX-License-Identifier: ISC */
/* uring.h - what the parts of the io_uring body share
 *
 * uring.c is the loop and its stop, uring_accept.c takes connections, uring_session.c serves sessions, uring_rxq.c
 * queues data that were received while a send was in flight. One thread for each struct uring.
 *
 * While the echo of a session flows, its receives take buffers of the ring at the moment data arrive, and the data are
 * sent from there, one send at a time: so bytes cannot be reordered, and an idle session holds no buffer. As long as
 * messages are short one multishot receive is in flight, and data that arrive during a send are queued until the send
 * has completed. After longer messages, or more of them than can be sent, the session makes single receives into large
 * buffers, each after the send, until messages have been short for a while.
 *
 * Sends never wait in the ring. When a send was cut short, or no buffer was left, or data come in bulk, the session
 * copies its pending data into memory of its own, and is polled and served by session_io_step() as in the readiness loop,
 * until nothing is pending. Its own memory is bounded as in every other model. Data that its multishot receive has
 * brought beyond that bound, before it could be cancelled, wait in small buffers: a client that does not read can
 * occupy the small buffers, and leave single receives to the other sessions, but not the large ones.
 *
 * A session is freed only after its operations have completed: its slot, descriptor and memory must not be given to
 * another session while the kernel still uses them. struct uring_state (uring_ring.h) has its states.
 */
#ifndef ECHOD_MODELS_URING_H
#define ECHOD_MODELS_URING_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "models/event/body.h"
#include "models/uring/uring_ring.h"

/* A stream listener. */
struct uring_listener {
	struct watch watch;
	bool armed;       /* an operation is in flight: */
	bool multishot;   /* a multishot accept, else a poll */
	bool cancelling;
};

struct uring {
	struct body body;
	struct ring ring;
	struct list ending;               /* sessions that ended with operations in flight */
	struct uring_listener *listeners; /* one for each of the worker's */
	struct watch stop, inbox, slot, token, wakeup;
	bool inbox_armed, slot_armed;     /* polls of them are in flight */
	int *deferred;                    /* connections accepted when no slot was free: they wait for one */
	size_t deferred_count, deferred_size;
	bool quiescing;                   /* the request to stop was seen: nothing starts until all operations have ended */
};

/* --- uring_session.c ------------------------------------------------------------------- */

#define URING_STATE_TEXT_MAX 128

/* The state in words, for debugging. Returns `text`. */
const char *uring_state_print(const struct uring_state *state, char text[static URING_STATE_TEXT_MAX]);

/* Start to serve a session that was opened just now. 0 or -ENOMEM. */
int uring_session_start(struct body *body, struct session *session);

/* An operation of the session that `event->watch` belongs to has completed. */
void uring_session_event(struct uring *uring, const struct ring_event *event);

/* Start the operation that `want` asks for. Only a multishot receive of the session may be in flight. */
void uring_session_update(struct uring *uring, struct session *session, unsigned want);

/* Serve the session once as the readiness loop does, and update it. No operation of it may be in flight. */
void uring_session_serve(struct uring *uring, struct session *session, bool readable);

/* The session has ended: free it when no operation of it is in flight any more. Once. */
void uring_session_end(struct body *body, struct session *session);

/* Copy all pending data into memory of the session's own. No operation of it may be in flight. 0, or -ENOMEM with the
 * session ended. */
int uring_session_own_data(struct uring *uring, struct session *session);

/* The session was handed over: free it. No operation of it may be in flight. */
void uring_session_forget(struct uring *uring, struct session *session);

static inline struct uring *uring_of(struct body *body)
{
	return LIST_ENTRY(body, struct uring, body);
}

/* --- uring_rxq.c ----------------------------------------------------------------------- */

/* Append a small buffer with `size` bytes. */
void rxq_push(struct ring *ring, struct uring_state *state, uint16_t buffer, size_t size);

/* Bytes in the last buffer; the queue must not be empty. */
size_t rxq_last_size(const struct ring *ring, const struct uring_state *state);

/* Take out the first buffer: its data are sent from there. The session must owe nothing. */
void rxq_borrow(struct ring *ring, struct session *session);

/* Copy the queue into memory of the session's own, where its pending data must be, as far as that may grow
 * (conn_recv_buf()); after the last byte also the queued FIN. Without memory the session ends. */
void rxq_copy(struct ring *ring, struct session *session, size_t limit);

/* Give all buffers back. */
void rxq_clear(struct ring *ring, struct uring_state *state);

/* --- uring_accept.c -------------------------------------------------------------------- */

/* Make the listeners, the queue and the token known to the ring. 0 or -errno, after which uring_accept_close() is still
 * right. */
int uring_accept_open(struct uring *uring);
void uring_accept_close(struct uring *uring);

/* Start to wait for what accept_state asks for. A poll that is not wanted any more stays in flight: an event that comes
 * too late is ignored. */
void uring_accept_update(struct uring *uring);

/* An operation on a listener has completed. */
void uring_listener_event(struct uring *uring, const struct ring_event *event);

/* The queue, a free slot, or the token was reported. */
void uring_inbox_event(struct uring *uring, const struct ring_event *event);
void uring_slot_event(struct uring *uring);
void uring_token_event(struct uring *uring);

/* Another worker asks for a look at the listeners. */
void uring_wakeup_event(struct uring *uring);

/* Admit deferred connections as far as there are slots; all of them where the worker stops. */
void uring_admit_deferred(struct uring *uring);

#endif
