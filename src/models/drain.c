#include <config.h>

#include "models/drain.h"

#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"

void drain_init(struct drain *drain, size_t limit, struct stats_slot *slot)
{
	*drain = (struct drain) { .slot = slot };
	list_init(&drain->sessions);
	drain->ready = turn_open(&drain->turn, limit, 0, &drain->tally) == 0;
}

static void session_end(struct drain *drain, struct session *session)
{
	turn_drop_pipe(&drain->turn, session);
	list_remove(&session->link);
	drain->live--;
	shutdown(session->watch.fd, SHUT_WR);
	close(session->watch.fd);
	conn_clear(&session->conn);
	free(session);
}

void drain_add(struct drain *drain, const struct arrival *arrival)
{
	struct session *session = drain->ready ? calloc(1, sizeof *session) : NULL;

	drain->count++;
	stats_add(drain->slot, STAT_TAKEN_OVER, 1);
	stats_add(drain->slot, STAT_ENDED_DRAIN, 1);
	if (!session) {
		struct conn conn = arrival->conn;

		close(arrival->fd);
		conn_clear(&conn);
		return;
	}
	session->conn = arrival->conn;
	session->peer = arrival->peer;
	session->watch.fd = arrival->fd;
	list_append(&drain->sessions, &session->link);
	drain->live++;
	turn_drain(session);
}

bool drain_serve(struct drain *drain)
{
	struct list *at, *next;

	for (at = drain->sessions.next; at != &drain->sessions; at = next) {
		struct session *session = LIST_ENTRY(at, struct session, link);
		unsigned want = turn_step(&drain->turn, session, true, clock_coarse_usec());

		next = at->next;
		if (want & CONN_CLOSE || (want & CONN_LINGER && turn_linger(session)))
			session_end(drain, session);
	}
	stats_publish(drain->slot, &drain->tally);
	return !list_empty(&drain->sessions);
}

unsigned drain_cut(struct drain *drain)
{
	unsigned count = 0;

	for (; !list_empty(&drain->sessions); count++)
		session_end(drain, LIST_ENTRY(drain->sessions.next, struct session, link));
	turn_close(&drain->turn);
	return count;
}
