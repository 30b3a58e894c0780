/* SPDX-License-Identifier: ISC */
/* session_io.h - one I/O step of a session on a non-blocking socket: at most one receive and one send
 *
 * What the blocking and the readiness bodies have in common: they differ in how they learn
 * that a socket is ready, not in what they do then. Small data go through a scratch buffer
 * that all sessions of a worker share; what a short send leaves behind is kept by the
 * connection. Bulk goes through a pipe by splice(2), chosen for a session whose receives are
 * long and dropped when they no longer do. A pipe is shared like the scratch buffer: a session owns one only
 * while bytes of its lie in it.
 *
 * One thread at a time for each struct session_io.
 */
#ifndef ECHOD_MODELS_SESSION_IO_H
#define ECHOD_MODELS_SESSION_IO_H

#include <stdbool.h>
#include <stddef.h>

#include "base/list.h"
#include "echo/conn.h"
#include "echo/stats.h"
#include "models/session.h"

struct splice_pipe {
	struct list link; /* in `spare` while nobody's */
	int in, out;
	size_t size;      /* most bytes it takes at once */
};

struct session_io {
	struct span scratch;
	size_t limit;          /* buffer-size */
	struct list spare;     /* empty pipes */
	unsigned pipes, pipes_max;
	unsigned bulk;         /* sessions that use pipes now; without any, none is kept */
	int64_t unsent_at;     /* when to sum up again what clients have not acknowledged */
	uint64_t unsent;       /* the sum so far, in a round that sums up */
	bool summing;
	bool flush;            /* draining sessions do not end: see session_io_flushed() */
	struct local_stats *local_stats;
};

/* Prepare for sessions that may hold `limit` bytes each, with at most `pipes_max` pipes.
 * Returns 0 or -ENOMEM. */
int session_io_open(struct session_io *io, size_t limit, unsigned pipes_max, struct local_stats *local_stats);

/* Free it all. No session may still own a pipe. */
void session_io_close(struct session_io *io);

/* Receive once if `readable` and the session wants to, send once if anything is owed; touch
 * the session at `now` if anything moved. Afterwards nothing of the session is in the scratch
 * buffer. Returns what it wants next (enum conn_want). */
unsigned session_io_step(struct session_io *io, struct session *session, bool readable, int64_t now);

/* A receive without session_io_step() moved `n` of at most `most` bytes: whether that is bulk decides how the next is done. */
void session_io_note_size(struct session_io *io, struct session *session, size_t n, size_t most);

/* Most bytes that one call of session_io_linger() discards: a client that keeps sending must not keep the worker there. */
#define LINGER_DISCARD_MAX (256U << 10)

/* A draining session that wants CONN_LINGER: nothing with io->flush; else send FIN, discard at most LINGER_DISCARD_MAX bytes of what still comes, and end it
 * with CONN_DRAIN once the peer's kernel has acknowledged everything or the connection is broken. Returns true once it has
 * ended; otherwise to be called again, in 10 ms or when readable. */
bool session_io_linger(const struct session_io *io, struct session *session);

/* Whether a draining session owes nothing, and its peer has acknowledged everything: where it need not end, it can be handed
 * over now without the risk that a later close of it loses anything. */
bool session_io_flushed(const struct session_io *io, const struct session *session);

/* While draining: sum up how many bytes the clients have not acknowledged yet, and publish the sum of a round over all
 * draining sessions, at intervals, in the slot. That it gets less may be the only sign for seconds that a drain goes
 * on. */
void session_io_unsent_add(struct session_io *io, const struct session *session);
void session_io_unsent_publish(struct session_io *io, struct stats_slot *slot, int64_t now);

/* Start draining: echo what has arrived by now and nothing that comes later. */
void session_io_drain(struct session *session);

/* The session goes away: its pipe is given back, content and all. */
void session_io_drop_pipe(struct session_io *io, struct session *session);

/* Take what lies in the session's pipe into its own memory, so that all it owes is in memory.
 * Returns 0, or -errno with the session ended. */
int session_io_empty_pipe(struct session_io *io, struct session *session);

#endif
