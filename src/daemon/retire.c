/* SPDX-License-Identifier: ISC */
#include <config.h>

#include "daemon/retire.h"

#include "base/notify.h"
#include "daemon/fdstore.h"
#include "models/handover/handover.h"

/* Time that listeners that are not named any more stay open for handshakes in progress, and the interval at
 * which their backlogs are checked meanwhile. */
#define RETIRE_TIME (1 * USEC_PER_SEC)
#define RETIRE_TICK (50 * USEC_PER_MSEC)

/* Maximum number of times that the queue is emptied for one backlog. */
#define QUEUE_ROUNDS 4096

/* Accept the clients in the backlogs of `set` and put them into the queue, for the workers of the new
 * configuration. Those for which it has no space are kept in memory, while descriptors suffice. */
static void drain_backlogs(struct supervisor *supervisor, const struct sockets *set, const struct conf *conf)
{
	const struct worker self = supervisor_worker(supervisor, conf);

	admission_queue_begin(&scoreboard_shared(supervisor->context.scoreboard)->admission);
	supervisor->unsettled = true;
	for (size_t i = 0; i < set->count; i++) {
		handover_backlog(&set->items[i], &self);
		for (unsigned n = 0; n < QUEUE_ROUNDS && !handover_has_space(self.outbox_fd); n++) {
			restore_take(&supervisor->restore, supervisor->context.inbox, self.outbox_fd);
			if (!handover_has_space(self.outbox_fd))
				break;
			handover_backlog(&set->items[i], &self);
		}
	}
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
		drain_backlogs(supervisor, &supervisor->retired, crew->conf);
	if (now >= supervisor->retire_until)
		retire_close(supervisor);
	else
		supervisor->retire_at = now + RETIRE_TICK;
}
