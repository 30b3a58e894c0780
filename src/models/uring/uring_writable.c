/* SPDX-License-Identifier: ISC */
/* uring_writable.c - wait until a session whose peer has sent a FIN is writable
 *
 * Every poll in a ring also reports the FIN of the peer (POLLRDHUP), again and again as long as the worker
 * has not received all data before it. A session that waits only until it can send would use a whole
 * processor, so it is watched by epoll(7), which does not report it, and the ring polls the epoll set.
 */
#include <config.h>

#include <poll.h>

#include "models/poller.h"
#include "models/uring/uring.h"

/* Maximum number of sessions served for one event. */
#define BATCH 64

int uring_writable_open(struct uring *uring)
{
	return poller_epoll.open(&uring->half_closed, 0);
}

int uring_writable_register(struct uring *uring)
{
	return uring_register(uring, &uring->writable, poller_epoll_fd(uring->half_closed), WATCH_OTHER);
}

void uring_writable_close(struct uring *uring)
{
	poller_epoll.close(uring->half_closed);
}

bool uring_writable_is_needed(const struct watch *watch, const struct ring_event *event)
{
	return watch->interest == WATCH_WRITE && event->result >= 0 && event->result & POLLRDHUP &&
	       !(event->result & (POLLOUT | POLLERR | POLLHUP));
}

bool uring_writable_watch(struct uring *uring, struct session *session)
{
	struct uring_state *state = ring_state(&uring->ring, &session->watch);

	if (!state->in_epoll && poller_epoll.add(uring->half_closed, &session->watch, POLLER_WAKE_ALL) == 0)
		state->in_epoll = true;
	if (state->in_epoll)
		uring_arm(uring, &uring->writable, &uring->writable_armed);
	return state->in_epoll;
}

void uring_writable_forget(struct uring *uring, struct session *session)
{
	struct uring_state *state = ring_state(&uring->ring, &session->watch);

	if (state->in_epoll)
		poller_epoll.remove(uring->half_closed, &session->watch, POLLER_STAYS_OPEN);
	state->in_epoll = false;
}

void uring_writable_event(struct uring *uring)
{
	struct watch_event events[BATCH];
	int n;

	uring->writable_armed = false;
	/* all operations were cancelled: sessions that are not handed over are watched again */
	if (uring->quiescing)
		return;
	uring_arm(uring, &uring->writable, &uring->writable_armed);
	n = poller_epoll.wait(uring->half_closed, events, BATCH, 0);
	for (int i = 0; i < n; i++) {
		struct session *session = LIST_ENTRY(events[i].watch, struct session, watch);

		uring_writable_forget(uring, session);
		uring_session_serve(uring, session, events[i].readable);
	}
}
