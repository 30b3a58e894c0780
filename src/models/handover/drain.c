/* SPDX-License-Identifier: ISC */
#include <config.h>

#include "models/handover/drain.h"

#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"

void drain_init(struct drain *drain, const struct worker *self)
{
	*drain = (struct drain) { .self = self };
	list_init(&drain->sessions);
	list_init(&drain->flushed);
	drain->ready = session_io_open(&drain->io, self->conf->buffer_size, 0, &drain->local_stats) == 0;
}

void drain_set_flush(struct drain *drain, bool flush)
{
	drain->io.flush = flush;
}

/* Count the end of a session, or log and count its refusal. */
static void count_end(struct drain *drain, const struct session *session)
{
	struct stats_slot *slot = drain->self->slot;
	struct new_conn new_conn;

	drain->count++;
	if (session->conn.reason == CONN_DENIED) {
		new_conn_from_session(&new_conn, session);
		session_refused(drain->self, &new_conn, ADMISSION_DENIED);
		return;
	}
	stats_add(slot, session->readmit || session->conn.header ? STAT_ACCEPTED : STAT_TAKEN_OVER, 1);
	stats_add(slot, session->conn.reason == CONN_PROXY ? STAT_ENDED_PROXY : STAT_ENDED_DRAIN, 1);
}

/* End the session; its memory remains the caller's. */
static void session_end(struct drain *drain, struct session *session)
{
	count_end(drain, session);
	session_io_drop_pipe(&drain->io, session);
	list_remove(&session->link);
	shutdown(session->watch.fd, SHUT_WR);
	close(session->watch.fd);
	conn_clear(&session->conn);
}

static void session_free(struct drain *drain, struct session *session)
{
	session_end(drain, session);
	drain->live--;
	free(session);
}

/* The peer of the session was not admitted before. max-per-source does not matter any more. */
static void admit(const struct drain *drain, struct session *session)
{
	session->readmit = true;
	if (admission_admit(&drain->self->admission, &session->peer) != ADMISSION_OK)
		conn_end(&session->conn, CONN_DENIED);
}

void drain_add(struct drain *drain, const struct new_conn *new_conn)
{
	struct session *session = drain->ready ? malloc(sizeof *session) : NULL, closed;
	bool unadmitted = new_conn->unadmitted && !new_conn->conn.header;

	session_open(session ? session : &closed, new_conn);
	if (unadmitted)
		admit(drain, session ? session : &closed);
	if (!session) {
		session_end(drain, &closed);
		return;
	}
	list_append(&drain->sessions, &session->link);
	drain->live++;
	session_io_drain(session);
}

bool drain_take(struct drain *drain, enum drain_which which, struct new_conn *new_conn)
{
	struct list *from =
		list_empty(&drain->flushed) && which == DRAIN_ALL ? &drain->sessions : &drain->flushed;
	struct session *session;

	if (list_empty(from))
		return false;
	session = LIST_ENTRY(from->next, struct session, link);
	new_conn_from_session(new_conn, session);
	new_conn->shared_ofd = true;
	new_conn->unadmitted = session->readmit;
	list_remove(&session->link);
	drain->live--;
	free(session);
	return true;
}

static unsigned session_step(struct drain *drain, struct session *session)
{
	unsigned want = session_io_step(&drain->io, session, true, clock_coarse_usec());

	if (!session->conn.header || !session->readmit)
		return want;
	conn_header_done(&session->conn);
	admit(drain, session);
	return conn_want(&session->conn, drain->io.limit);
}

bool drain_serve(struct drain *drain)
{
	struct list *at, *next;

	for (at = drain->sessions.next; at != &drain->sessions; at = next) {
		struct session *session = LIST_ENTRY(at, struct session, link);
		unsigned want = session_step(drain, session);

		next = at->next;
		if (want & CONN_CLOSE || (want & CONN_LINGER && session_io_linger(&drain->io, session)))
			session_free(drain, session);
		else if (drain->io.flush && session_io_flushed(&drain->io, session))
			list_move_last(&drain->flushed, &session->link);
	}
	stats_publish(drain->self->slot, &drain->local_stats);
	return drain->live > 0;
}

static unsigned sessions_end(struct drain *drain, struct list *sessions)
{
	unsigned count = 0;

	for (; !list_empty(sessions); count++)
		session_free(drain, LIST_ENTRY(sessions->next, struct session, link));
	return count;
}

unsigned drain_cut(struct drain *drain)
{
	unsigned count = sessions_end(drain, &drain->flushed) + sessions_end(drain, &drain->sessions);

	session_io_close(&drain->io);
	return count;
}
