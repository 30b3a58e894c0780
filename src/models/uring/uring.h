/* SPDX-License-Identifier: ISC */
/* uring.h - shared by the parts of the io_uring body
 *
 * uring.c is the loop and its stop, uring_accept.c takes connections, uring_session.c serves sessions,
 * uring_rxq.c queues data that were received while a send was in flight, uring_writable.c waits until
 * half-closed sessions are writable. One thread for each struct uring.
 *
 * While a session is flowing, its receives take buffers of the ring when data arrive, and the data are sent
 * from there, one send at a time: so bytes cannot be reordered, and an idle session occupies no buffer. While
 * messages are short one multishot receive is in flight, and data that arrive during a send are queued until
 * the send has completed. After longer messages, or more of them than can be sent, the session uses single
 * receives into large buffers, each after the send, until messages have been short for a while.
 *
 * Sends never wait in the ring. When a send was cut short, or no buffer was left, or data come in bulk, the
 * session copies its pending data into owned memory, and is polled and served by session_io_step() as in the
 * readiness loop, until no data are pending. Owned memory is bounded as in every other model. Data that the
 * multishot receive has received beyond that bound, before it could be cancelled, stay in small buffers: a
 * client that does not read can occupy the small buffers, and leave single receives to the other sessions,
 * but not the large ones.
 *
 * A session is freed only after its operations have completed, because the kernel still uses its slot,
 * descriptor and memory. Its states are in struct uring_state (uring_ring.h).
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
	bool armed;       /* an operation is in flight */
	bool multishot;   /* of a multishot accept, else of a poll */
	bool cancelling;
};

struct uring {
	struct body body;
	struct ring ring;
	struct list ending;               /* sessions that ended with operations in flight */
	struct uring_listener *listeners; /* one for each listener of the worker */
	struct watch stop, inbox, slot, token, wakeup;
	bool inbox_armed, slot_armed;     /* their polls are in flight */
	struct poller *half_closed;       /* the epoll set of uring_writable.c, polled by `writable` */
	struct watch writable;
	bool writable_armed;
	int *deferred; /* connections that were accepted without a free slot and wait for one */
	size_t deferred_count, deferred_size;
	bool quiescing; /* a stop request was seen: nothing is started until all operations have ended */
};

/* --- uring_session.c ------------------------------------------------------------------- */

#define URING_STATE_TEXT_MAX 128

/* Print the state for debugging. Returns `text`. */
const char *uring_state_print(const struct uring_state *state, char text[static URING_STATE_TEXT_MAX]);

/* Start to serve a session that was just opened. Returns 0 or -ENOMEM. */
int uring_session_start(struct body *body, struct session *session);

/* Handle the completion of an operation of the session of `event->watch`. */
void uring_session_event(struct uring *uring, const struct ring_event *event);

/* Start the operation for `want`. At most a multishot receive of the session may be in flight. */
void uring_session_update(struct uring *uring, struct session *session, unsigned want);

/* Serve the session once as the readiness loop does, and update it. No operation of it may be in flight. */
void uring_session_serve(struct uring *uring, struct session *session, bool readable);

/* End the session: free it when no operation of it is in flight any more. Call it once. */
void uring_session_end(struct body *body, struct session *session);

/* Copy all pending data into owned memory. No operation of the session may be in flight. Returns 0, or
 * -ENOMEM with the session ended. */
int uring_session_own_data(struct uring *uring, struct session *session);

/* Take the session, of which no operation is in flight, out of the ring and its list. */
void uring_session_detach(struct body *body, struct session *session);

static inline struct uring *uring_of(struct body *body)
{
	return LIST_ENTRY(body, struct uring, body);
}

/* --- uring_rxq.c ----------------------------------------------------------------------- */

/* Append a small buffer with `size` bytes. */
void rxq_push(struct ring *ring, struct uring_state *state, uint16_t buffer, size_t size);

/* Number of bytes in the last buffer; the queue must not be empty. */
size_t rxq_last_size(const struct ring *ring, const struct uring_state *state);

/* Take the first buffer, to send its data from there. The session must owe nothing. */
void rxq_borrow(struct ring *ring, struct session *session);

/* Copy the queue into owned memory, where the pending data must be, as far as that may grow
 * (conn_recv_buf()); then handle a queued FIN. Without memory the session ends. */
void rxq_copy(struct ring *ring, struct session *session, size_t limit);

/* Return all buffers to the ring. */
void rxq_clear(struct ring *ring, struct uring_state *state);

/* --- uring_writable.c ------------------------------------------------------------------ */

/* Make the epoll set, before the process is confined; register it in the ring. Return 0 or -errno. */
int uring_writable_open(struct uring *uring);
int uring_writable_register(struct uring *uring);
void uring_writable_close(struct uring *uring);

/* Whether a poll of the ring for writability completed only because of the FIN of the peer. */
bool uring_writable_is_needed(const struct watch *watch, const struct ring_event *event);

/* Watch the session, of which no operation is in flight, until it is writable; then it is served. Returns
 * false where the kernel has no memory for it, or fs.epoll.max_user_watches are in use (epoll(7)). */
bool uring_writable_watch(struct uring *uring, struct session *session);

/* Stop to watch it, if it is watched. */
void uring_writable_forget(struct uring *uring, struct session *session);

/* Handle the event of the epoll set. */
void uring_writable_event(struct uring *uring);

/* --- uring_accept.c -------------------------------------------------------------------- */

/* Register the listeners, the queue and the token in the ring. Returns 0 or -errno; uring_accept_close() is
 * needed in both cases. */
int uring_accept_open(struct uring *uring);
void uring_accept_close(struct uring *uring);

/* Make `*watch` a watch of `fd` for data, and register it in the ring. Returns 0 or -ENOMEM. */
int uring_register(struct uring *uring, struct watch *watch, int fd, enum watch_kind kind);

/* Poll `watch` unless its poll is in flight, as `*armed` says. */
void uring_arm(struct uring *uring, const struct watch *watch, bool *armed);

/* Start the operations for the present accept_state. Polls that are not needed any more stay in flight; their
 * events are ignored. */
void uring_accept_update(struct uring *uring);

/* Handle the completion of an operation on a listener. */
void uring_listener_event(struct uring *uring, const struct ring_event *event);

/* Handle the event of the queue, of a free slot, or of the token. */
void uring_inbox_event(struct uring *uring, const struct ring_event *event);
void uring_slot_event(struct uring *uring);
void uring_token_event(struct uring *uring);

/* Handle the request of another worker to check the listeners. */
void uring_wakeup_event(struct uring *uring);

/* Admit deferred connections as far as there are slots; all of them when the worker stops. */
void uring_admit_deferred(struct uring *uring);

#endif
