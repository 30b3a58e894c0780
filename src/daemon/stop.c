/* SPDX-License-Identifier: ISC */
#include <config.h>

#include "daemon/stop.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "base/notify.h"
#include "base/plural.h"
#include "daemon/fdstore.h"
#include "daemon/retire.h"
#include "models/handover/handover.h"

/* Interval between two checks of connections that the supervisor drains. */
#define DRAIN_TICK (10 * USEC_PER_MSEC)

/* Maximum number of connections taken from the queue, to be preserved, before other events are handled. */
#define PRESERVE_BATCH 256

/* Time without a connection in the queue after which the supervisor checks whether workers can send any. */
#define PRESERVE_CHECK_INTERVAL (500 * USEC_PER_MSEC)

/* Maximum number of messages taken from the queue at the end, when all workers have ended. A process that
 * escaped could keep it filled. */
#define PRESERVE_LAST (1U << 20)
#define DAMAGED_LAST 1024

/* Time that a stopping crew waits for space in the queue. The supervisor empties the queue, and asks the crew
 * to drain when it cannot. */
#define PRESERVE_WAIT (60 * USEC_PER_SEC)

/* Interval between two checks whether draining makes progress and more time must be requested from the
 * service manager. */
#define EXTEND_INTERVAL (1 * USEC_PER_SEC)

void stop_prepare(struct supervisor *supervisor, struct crew *crew, unsigned queues)
{
	struct stats_slot *slot = scoreboard_own_slot(supervisor->context.scoreboard);
	const struct conf *conf = crew->conf;

	supervisor->last = crew;
	supervisor->preserving = supervisor->keep;
	supervisor->preserve_at = clock_usec() + PRESERVE_CHECK_INTERVAL;
	preserve_init(&supervisor->preserve, restore_free_number(&supervisor->restore), queues, slot);
	supervisor->drain_usec = (int64_t) conf->drain_timeout * USEC_PER_SEC;
	supervisor->drain_until = clock_usec() + supervisor->drain_usec;
	supervisor->self = supervisor_worker(supervisor, conf);
	drain_init(&supervisor->drain, &supervisor->self);
	drain_set_flush(&supervisor->drain, supervisor->flush);
	supervisor->preserve.flush = supervisor->flush ? &supervisor->drain : NULL;
}

/* The store accepts no more connections: let workers drain theirs. */
static void preserve_failed(struct supervisor *supervisor, int error)
{
	/* descriptors in flight arrive when they are received, so that the last ones may fit again */
	supervisor->preserve_late = !supervisor->flush && (error == -EMFILE || error == -ETOOMANYREFS);
	supervisor->preserving = supervisor->flush = false;
	supervisor->preserve.flush = NULL;
	drain_set_flush(&supervisor->drain, false);
	log_event(LOG_WARNING, EVENT_HANDOVER,
	          "Cannot keep more connections over the restart: %s; draining the others", strerror(-error));
	for (struct list *at = supervisor->crews.next; at != &supervisor->crews; at = at->next)
		supervisor_stop_crew(supervisor, LIST_ENTRY(at, struct crew, link), STOP_DRAIN, 0);
}

/* Flush connections that a predecessor kept, and store flushed ones. `late`: the time for draining is over,
 * store all. */
static void flush_rest(struct supervisor *supervisor, unsigned live_max, bool late)
{
	struct preserve *preserve = &supervisor->preserve;
	struct drain *drain = &supervisor->drain;
	struct new_conn new_conn;
	int r = 0;

	if (late)
		preserve->flush = NULL;
	for (unsigned i = 0; i < PRESERVE_BATCH && r == 0 && !late && drain->live < live_max; i++) {
		if (!restore_next(&supervisor->restore, &new_conn))
			break;
		r = preserve_or_flush(preserve, &new_conn);
	}
	while (r == 0 && drain_take(drain, late ? DRAIN_ALL : DRAIN_FLUSHED, &new_conn))
		r = preserve_add(preserve, &new_conn);
	if (r == 0)
		return;
	drain_add(drain, &new_conn);
	preserve_failed(supervisor, r);
}

void stop_take_queued(struct supervisor *supervisor)
{
	struct new_conn rest;
	int r = preserve_take(&supervisor->preserve, supervisor->context.inbox, PRESERVE_BATCH, &rest);

	if (r < 0 && rest.fd >= 0)
		drain_add(&supervisor->drain, &rest);
	if (r < 0)
		preserve_failed(supervisor, r);
	supervisor->preserve_at = clock_usec() + PRESERVE_CHECK_INTERVAL;
}

