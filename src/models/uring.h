/* uring.h - what the parts of the io_uring body share
 *
 * uring.c is the loop and its end, uring_flow.c serves sessions, uring_door.c lets them in. One
 * thread for each struct uring.
 *
 * While a session's echo flows, it has a receive in flight that takes one of the ring's buffers
 * when data come, then a send of that buffer, then a receive again, never two at a time: nothing
 * can overtake, and an idle session holds nothing. Sends never wait in the ring: when one is cut
 * short, or buffers have run out, or the data come in bulk, the session stops flowing and is
 * polled, and then served by turn_step() as the readiness bodies do, until it owes nothing. So a
 * client that does not read holds its own memory and never a buffer of the ring, and what it may
 * have in flight is the same as in every other model.
 *
 * All of that is noted in the session's struct watch: `op` is what is in flight (enum ring_op),
 * `lent` says that what is owed lies in a buffer of the ring, `starved` that there was none and it
 * is to be polled once, `ending` that it goes away with its operation.
 *
 * A session goes away only after its operation has completed: neither its slot, nor its
 * descriptor, nor its memory can be somebody else's while the kernel still knows them.
 */
#ifndef ECHOD_MODELS_URING_H
#define ECHOD_MODELS_URING_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/pool.h"
#include "models/datagram.h"
#include "models/intake.h"
#include "models/turn.h"
#include "models/uring_ring.h"

/* A stream listener. */
struct door {
	struct watch watch;
	bool armed;       /* an operation is in flight: */
	bool multishot;   /* a multishot accept, else a poll */
	bool cancelling;
};

struct ready {
	struct uring *uring;
};

struct uring {
	struct worker *worker;
	struct ring ring;
	struct turn turn;
	struct intake intake;
	struct datagram datagram;
	struct ready ready;        /* what the datagrams see of it */
	struct pool pool;
	struct list sessions;      /* by last activity, the longest idle first */
	int64_t sort_at;           /* see session_enlist() */
	struct list ending;
	struct door *doors;        /* one for each of the worker's listeners */
	struct watch stop, inbox, room;
	bool inheriting, in_room;  /* polls of inbox and room are in flight */
	int *parked;               /* accepted when no place was left: they wait for one */
	size_t parked_count, parked_size;
	bool stop_seen, stopping;
	bool halting;              /* stop seen: nothing is begun until all operations have ended */
	int64_t now;               /* coarse, taken once a turn */
};

/* --- uring_flow.c ---------------------------------------------------------------------- */

/* Serve an arrival. */
void flow_begin(struct uring *uring, const struct arrival *arrival);

/* An operation of the session `event->watch` belongs to has completed. */
void flow_event(struct uring *uring, const struct ring_event *event);

/* Nothing of it is in flight: do what `want` says. */
void flow_follow(struct uring *uring, struct session *session, unsigned want);

/* Nothing of it is in flight: serve it once, as the readiness bodies do, and follow. */
void flow_turn(struct uring *uring, struct session *session, bool readable);

/* It has ended: let go of it as soon as nothing of it is in flight. */
void flow_end(struct uring *uring, struct session *session);

/* Nothing of it is in flight: take what it owes into its own memory. 0, or -ENOMEM with it ended. */
int flow_keep(struct uring *uring, struct session *session);

/* It was handed over. */
void flow_forget(struct uring *uring, struct session *session);

/* --- uring_door.c ---------------------------------------------------------------------- */

/* Make the doors, closed. 0 or -errno. */
int doors_make(struct uring *uring);
void doors_free(struct uring *uring);

/* Watch the inbox, the stream listeners and the room for as long as the intake wants them watched. */
void doors_follow(struct uring *uring);

/* An operation of a door, of the inbox, of the room has completed. */
void doors_event(struct uring *uring, const struct ring_event *event);
void inbox_event(struct uring *uring, const struct ring_event *event);
void room_event(struct uring *uring);

/* Let those in who knocked when no place was left, as far as there are places by now. */
void doors_unpark(struct uring *uring);

/* Let them all in, for the end. */
void doors_unpark_all(struct uring *uring);

/* Give `watch` its place in the ring. 0 or -ENOMEM. */
int watch_begin(struct uring *uring, struct watch *watch, int fd, enum watch_kind kind);

/* Poll it again; nothing is begun while all is being ended. */
void watch_again(struct uring *uring, const struct watch *watch, bool shared);

#endif
