#include <config.h>

#include "models/entrance.h"

#include <errno.h>
#include <limits.h>
#include <stdlib.h>

#include "base/clock.h"
#include "models/model.h"

#define EVENTS_MAX 16

static int watch_begin(struct entrance *entrance, struct watch *watch, int fd, enum watch_kind kind, bool shared)
{
	*watch = (struct watch) { .fd = fd, .kind = (uint8_t) kind, .interest = WATCH_READ };
	return ready_epoll.add(entrance->ready, watch, shared);
}

/* Watch `fd` from now on or no longer, as `want` says; `*have` tells what is the case. */
static int watch_follow(struct entrance *entrance, struct watch *watch, int fd, enum watch_kind kind, bool want, bool *have)
{
	int r = 0;

	if (want == *have || fd < 0)
		return 0;
	if (want)
		r = watch_begin(entrance, watch, fd, kind, kind == WATCH_LISTENER);
	else
		ready_epoll.remove(entrance->ready, watch, false);
	*have = want;
	return r;
}

static void entrance_follow(struct entrance *entrance)
{
	struct worker *worker = entrance->intake.worker;
	bool listening = entrance->listening;
	int r;

	for (size_t i = 0; i < worker->listener_count; i++) {
		listening = entrance->listening;
		if (worker->listeners[i].kind == LISTENER_STREAM &&
		    watch_follow(entrance, &entrance->listeners[i], worker->listeners[i].fd, WATCH_LISTENER,
		                 entrance->intake.open, &listening) < 0)
			intake_failed(&entrance->intake, ENOMEM);
	}
	entrance->listening = entrance->intake.open;
	r = watch_follow(entrance, &entrance->inbox, worker->inbox_fd, WATCH_INBOX, entrance->intake.inheriting,
	                 &entrance->inheriting);
	if (r == 0)
		r = watch_follow(entrance, &entrance->room, entrance->intake.room_fd, WATCH_ROOM,
		                 entrance->intake.waiting, &entrance->in_room);
	if (r < 0)
		intake_failed(&entrance->intake, ENOMEM);
}

int entrance_open(struct entrance *entrance, struct worker *worker, int other)
{
	int r;

	*entrance = (struct entrance) { .ready = NULL };
	intake_init(&entrance->intake, worker);
	entrance->listeners = calloc(worker->listener_count + 1, sizeof *entrance->listeners);
	if (!entrance->listeners)
		return -ENOMEM;
	r = ready_epoll.open(&entrance->ready, worker->listener_count + 4);
	if (r < 0)
		return r;
	r = watch_begin(entrance, &entrance->stop, worker->stop_fd, WATCH_STOP, false);
	if (r == 0 && other >= 0)
		r = watch_begin(entrance, &entrance->other, other, WATCH_OTHER, false);
	entrance_follow(entrance);
	return r < 0 ? r : entrance->intake.open ? 0 : -ENOMEM;
}

void entrance_close(struct entrance *entrance)
{
	intake_close(&entrance->intake);
	ready_epoll.close(entrance->ready);
	free(entrance->listeners);
	/* nobody is woken for us any more; for whom we were, somebody else must be */
	if (entrance->stopping && worker_stop_order(entrance->intake.worker) == STOP_HAND_OVER)
		intake_pass_on(&entrance->intake, UINT_MAX, true);
}

void entrance_busy(struct entrance *entrance, bool busy)
{
	intake_busy(&entrance->intake, busy);
	entrance_follow(entrance);
}

/* What predecessors left comes before what knocks: their clients came first. One connection is
 * taken; where this worker was woken for more of them, of which no other worker may know, they
 * are passed on. */
static int take(struct entrance *entrance, const struct watch_event *events, int n, struct arrival *arrival)
{
	uint64_t before = entrance->intake.worker->tally.work;
	int got = 0, knocks = 0;

	for (int i = 0; i < n; i++)
		if (events[i].watch->kind == WATCH_INBOX && !got)
			got = intake_inherit(&entrance->intake, arrival);
	for (int i = 0; i < n; i++) {
		if (events[i].watch->kind != WATCH_LISTENER)
			continue;
		if (!got)
			got = intake_accept(&entrance->intake, (size_t) (events[i].watch - entrance->listeners), arrival);
		else
			knocks++;
	}
	for (int i = 0; i < n; i++)
		if ((events[i].watch->kind == WATCH_LISTENER && entrance->intake.open) ||
		    (events[i].watch->kind == WATCH_INBOX && entrance->intake.inheriting) || events[i].watch->kind == WATCH_ROOM)
			worker_check_work(entrance->intake.worker, before, events[i].watch->fd, WATCH_READ);
	if (knocks > 0 && entrance->intake.worker->workers > 1 && entrance->intake.worker->model->crew != MODEL_SPAWN)
		intake_pass_on(&entrance->intake, 1, false);
	return got;
}

int entrance_wait(struct entrance *entrance, struct arrival *arrival)
{
	struct worker *worker = entrance->intake.worker;
	int64_t now = clock_coarse_usec(), deadline = worker->next_beat;
	struct watch_event events[EVENTS_MAX];
	int n, got = 0;

	if (entrance->intake.retry_at < deadline)
		deadline = entrance->intake.retry_at;
	n = ready_epoll.wait(entrance->ready, events, EVENTS_MAX, clock_poll_timeout(deadline, now));
	now = clock_coarse_usec();
	worker_beat(worker, now);
	for (int i = 0; i < n; i++) {
		if (events[i].watch->kind == WATCH_STOP)
			entrance->stopping = true;
		if (events[i].watch->kind == WATCH_ROOM)
			intake_retry(&entrance->intake);
	}
	if (now >= entrance->intake.retry_at)
		intake_retry(&entrance->intake);
	if (!entrance->stopping)
		got = take(entrance, events, n, arrival);
	entrance_follow(entrance);
	return n < 0 ? n : got;
}
