#include <config.h>

#include "models/leavers.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"
#include "models/handover.h"

static void leaver_end(struct leavers *leavers, struct session *session)
{
	turn_drop_pipe(&leavers->turn, session);
	list_remove(&session->link);
	shutdown(session->watch.fd, SHUT_WR);
	close(session->watch.fd);
	conn_clear(&session->conn);
	free(session);
}

static void leaver_begin(struct leavers *leavers, struct arrival *arrival)
{
	struct session *session = calloc(1, sizeof *session);

	if (!session) {
		close(arrival->fd);
		conn_clear(&arrival->conn);
		return;
	}
	session->conn = arrival->conn;
	session->peer = arrival->peer;
	session->watch.fd = arrival->fd;
	list_append(&leavers->sessions, &session->link);
	turn_drain(session);
}

int leavers_open(struct leavers *leavers, size_t limit, struct stats_slot *slot)
{
	*leavers = (struct leavers) { .slot = slot };
	list_init(&leavers->sessions);
	return turn_open(&leavers->turn, limit, 0, &leavers->tally);
}

bool leavers_take(struct leavers *leavers, int inbox, unsigned *count)
{
	struct arrival arrival;

	for (unsigned i = 0; i < LEAVERS_BATCH; i++) {
		int r = handover_take(inbox, &arrival);

		if (r == -EAGAIN)
			return false;
		stats_add(leavers->slot, r == 0 ? STAT_TAKEN_OVER : STAT_DAMAGED, 1);
		if (r < 0)
			continue;
		stats_add(leavers->slot, STAT_ENDED_DRAIN, 1);
		leaver_begin(leavers, &arrival);
		(*count)++;
	}
	return true;
}

bool leavers_serve(struct leavers *leavers)
{
	struct list *at, *next;

	for (at = leavers->sessions.next; at != &leavers->sessions; at = next) {
		struct session *session = LIST_ENTRY(at, struct session, link);
		unsigned want = turn_step(&leavers->turn, session, true, clock_coarse_usec());

		next = at->next;
		if (want & CONN_CLOSE || (want & CONN_LINGER && turn_linger(session)))
			leaver_end(leavers, session);
	}
	stats_publish(leavers->slot, &leavers->tally);
	return !list_empty(&leavers->sessions);
}

unsigned leavers_cut(struct leavers *leavers)
{
	unsigned count = 0;

	for (; !list_empty(&leavers->sessions); count++)
		leaver_end(leavers, LIST_ENTRY(leavers->sessions.next, struct session, link));
	turn_close(&leavers->turn);
	return count;
}
