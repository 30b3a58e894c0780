/* turn.h - one turn of a session on a non-blocking socket: at most one receive and one send
 *
 * What the blocking and the readiness bodies have in common: they differ in how they learn
 * that a socket is ready, not in what they do then. Small data go through a scratch buffer
 * that all sessions of a worker share; what a short send leaves behind is kept by the
 * connection. Bulk goes through a pipe by splice(2), chosen for a session whose receives are
 * long and dropped when they no longer do. A pipe is shared like the scratch buffer: a session owns one only
 * while bytes of its lie in it.
 *
 * One thread at a time for each struct turn.
 */
#ifndef ECHOD_MODELS_TURN_H
#define ECHOD_MODELS_TURN_H

#include <stdbool.h>
#include <stddef.h>

#include "base/list.h"
#include "echo/conn.h"
#include "echo/stats.h"
#include "models/session.h"

struct turn_pipe {
	struct list link; /* in `spare` while nobody's */
	int in, out;
	size_t size;      /* most bytes it takes at once */
};

struct turn {
	struct span scratch;
	size_t limit;          /* buffer-size */
	struct list spare;     /* empty pipes */
	unsigned pipes, pipes_max;
	unsigned bulk;         /* sessions that use pipes now; without any, none is kept */
	int64_t unsent_at;     /* when to sum up again what clients have not acknowledged */
	uint64_t unsent;       /* the sum so far, in a round that sums up */
	bool summing;
	bool flush;            /* draining sessions do not end: see turn_flushed() */
	struct stats_tally *tally;
};

/* Prepare for sessions that may hold `limit` bytes each, with at most `pipes_max` pipes.
 * Returns 0 or -ENOMEM. */
int turn_open(struct turn *turn, size_t limit, unsigned pipes_max, struct stats_tally *tally);

/* Free it all. No session may still own a pipe. */
void turn_close(struct turn *turn);

/* Receive once if `readable` and the session wants to, send once if anything is owed; touch
 * the session at `now` if anything moved. Afterwards nothing of the session is in the scratch
 * buffer. Returns what it wants next (enum conn_want). */
unsigned turn_step(struct turn *turn, struct session *session, bool readable, int64_t now);

/* A receive without turn_step() moved `n` of at most `most` bytes: whether that is bulk decides how the next is done. */
void turn_note_size(struct turn *turn, struct session *session, size_t n, size_t most);

/* Most bytes that one call of turn_linger() discards: a client that keeps sending must not keep the worker there. */
#define TURN_LINGER_MAX (256U << 10)

/* A draining session that wants CONN_LINGER: nothing with turn->flush; else send FIN, discard at most TURN_LINGER_MAX bytes of what still comes, and end it
 * with CONN_DRAIN once the peer's kernel has acknowledged everything or the connection is broken. Returns true once it has
 * ended; otherwise to be called again, in 10 ms or when readable. */
bool turn_linger(const struct turn *turn, struct session *session);

/* Whether a draining session owes nothing, and its peer has acknowledged everything: where it need not end, it can be handed
 * over now without the risk that a later close of it loses anything. */
bool turn_flushed(const struct turn *turn, const struct session *session);

/* While draining: sum up how many bytes the clients have not acknowledged yet, and publish the sum of a round over all
 * draining sessions, at intervals, in the slot. That it gets less may be the only sign for seconds that a drain goes
 * on. */
void turn_unsent_add(struct turn *turn, const struct session *session);
void turn_unsent_publish(struct turn *turn, struct stats_slot *slot, int64_t now);

/* Start draining: echo what has arrived by now and nothing that comes later. */
void turn_drain(struct session *session);

/* The session goes away: its pipe is given back, content and all. */
void turn_drop_pipe(struct turn *turn, struct session *session);

/* Take what lies in the session's pipe into its own memory, so that all it owes is in memory.
 * Returns 0, or -errno with the session ended. */
int turn_empty_pipe(struct turn *turn, struct session *session);

#endif