void stop_check_flight(struct supervisor *supervisor, int64_t now)
{
	int r = preserve_check_flight();

	supervisor->preserve_at = now + PRESERVE_CHECK_INTERVAL;
	if (r < 0)
		preserve_failed(supervisor, r);
}

/* After the last worker has ended: store the remaining connections, in order. */
static void preserve_rest(struct supervisor *supervisor)
{
	struct preserve *preserve = &supervisor->preserve;
	struct new_conn rest;
	int r;

	if (supervisor->flush)
		flush_rest(supervisor, 0, true);
	/* behind the connections of the workers; present listeners are in the store with their backlogs */
	if (supervisor->retired.count > 0)
		retire_maintain(supervisor, INT64_MAX);
	/* attempts that failed before may succeed now, because descriptors in flight have arrived */
	while ((r = preserve_take(preserve, supervisor->context.inbox, PRESERVE_LAST, &rest)) < 0) {
		if (rest.fd >= 0)
			drain_add(&supervisor->drain, &rest);
		if (r != -EMFILE || preserve_finish(preserve) < 0)
			break;
	}
	if (r >= 0)
		r = restore_preserve(&supervisor->restore, preserve);
	if (r >= 0)
		r = preserve_finish(preserve);
	if (r < 0 && supervisor->preserving)
		preserve_failed(supervisor, r);
	supervisor->preserved = true;
	supervisor->drain_until = clock_usec() + supervisor->drain_usec;
}

/* Take the next connection that neither a worker nor the store takes. */
static bool next_rest(struct supervisor *supervisor, struct new_conn *new_conn)
{
	if (preserve_next(&supervisor->preserve, new_conn))
		return true;
	for (unsigned i = 0; i < DAMAGED_LAST; i++) {
		int r = handover_take(supervisor->context.inbox, new_conn);

		if (r == 0)
			return true;
		if (r == -EAGAIN)
			break;
		stats_add(scoreboard_own_slot(supervisor->context.scoreboard), STAT_DAMAGED, 1);
	}
	return restore_next(&supervisor->restore, new_conn);
}

int64_t stop_drain(struct supervisor *supervisor, int64_t now)
{
	struct drain *drain = &supervisor->drain;
	struct rlimit limit = { .rlim_cur = 256 };
	struct new_conn new_conn;
	bool added = false;

	(void) getrlimit(RLIMIT_NOFILE, &limit);
	if (supervisor->keep && !supervisor->preserved) {
		bool busy = drain_serve(drain);

		if (supervisor->flush)
			flush_rest(supervisor, (unsigned) limit.rlim_cur / 2, now >= supervisor->drain_until);
		if (busy)
			return now + DRAIN_TICK;
		return supervisor->flush && restore_active(&supervisor->restore) ? now : INT64_MAX;
	}
	while (drain->live < limit.rlim_cur / 2 && next_rest(supervisor, &new_conn)) {
		if (!supervisor->preserve_late || !list_empty(&supervisor->preserve.packs) ||
		    preserve_one(&supervisor->preserve, &new_conn) < 0)
			drain_add(drain, &new_conn);
		added = true;
	}
	if (drain_serve(drain))
		return now + DRAIN_TICK;
	/* added ones may have ended at once, and more may be left */
	return added ? now : INT64_MAX;
}

bool stop_is_over(struct supervisor *supervisor, int64_t drain_at)
{
	if (supervisor->phase != PHASE_STOPPING || !list_empty(&supervisor->crews))
		return false;
	if (supervisor->keep && !supervisor->preserved) {
		bool flushing = supervisor->drain.live > 0 || restore_active(&supervisor->restore) ||
		                handover_waiting(supervisor->context.inbox) > 0;

		if (supervisor->flush && flushing && !supervisor->stop_at_once &&
		    clock_usec() < supervisor->drain_until)
			return false;
		preserve_rest(supervisor);
		return stop_is_over(supervisor, stop_drain(supervisor, clock_usec()));
	}
	return (drain_at == INT64_MAX && supervisor->retired.count == 0) || supervisor->stop_at_once ||
	       clock_usec() >= supervisor->drain_until;
}

/* Close and log connections that could not be drained in time. */
static void drain_end(struct supervisor *supervisor)
{
	unsigned cut = drain_cut(&supervisor->drain), count = supervisor->drain.count;
	struct new_conn new_conn;

	for (unsigned i = 0; i < PRESERVE_LAST && next_rest(supervisor, &new_conn); i++, cut++, count++) {
		close(new_conn.fd);
		conn_clear(&new_conn.conn);
	}
	if (count > 0)
		log_event(LOG_NOTICE, EVENT_DRAIN_CUT,
		          "Closed %u connection%s that waited for a worker, %u of them before their clients "
		          "had received all data",
		          count, plural(count), cut);
}

