/* uring.h - what the parts of the io_uring body share
 *
 * uring.c is the loop and its end, uring_flow.c serves sessions, uring_held.c keeps what they have
 * received too early, uring_accept.c accepts them. One thread for each struct uring.
 *
 * While a session's echo flows, its receives take buffers of the ring when data come, and each
 * is sent from there, one send at a time: nothing can overtake, and an idle session holds nothing.
 * As long as messages are short it is a stream: one multishot receive brings them all, and what
 * comes while a send is in flight is held until that has completed. After longer ones, or more of
 * them than it can send, it has single receives into large buffers, each made after the send,
 * until messages have been short for a while.
 *
 * Sends never wait in the ring: when one is cut short, or buffers have run out, or the data come
 * in bulk, the session stops flowing, takes what it owes into its own memory and is
 * polled, and then served by turn_step() as the readiness bodies do, until it owes nothing. Its
 * own memory is bounded as in every other model. What its stream has brought beyond that, before it
 * could be cancelled, waits in small buffers: a client that does not read can keep those of the ring, and leave only
 * single receives to the others, but not the large ones.
 *
 * All of that is noted in the session's struct watch: `op` is what is in flight (enum ring_op)
 * beside a stream, `lent` says that what is owed lies in a buffer of the ring, `starved` that there
 * was none and it is to be polled once, `ending` that it goes away with its operations. Of its
 * struct stream, `in_flight` says that the multishot receive is, `cancelled` that it has been asked
 * to end, `stuck` that the session stops flowing when it has, `flowing` that it has brought
 * something, `finished` that FIN came behind what is held; `held` counts the buffers that wait, from
 * `first` to `last`, and `calm` the short receives that are still to come before the next stream.
 *
 * A session goes away only after its operations have completed: neither its slot, nor its
 * descriptor, nor its memory can be somebody else's while the kernel still knows them.
 */
#ifndef ECHOD_MODELS_URING_H
#define ECHOD_MODELS_URING_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "models/body.h"
#include "models/uring_ring.h"

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
	struct watch stop, inbox, slot, token;
	bool inbox_armed, slot_armed;     /* polls of them are in flight */
	int *deferred;                    /* connections accepted when no slot was free: they wait for one */
	size_t deferred_count, deferred_size;
	bool quiescing;                   /* the request to stop was seen: nothing starts until all operations have ended */
};

/* --- uring_flow.c ---------------------------------------------------------------------- */

/* Start to serve a session that was opened just now. 0 or -ENOMEM. */
int flow_start(struct body *body, struct session *session);

/* An operation of the session `event->watch` belongs to has completed. */
void flow_event(struct uring *uring, const struct ring_event *event);

/* Nothing of it is in flight but a stream: do what `want` says. */
void flow_follow(struct uring *uring, struct session *session, unsigned want);

/* Nothing of it is in flight: serve it once, as the readiness bodies do, and follow. */
void flow_turn(struct uring *uring, struct session *session, bool readable);

/* It has ended: let go of it as soon as nothing of it is in flight. Once. */
void flow_end(struct body *body, struct session *session);

/* Nothing of it is in flight: take what it owes into its own memory. 0, or -ENOMEM with it ended. */
int flow_keep(struct uring *uring, struct session *session);

/* It was handed over. */
void flow_forget(struct uring *uring, struct session *session);

static inline struct uring *uring_of(struct body *body)
{
	return LIST_ENTRY(body, struct uring, body);
}

/* --- uring_held.c ---------------------------------------------------------------------- */

/* Hold a small buffer with `size` bytes, behind those that are held. */
void held_push(struct ring *ring, struct stream *stream, uint16_t buffer, size_t size);

/* Bytes in the last one; there must be one. */
size_t held_last_size(const struct ring *ring, const struct stream *stream);

/* Lend the first one to the session, which must owe nothing. */
void held_lend(struct ring *ring, struct session *session);

/* Take what is held into the session's own memory, where what it owes must lie, as far as that may grow (conn_landing());
 * then, if all went there, the FIN that came behind it. Without memory the session ends. */
void held_keep(struct ring *ring, struct session *session, size_t limit);

/* Give all of them back. */
void held_drop(struct ring *ring, struct stream *stream);

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

/* Admit deferred connections as far as there are slots; all of them where the worker stops. */
void uring_admit_deferred(struct uring *uring);

#endif
