/* SPDX-License-Identifier: ISC */
#include <config.h>

#include "daemon/retire.h"

#include <errno.h>
#include <poll.h>
#include <string.h>

#include "base/log.h"
#include "base/notify.h"
#include "base/plural.h"
#include "daemon/fdstore.h"
#include "models/handover/handover.h"

/* Time that listeners that are not named any more stay open for handshakes in progress, and the interval at
 * which their backlogs are checked meanwhile. */
#define RETIRE_TIME (1 * USEC_PER_SEC)
#define RETIRE_TICK (50 * USEC_PER_MSEC)

/* Maximum number of connections taken from one backlog at a time, the maximum of `backlog`: clients that go
 * on connecting must not block the supervisor. */
#define BACKLOG_MAX 65535

/* Whether clients are in the backlog. After listener_refuse_abstract() it may be empty. */
static bool has_clients(const struct listener *listener)
{
	struct pollfd clients = { .fd = listener->fd, .events = POLLIN };

	return poll(&clients, 1, 0) == 1;
}

/* Whether the queue has space, perhaps because connections were taken out of it into memory, which needs
 * descriptors. */
static bool has_space(struct supervisor *supervisor)
{
	int outbox = supervisor->context.outbox;

	if (handover_has_space(outbox))
		return true;
	restore_take(&supervisor->restore, supervisor->context.inbox, outbox);
	return handover_has_space(outbox);
}

/* Accept the clients in the backlog and put them into the queue, for the workers of the new configuration.
 * Returns 0 once the backlog is empty, or -errno if clients are left in it. */
static int drain_backlog(struct supervisor *supervisor, const struct listener *listener,
                         const struct worker *self)
{
	struct new_conn new_conn;

	for (unsigned i = 0; i < BACKLOG_MAX; i++) {
		int r;

		if (!has_clients(listener))
			return 0;
		r = has_space(supervisor) ? handover_accept(listener, self, &new_conn) : -ENOBUFS;
		if (r == -EAGAIN || r == -EINVAL) /* EINVAL: after listener_refuse_abstract() */
			return 0;
		if (r < 0)
			return r;
		if (r > 0)
			restore_add(&supervisor->restore, self->outbox_fd, &new_conn);
	}
	return -EAGAIN;
}

/* Empty the backlogs, and close the listeners if their time is `over`, except those with clients in their
 * backlogs: they are tried again. */
static void drain_backlogs(struct supervisor *supervisor, const struct conf *conf, bool over)
{
	const struct worker self = supervisor_worker(supervisor, conf);
	struct sockets *retired = &supervisor->retired;
	size_t left = 0;
	int error = 0;

	admission_queue_begin(&scoreboard_shared(supervisor->context.scoreboard)->admission);
	supervisor->unsettled = true;
	for (size_t i = 0; i < retired->count; i++) {
		struct listener *listener = &retired->items[i];
		int r = drain_backlog(supervisor, listener, &self);

		if (r < 0)
			error = r;
		if (!over || r < 0) {
			retired->items[left++] = *listener;
		} else {
			listener_shut(listener); /* a stopping crew may still have the descriptor */
			listener_close(listener);
		}
	}
	retired->count = left;
	if (!over || left == 0)
		return;
	if (supervisor->retire_until > 0)
		log_event(LOG_WARNING, EVENT_HANDOVER,
		          "Cannot take the clients of %zu removed listener%s: %s; trying again every %d ms",
		          left, plural(left), strerror(-error), (int) (RETIRE_TICK / USEC_PER_MSEC));
	supervisor->retire_until = 0; /* the message is logged once */
}

void retire_close(struct supervisor *supervisor)
{
	for (size_t i = 0; i < supervisor->retired.count; i++)
		listener_shut(&supervisor->retired.items[i]); /* as in drain_backlogs() */
	sockets_close(&supervisor->retired, SOCKETS_REMOVE_FILES);
	sockets_stop_sharing(&supervisor->sockets);
	supervisor->retire_at = INT64_MAX;
}

void retire_unnamed(struct supervisor *supervisor, struct sockets *have, const struct conf *conf)
{
	for (size_t i = 0; i < have->count && notify_enabled(); i++) {
		struct sockets one = { .items = &have->items[i], .count = 1 };

		if (!have->items[i].keep)
			fdstore_forget(&one);
	}
	sockets_retire(have, &supervisor->retired);
	sockets_commit(have, conf);
	if (supervisor->retired.count == 0)
		return;
	supervisor->retire_at = clock_usec() + RETIRE_TICK;
	supervisor->retire_until = clock_usec() + RETIRE_TIME;
}

void retire_maintain(struct supervisor *supervisor, int64_t now)
{
	const struct crew *crew = supervisor->current ? supervisor->current : supervisor->next;
	bool over = now >= supervisor->retire_until;

	/* the workers that watched them were asked to stop RETIRE_TICK ago */
	for (size_t i = 0; i < supervisor->retired.count; i++)
		listener_refuse_abstract(&supervisor->retired.items[i]);
	/* behind the connections that an old crew hands over: only in a worker are they counted for
	 * max-per-source */
	if (crew && (!supervisor_any_stopping(supervisor) || over))
		drain_backlogs(supervisor, crew->conf, over);
	/* without a crew, in a start that was stopped, nothing takes the clients */
	if (supervisor->retired.count == 0 || (over && !crew))
		retire_close(supervisor);
	else
		supervisor->retire_at = clock_usec() + RETIRE_TICK;
}
