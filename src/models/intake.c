#include <config.h>

#include "models/intake.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "models/handover.h"
#include "net/sockopt.h"

/* Damaged messages discarded in one call: whoever writes them could keep the worker there. */
#define DAMAGED_MOST 16

/* How long to leave the listeners alone when descriptors or memory have run out. */
#define PAUSE_USEC (100 * USEC_PER_MSEC)

/* How long to leave them alone in order to be told anew who waits. */
#define KNOCK_USEC USEC_PER_MSEC

/* Connections taken from one place a turn: as many as wait where this worker is alone, few where others should have
 * their share. Powers of two. */
#define MOST_ALONE 256
#define MOST_SHARED 8

/* A turn asks a listener for one connection, and for twice as many as before after so many turns that got all they
 * asked for: accept(2) makes the socket before it looks, so that to ask for one that is not there costs as much as to
 * get one. */
#define PATIENCE 4

/* One line in so long about each such pause. */
#define TROUBLE_INTERVAL (10 * USEC_PER_SEC)

static void intake_update(struct intake *intake)
{
	intake->inheriting = !intake->busy && intake->retry_at == INT64_MAX;
	intake->open = intake->inheriting && !intake->waiting;
}

static bool any_adopted(const struct worker *worker)
{
	bool any = false;

	for (size_t i = 0; i < worker->listener_count; i++)
		any |= worker->listeners[i].adopted;
	return any;
}

void intake_init(struct intake *intake, struct worker *worker)
{
	*intake = (struct intake) {
		.worker = worker,
		.open = true,
		.inheriting = true,
		.retry_at = INT64_MAX,
		.prepare = any_adopted(worker),
		.room_fd = admission_room_fd(worker->admission.shared),
		.most = worker->workers == 1 ? MOST_ALONE : MOST_SHARED,
		.batch = 1,
	};
}

void intake_close(struct intake *intake)
{
	if (intake->waiting)
		admission_wait_done(&intake->worker->admission);
	intake->waiting = false;
}

void intake_busy(struct intake *intake, bool busy)
{
	intake->busy = busy;
	intake_update(intake);
}

void intake_limit_reached(struct intake *intake)
{
	struct worker *worker = intake->worker;

	stats_add(worker->slot, STAT_LIMITED, 1);
	if (ratelimit_allow(&worker->board->limit_lines, clock_usec(), TROUBLE_INTERVAL, 1))
		log_event(LOG_NOTICE, EVENT_LIMIT_REACHED,
		          "All %u connections are taken: new clients wait in the backlog until one ends",
		          worker->admission.max_connections);
}

bool intake_place(struct intake *intake)
{
	struct worker *worker = intake->worker;

	if (admission_take_place(&worker->admission))
		return true;
	admission_wait(&worker->admission);
	if (admission_take_place(&worker->admission)) {
		admission_wait_done(&worker->admission);
		return true;
	}
	intake->waiting = true;
	intake_update(intake);
	intake_limit_reached(intake);
	return false;
}

void intake_retry(struct intake *intake)
{
	if (intake->waiting) {
		admission_wait_done(&intake->worker->admission);
		intake->waiting = false;
	}
	intake->retry_at = INT64_MAX;
	intake_update(intake);
}

void intake_failed(struct intake *intake, int error)
{
	struct worker *worker = intake->worker;

	switch (error) {
	case EINTR:
	case ECONNABORTED:
	case EPROTO:
	case EPERM: /* a firewall rule */
	case ENOPROTOOPT:
	case EHOSTDOWN:
	case ENONET:
	case EHOSTUNREACH:
	case EOPNOTSUPP:
	case ENETDOWN:
	case ENETUNREACH:
	case ETIMEDOUT:
		return; /* concerns only the one client, who is gone: accept(2), "Error handling" */
	}
	intake->retry_at = clock_usec() + PAUSE_USEC;
	intake_update(intake);
	if (error == EINVAL)
		return; /* the supervisor has shut the listener down: the order to stop follows */
	stats_add(worker->slot, STAT_EXHAUSTED, 1);
	if (ratelimit_allow(&worker->board->trouble_lines, clock_usec(), TROUBLE_INTERVAL, 1))
		log_event(LOG_WARNING, EVENT_EXHAUSTED,
		          "Cannot take another connection now: %s; trying again every %d ms, others wait in the backlog",
		          strerror(error), PAUSE_USEC / USEC_PER_MSEC);
}

bool intake_admit(struct intake *intake, int fd, const struct addr *addr, struct arrival *arrival)
{
	struct worker *worker = intake->worker;
	enum admission_verdict verdict;

	peer_from_addr(&arrival->peer, addr);
	verdict = admission_admit(&worker->admission, &arrival->peer);
	if (verdict == ADMISSION_OK) {
		if (intake->prepare || arrival->peer.family == AF_UNIX)
			sockopt_prepare(fd);
		arrival->fd = fd;
		arrival->foreign = false;
		arrival->active = clock_usec();
		conn_init(&arrival->conn, arrival->active);
		stats_add(worker->slot, STAT_ACCEPTED, 1);
		atomic_fetch_add_explicit(&worker->slot->live, 1, memory_order_relaxed);
		worker->tally.work++;
		return true;
	}
	session_refused(worker, fd, &arrival->peer, verdict);
	worker->tally.work++;
	close(fd);
	admission_give_place(&worker->admission);
	return false;
}

int intake_accept(struct intake *intake, size_t index, struct arrival *arrival)
{
	const struct listener *listener = &intake->worker->listeners[index];
	struct worker *worker = intake->worker;
	struct addr addr;
	int fd;

	if (intake->behind && intake_inherit(intake, arrival) == 1)
		return 1;
	while (intake->open && intake_place(intake)) {
		addr.len = sizeof addr.un;
		fd = accept4(listener->fd, &addr.sa, &addr.len, SOCK_NONBLOCK | SOCK_CLOEXEC);
		if (fd >= 0) {
			if (intake_admit(intake, fd, &addr, arrival))
				return 1;
			continue;
		}
		admission_give_place(&worker->admission);
		if (errno == EAGAIN || errno == EWOULDBLOCK)
			return 0;
		intake_failed(intake, errno);
	}
	return 0;
}

void intake_asked(struct intake *intake, unsigned got)
{
	if (got < intake->batch) {
		intake->batch = intake->batch > 1 ? intake->batch / 2 : 1;
		intake->full = 0;
	} else if (++intake->full == PATIENCE) {
		intake->full = 0;
		if (intake->batch < intake->most)
			intake->batch *= 2;
	}
}

int intake_inherit(struct intake *intake, struct arrival *arrival)
{
	struct worker *worker = intake->worker;
	unsigned damaged = 0;
	int r;

	if (worker->inbox_fd < 0)
		return 0;
	intake->behind = !admission_hold_place(&worker->admission, worker->capacity);
	if (intake->behind) {
		intake_failed(intake, EMFILE);
		return 0;
	}
	do
		r = handover_receive(worker->inbox_fd, worker, arrival);
	while (r == -EBADMSG && ++damaged < DAMAGED_MOST);
	if (r < 0)
		admission_give_place(&worker->admission);
	if (r == -ENOMSG) {
		intake->retry_at = clock_usec() + KNOCK_USEC;
		intake_update(intake);
	}
	return r == 0;
}

void intake_pass_on(struct intake *intake, unsigned most, bool wait)
{
	struct worker *worker = intake->worker;

	if (worker->outbox_fd < 0)
		return;
	for (size_t i = 0; i < worker->listener_count; i++)
		handover_backlog(&worker->listeners[i], worker, most, wait);
}
