/* SPDX-License-Identifier: ISC */
#include <config.h>

#include "models/worker.h"

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/log.h"
#include "base/plural.h"
#include "base/probe.h"
#include "models/poller.h"

void worker_ready(struct worker *worker)
{
	char byte = 1;

	stats_slot_ready(worker->slot);
	while (write(worker->ready_fd, &byte, 1) < 0 && errno == EINTR)
		;
	worker_trace(worker, "ready");
}

void worker_trace(const struct worker *worker, const char *state)
{
	struct log_record record;

	PROBE2(worker_state, worker->index, state);
	if (!log_wants(LOG_DEBUG))
		return;
	log_begin(&record, LOG_DEBUG, EVENT_WORKER_STATE);
	log_add(&record, "ECHOD_STATE", "%s", state);
	log_end(&record, "Worker %u: %s", worker->index, state);
}

void worker_trace_stop(struct worker *worker)
{
	struct log_record record;
	const char *how;

	if (worker->stop_seen)
		return;
	worker->stop_seen = true;
	how = worker_stop_name(worker_stop_requested(worker));
	PROBE2(worker_state, worker->index, "stopping");
	if (!log_wants(LOG_DEBUG))
		return;
	log_begin(&record, LOG_DEBUG, EVENT_WORKER_STATE);
	log_add(&record, "ECHOD_STATE", "stopping");
	log_add(&record, "ECHOD_STOP", "%s", how);
	log_end(&record, "Worker %u: stopping (%s)", worker->index, how);
}

void worker_trace_process(unsigned index, pid_t pid)
{
	struct log_record record;

	PROBE2(worker_state, index, "started");
	if (!log_wants(LOG_DEBUG))
		return;
	log_begin(&record, LOG_DEBUG, EVENT_WORKER_STATE);
	log_add(&record, "ECHOD_STATE", "started");
	log_end(&record, "Worker %u: started as process %d", index, (int) pid);
}

const char *worker_stop_name(enum stats_stop how)
{
	return how == STOP_HAND_OVER ? "hand-over" : how == STOP_FLUSH ? "flush" : "drain";
}

void worker_check_work(struct worker *worker, uint64_t before, int fd, unsigned interest)
{
	short events =
		(short) ((interest & WATCH_READ ? POLLIN : 0) | (interest & WATCH_WRITE ? POLLOUT : 0));

	if (worker->local_stats.work == before)
		stats_add(worker->slot, STAT_IDLE_WAKEUPS, idle_check(&worker->idle, fd, events, before));
}

void worker_wake_other(const struct worker *worker)
{
	uint64_t one = 1;

	/* EAGAIN: already readable */
	if (write(worker->wakeup_fd, &one, sizeof one) < 0)
		return;
}

enum stats_stop worker_stop_requested(const struct worker *worker)
{
	int stop = atomic_load(&worker->stop_request->stop);

	if (stop == STOP_NONE)
		_exit(1);
	return (enum stats_stop) stop;
}

pid_t worker_reap(int *status)
{
	pid_t pid;

	do
		pid = waitpid(-1, status, WNOHANG);
	while (pid < 0 && errno == EINTR);
	return pid > 0 ? pid : 0;
}

bool worker_exit_is_clean(int status)
{
	return WIFEXITED(status) && (WEXITSTATUS(status) == 0 || WEXITSTATUS(status) == WORKER_HANDED_OVER);
}

void worker_log_end(pid_t pid, int status, uint32_t lost)
{
	if (worker_exit_is_clean(status))
		log_event(LOG_DEBUG, EVENT_WORKER_STATE, "Worker process %d ended", (int) pid);
	else if (WIFSIGNALED(status))
		log_event(LOG_WARNING, EVENT_WORKER_DIED,
		          "Worker process %d was killed by signal %d (%s): %u connection%s lost", (int) pid,
		          WTERMSIG(status), strsignal(WTERMSIG(status)), lost, plural(lost));
	else
		log_event(LOG_WARNING, EVENT_WORKER_DIED,
		          "Worker process %d failed with status %d: %u connection%s lost", (int) pid,
		          WEXITSTATUS(status), lost, plural(lost));
}
