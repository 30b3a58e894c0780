/* uring_door.c - where the sessions of the io_uring body come from */
#include <config.h>

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "models/fault.h"
#include "models/uring.h"

int watch_begin(struct uring *uring, struct watch *watch, int fd, enum watch_kind kind)
{
	*watch = (struct watch) { .fd = fd, .kind = (uint8_t) kind, .interest = WATCH_READ };
	return ring_join(&uring->ring, watch);
}

static struct door *door_of(struct watch *watch)
{
	return LIST_ENTRY(watch, struct door, watch);
}

static void accept_batch(struct uring *uring, const struct door *door)
{
	size_t index = (size_t) (door - uring->doors);
	struct arrival arrival;
	unsigned got;

	for (got = 0; got < uring->intake.batch && intake_accept(&uring->intake, index, &arrival) > 0; got++)
		flow_begin(uring, &arrival);
	intake_asked(&uring->intake, got);
}

static void inherit_batch(struct uring *uring)
{
	struct arrival arrival;

	for (unsigned i = 0; i < uring->intake.most && intake_inherit(&uring->intake, &arrival) > 0; i++)
		flow_begin(uring, &arrival);
}

/* --- accepted by a completion ---------------------------------------------------------- */

/* Serve a connection whose place has been taken. */
static void admit(struct uring *uring, int fd)
{
	struct addr addr = { .len = sizeof addr.un };
	struct arrival arrival;

	/* one that was reset since has no name any more, but is an accepted connection all the same */
	if (getpeername(fd, &addr.sa, &addr.len) < 0)
		addr = (struct addr) { .len = 0 };
	if (intake_admit(&uring->intake, fd, &addr, &arrival))
		flow_begin(uring, &arrival);
}

/* Returns false where there is no memory for it. */
static bool park(struct uring *uring, int fd)
{
	if (uring->parked_count == uring->parked_size) {
		size_t size = uring->parked_size * 2 + 16;
		int *parked = realloc(uring->parked, size * sizeof *parked);

		if (!parked)
			return false;
		uring->parked = parked;
		uring->parked_size = size;
	}
	uring->parked[uring->parked_count++] = fd;
	return true;
}

/* Let those in for whom there are places by now, or all of them if `forced`. */
static void unpark(struct uring *uring, bool forced)
{
	size_t n = 0;

	while (n < uring->parked_count) {
		if (forced)
			admission_force_place(&uring->worker->admission);
		else if (uring->intake.waiting || !intake_place(&uring->intake))
			break;
		admit(uring, uring->parked[n++]);
	}
	if (n == 0)
		return;
	uring->parked_count -= n;
	memmove(uring->parked, uring->parked + n, uring->parked_count * sizeof *uring->parked);
}

void doors_unpark(struct uring *uring)
{
	if (uring->parked_count > 0)
		unpark(uring, false);
}

static void accepted(struct uring *uring, int result)
{
	if (result == -ECANCELED)
		return;
	if (result < 0) {
		intake_failed(&uring->intake, -result);
		return;
	}
	if (uring->parked_count == 0 && !uring->intake.waiting && intake_place(&uring->intake)) {
		admit(uring, result);
	} else if (!park(uring, result)) {
		close(result);
		intake_failed(&uring->intake, ENOMEM);
	}
}

/* --- doors ----------------------------------------------------------------------------- */

/* Whether a multishot accept, which knows no limit, can be trusted not to reach it: what lies
 * in the backlogs and as much again would still find places. Where workers share listeners it
 * would take every connection, because the kernel wakes the one that waits longest, which it
 * always is. */
static bool is_roomy(const struct uring *uring)
{
	const struct worker *worker = uring->worker;
	uint64_t spare = fault_number("ECHOD_FAULT_URING_SPARE", 2 * (uint64_t) worker->conf->backlog * worker->listener_count);

	return worker->workers == 1 &&
	       admission_places_taken(worker->admission.shared) + spare < worker->admission.max_connections;
}

static void door_open(struct uring *uring, struct door *door)
{
	door->armed = true;
	door->multishot = is_roomy(uring);
	if (door->multishot)
		ring_accept(&uring->ring, &door->watch);
	else
		ring_poll(&uring->ring, &door->watch, true);
}

static void door_shut(struct uring *uring, struct door *door)
{
	if (!door->cancelling)
		ring_cancel(&uring->ring, &door->watch, door->multishot ? RING_ACCEPT : RING_POLL);
	door->cancelling = true;
}

void doors_event(struct uring *uring, const struct ring_event *event)
{
	struct door *door = door_of(event->watch);

	if (event->last)
		door->armed = door->cancelling = false;
	if (event->op == RING_ACCEPT)
		accepted(uring, event->result);
	else if (event->result != -ECANCELED)
		accept_batch(uring, door);
}

void inbox_event(struct uring *uring, const struct ring_event *event)
{
	/* every worker is woken: one that is about to stop would take the knock with it into its grave */
	if (event->result != -ECANCELED)
		inherit_batch(uring);
	uring->inheriting = false;
}

static void room_watch(struct uring *uring)
{
	if (watch_begin(uring, &uring->room, uring->intake.room_fd, WATCH_ROOM) < 0) {
		intake_failed(&uring->intake, ENOMEM);
		return;
	}
	ring_poll(&uring->ring, &uring->room, false);
	uring->in_room = true;
}

static void room_unwatch(struct uring *uring)
{
	ring_cancel(&uring->ring, &uring->room, RING_POLL);
	ring_leave(&uring->ring, &uring->room);
	uring->in_room = false;
}

void room_event(struct uring *uring)
{
	ring_leave(&uring->ring, &uring->room);
	uring->in_room = false;
	intake_retry(&uring->intake);
}

void doors_follow(struct uring *uring)
{
	bool open = uring->intake.open && !uring->stopping && !uring->halting;
	bool waiting = uring->intake.waiting && !uring->stopping && !uring->halting;
	const struct worker *worker = uring->worker;

	/* one that is in flight needs not be cancelled: a knock in vain costs nothing */
	if (uring->intake.inheriting && !uring->inheriting && worker->inbox_fd >= 0 && !uring->stopping && !uring->halting) {
		ring_poll(&uring->ring, &uring->inbox, false);
		uring->inheriting = true;
	}
	for (size_t i = 0; i < worker->listener_count; i++) {
		struct door *door = &uring->doors[i];

		if (worker->listeners[i].kind != LISTENER_STREAM)
			continue;
		if (open && !door->armed)
			door_open(uring, door);
		else if (door->armed && (!open || (door->multishot && !is_roomy(uring))))
			door_shut(uring, door);
	}
	if (waiting && !uring->in_room)
		room_watch(uring);
	else if (!waiting && uring->in_room)
		room_unwatch(uring);
}

void doors_unpark_all(struct uring *uring)
{
	unpark(uring, true);
}

int doors_make(struct uring *uring)
{
	const struct worker *worker = uring->worker;
	int r = 0;

	uring->doors = calloc(worker->listener_count + 1, sizeof *uring->doors);
	if (!uring->doors)
		return -ENOMEM;
	for (size_t i = 0; r == 0 && i < worker->listener_count; i++)
		if (worker->listeners[i].kind == LISTENER_STREAM)
			r = watch_begin(uring, &uring->doors[i].watch, worker->listeners[i].fd, WATCH_LISTENER);
	return r;
}

void doors_free(struct uring *uring)
{
	free(uring->parked);
	free(uring->doors);
}
