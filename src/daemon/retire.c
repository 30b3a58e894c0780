/* SPDX-License-Identifier: ISC */
#include <config.h>

#include "daemon/retire.h"

#include <poll.h>

#include "base/notify.h"
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

/* Accept the clients in the backlog and put them into the queue, for the workers of the new configuration. */
static void drain_backlog(struct supervisor *supervisor, const struct listener *listener,
                          const struct worker *self)
{
	struct new_conn new_conn;

	for (unsigned i = 0; i < BACKLOG_MAX && has_clients(listener) && has_space(supervisor); i++) {
		int r = handover_accept(listener, self, &new_conn);

		if (r < 0)
			return;
		if (r > 0)
			restore_add(&supervisor->restore, self->outbox_fd, &new_conn);
	}
}

static void drain_backlogs(struct supervisor *supervisor, const struct conf *conf)
{
	const struct worker self = supervisor_worker(supervisor, conf);

	admission_queue_begin(&scoreboard_shared(supervisor->context.scoreboard)->admission);
	supervisor->unsettled = true;
	for (size_t i = 0; i < supervisor->retired.count; i++)
		drain_backlog(supervisor, &supervisor->retired.items[i], &self);
}

void retire_close(struct supervisor *supervisor)
{
	for (size_t i = 0; i < supervisor->retired.count; i++)
		/* a stopping crew may still have the descriptor */
		listener_shut(&supervisor->retired.items[i]);
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

	/* the workers that watched them were asked to stop RETIRE_TICK ago */
	for (size_t i = 0; i < supervisor->retired.count; i++)
		listener_refuse_abstract(&supervisor->retired.items[i]);
	/* behind the connections that an old crew hands over: only in a worker are they counted for
	 * max-per-source */
	if (crew && (!supervisor_any_stopping(supervisor) || now >= supervisor->retire_until))
		drain_backlogs(supervisor, crew->conf);
	if (now >= supervisor->retire_until)
		retire_close(supervisor);
	else
		supervisor->retire_at = now + RETIRE_TICK;
}