void stop_begin(struct supervisor *supervisor)
{
	struct crew *crew = supervisor->current ? supervisor->current : supervisor->next;
	bool serving = supervisor->phase == PHASE_SERVING;
	enum fdstore_stop stop = FDSTORE_DROPPED;
	const char *text = "Stopping: draining connections";
	enum stats_stop how = STOP_DRAIN;
	unsigned room = 0;

	/* the start waits for an address: end as after a failed start, which leaves the store unchanged */
	if (!crew) {
		supervisor->start_cancelled = true;
		notify_status("STOPPING=1", "Stopping");
		return;
	}
	/* listeners are stored only once the service is ready */
	if (crew->conf->keep_connections)
		stop = fdstore_ask_stop(serving ? &supervisor->sockets : &(struct sockets) { 0 },
		                        restore_queues(&supervisor->restore), &room);
	supervisor->keep = stop != FDSTORE_DROPPED;
	supervisor->flush = stop == FDSTORE_UNKNOWN;
	if (stop == FDSTORE_KEPT) {
		how = STOP_HAND_OVER;
		text = "Stopping for a restart: keeping connections";
	} else if (stop == FDSTORE_UNKNOWN) {
		how = STOP_FLUSH;
		text = "Stopping: draining connections, and keeping them in case of a restart";
	}
	supervisor->phase = PHASE_STOPPING;
	stop_prepare(supervisor, crew, room);
	notify_status("STOPPING=1", "%s",
	              supervisor->keep ? "Handing connections over to the next process"
	                               : "Draining connections");
	log_event(LOG_NOTICE, EVENT_STOPPING, "%s", text);
	for (struct list *at = supervisor->crews.next; at != &supervisor->crews; at = at->next)
		supervisor_stop_crew(supervisor, LIST_ENTRY(at, struct crew, link), how,
		                     supervisor->keep ? PRESERVE_WAIT : 0);
	if (!supervisor->keep) {
		for (size_t i = 0; i < supervisor->sockets.count; i++)
			listener_shut(&supervisor->sockets.items[i]);
		retire_close(supervisor);
	}
	supervisor->next = NULL;
	supervisor->stats_at = INT64_MAX;
	supervisor->extend_at = clock_usec() + EXTEND_INTERVAL;
	(void) report_progress(&supervisor->report, supervisor->context.scoreboard);
}

void stop_now(struct supervisor *supervisor)
{
	log_event(LOG_NOTICE, EVENT_STOPPING, "Received a second stop signal: ending at once");
	supervisor->stop_at_once = true;
	for (struct list *at = supervisor->crews.next; at != &supervisor->crews; at = at->next)
		crew_kill(LIST_ENTRY(at, struct crew, link));
}

void stop_extend_timeout(struct supervisor *supervisor, int64_t now)
{
	int64_t end = supervisor->drain_until > now ? supervisor->drain_until : now;

	supervisor->extend_at = now + EXTEND_INTERVAL;
	if (!report_progress(&supervisor->report, supervisor->context.scoreboard))
		return;
	for (const struct list *at = supervisor->crews.next; at != &supervisor->crews; at = at->next) {
		const struct crew *crew = LIST_ENTRY(at, struct crew, link);

		end = crew->kill_at > end ? crew->kill_at : end;
	}
	notify_send("EXTEND_TIMEOUT_USEC=%" PRId64, end - now + EXTEND_INTERVAL);
}

void stop_log_drained(struct supervisor *supervisor)
{
	uint64_t count = report_drained(&supervisor->report, supervisor->context.scoreboard);

	if (count > 0)
		log_event(LOG_NOTICE, EVENT_HANDOVER,
		          "Drained %" PRIu64 " connection%s that could not be handed over", count,
		          plural(count));
}

void stop_finish(struct supervisor *supervisor)
{
	bool stopping = supervisor->phase == PHASE_STOPPING;

	/* a start that failed before its first worker leaves the store unchanged: the manager may try
	 * again */
	if (stopping)
		drain_end(supervisor);
	if (supervisor->keep) {
		log_event(LOG_INFO, EVENT_HANDOVER,
		          "Handed %" PRIu64 " connection%s over to the next process",
		          supervisor->preserve.kept, plural(supervisor->preserve.kept));
		stop_log_drained(supervisor);
	} else if (stopping) {
		/* the manager would drop them only after this process has ended */
		fdstore_forget(&supervisor->sockets);
		restore_forget(&supervisor->restore);
	}
	preserve_clear(&supervisor->preserve);
	restore_clear(&supervisor->restore);
}
