/* SPDX-License-Identifier: ISC */
#include <config.h>

#include "models/handover/drain.h"

#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"

void drain_init(struct drain *drain, size_t limit, struct stats_slot *slot)
{
	*drain = (struct drain) { .slot = slot };
	list_init(&drain->sessions);
	list_init(&drain->flushed);
	drain->ready = session_io_open(&drain->io, limit, 0, &drain->local_stats) == 0;
}

void drain_set_flush(struct drain *drain, bool flush)
{
	drain->io.flush = flush;
}

static void count_drained(struct drain *drain)
{
	drain->count++;
	stats_add(drain->slot, STAT_TAKEN_OVER, 1);
	stats_add(drain->slot, STAT_ENDED_DRAIN, 1);
}

static void session_end(struct drain *drain, struct session *session)
{
	count_drained(drain);
	session_io_drop_pipe(&drain->io, session);
	list_remove(&session->link);
	drain->live--;
	shutdown(session->watch.fd, SHUT_WR);
	close(session->watch.fd);
	conn_clear(&session->conn);
	free(session);
}

void drain_add(struct drain *drain, const struct new_conn *new_conn)
{
	struct session *session = drain->ready ? calloc(1, sizeof *session) : NULL;

	if (!session) {
		struct conn conn = new_conn->conn;

		count_drained(drain);
		close(new_conn->fd);
		conn_clear(&conn);
		return;
	}
	session->conn = new_conn->conn;
	session->peer = new_conn->peer;
	session->watch.fd = new_conn->fd;
	session_touch(session, new_conn->active);
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
	*new_conn = (struct new_conn) {
		.fd = session->watch.fd,
		.shared_ofd = true,
		.conn = session->conn,
		.peer = session->peer,
		.active = session_active_usec(session, clock_usec()),
	};
	list_remove(&session->link);
	drain->live--;
	free(session);
	return true;
}

bool drain_serve(struct drain *drain)
{
	struct list *at, *next;

	for (at = drain->sessions.next; at != &drain->sessions; at = next) {
		struct session *session = LIST_ENTRY(at, struct session, link);
		unsigned want = session_io_step(&drain->io, session, true, clock_coarse_usec());

		next = at->next;
		if (want & CONN_CLOSE || (want & CONN_LINGER && session_io_linger(&drain->io, session)))
			session_end(drain, session);
		else if (drain->io.flush && session_io_flushed(&drain->io, session))
			list_move_last(&drain->flushed, &session->link);
	}
	stats_publish(drain->slot, &drain->local_stats);
	return drain->live > 0;
}

static unsigned sessions_end(struct drain *drain, struct list *sessions)
{
	unsigned count = 0;

	for (; !list_empty(sessions); count++)
		session_end(drain, LIST_ENTRY(sessions->next, struct session, link));
	return count;
}

unsigned drain_cut(struct drain *drain)
{
	unsigned count = sessions_end(drain, &drain->flushed) + sessions_end(drain, &drain->sessions);

	session_io_close(&drain->io);
	return count;
}
