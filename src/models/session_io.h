/* SPDX-License-Identifier: ISC */
/* session_io.h - one I/O step of a session on a non-blocking socket: at most one receive and one send
 *
 * Shared by the blocking and the readiness bodies, which differ only in how they wait for a socket. Small
 * data go through a scratch buffer that all sessions of a worker share; after a short send the connection
 * copies the rest. Bulk data go through a pipe by splice(2), for sessions whose receives are long. Pipes are
 * shared like the scratch buffer: a session owns one only while bytes of the session are in it.
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
	struct list link; /* in `spare` while unused */
	int in, out;
};

struct session_io {
	struct span scratch;
	size_t limit;          /* buffer-size */
	struct list spare;     /* empty pipes */
	unsigned pipes, pipes_max;
	unsigned bulk;         /* number of sessions that use pipes; while 0, no pipe is kept */
	int64_t unsent_at;     /* clock_usec() of the next round that sums up unacknowledged bytes */
	uint64_t unsent;       /* sum so far, in such a round */
	bool summing;
	bool flush;            /* draining sessions are not closed: see session_io_flushed() */
	struct local_stats *local_stats;
	const struct worker *worker; /* admits peers that a PROXY protocol header names; NULL: the caller
	                                does, see session_header() */
};

/* Initialize for sessions with up to `limit` owed bytes each, with at most `pipes_max` pipes. Returns 0 or
 * -ENOMEM. */
int session_io_open(struct session_io *io, size_t limit, unsigned pipes_max, struct local_stats *local_stats);

/* Free all memory and pipes. No session may own a pipe. */
void session_io_close(struct session_io *io);

/* Receive once if `readable` and the session wants to, send once if bytes are owed; record activity at `now`
 * if bytes moved. Afterwards the scratch buffer contains no data of the session. Returns what the session
 * wants next (enum conn_want). */
unsigned session_io_step(struct session_io *io, struct session *session, bool readable, int64_t now);

/* After a receive without session_io_step() of `n` of at most `max` bytes: decide whether the session moves
 * bulk data. */
void session_io_note_size(struct session_io *io, struct session *session, size_t n, size_t max);

/* Maximum number of bytes that one call of session_io_linger() discards, so that a client that keeps sending
 * cannot block the worker. */
#define LINGER_DISCARD_MAX (256U << 10)

/* For a draining session that wants CONN_LINGER. With io->flush, only ends a session whose connection is
 * broken. Otherwise sends FIN, discards at most LINGER_DISCARD_MAX bytes of input, and ends the session with
 * CONN_DRAIN once the peer's kernel has acknowledged everything or the connection is broken. Returns true
 * once it has ended; otherwise call it again in 10 ms or when readable. */
bool session_io_linger(const struct session_io *io, struct session *session);

/* Whether a draining session owes nothing and its peer has acknowledged everything: then it can be handed
 * over, and closing it later cannot lose data. */
bool session_io_flushed(const struct session_io *io, const struct session *session);

/* While draining: sum up the bytes that clients have not acknowledged yet, in a round over all draining
 * sessions, and publish the sum at intervals in the slot. Its decrease may be the only sign for seconds that
 * a drain makes progress. */
void session_io_unsent_add(struct session_io *io, const struct session *session);
void session_io_unsent_publish(struct session_io *io, struct stats_slot *slot, int64_t now);

/* Start draining: echo data that have arrived and no later ones. */
void session_io_drain(struct session *session);

/* Give the session's pipe back, before the session is freed; its content is dropped. */
void session_io_drop_pipe(struct session_io *io, struct session *session);

/* Move the content of the session's pipe to own memory, so that all owed bytes are in memory. Returns 0, or
 * -errno with the session ended. */
int session_io_empty_pipe(struct session_io *io, struct session *session);

#endif
