/* SPDX-License-Identifier: ISC */
#include <config.h>

#include "models/worker.h"

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/log.h"
#include "models/event/poller.h"

void worker_ready(struct worker *worker)
{
	char byte = 1;

	stats_slot_ready(worker->slot);
	while (write(worker->ready_fd, &byte, 1) < 0 && errno == EINTR)
		;
}

void worker_check_work(struct worker *worker, uint64_t before, int fd, unsigned interest)
{
	short events = (short) ((interest & WATCH_READ ? POLLIN : 0) | (interest & WATCH_WRITE ? POLLOUT : 0));

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
		return;
	if (WIFSIGNALED(status))
		log_event(LOG_WARNING, EVENT_WORKER_DIED, "Worker process %d was killed by signal %d (%s): %u connections lost",
		          (int) pid, WTERMSIG(status), strsignal(WTERMSIG(status)), lost);
	else
		log_event(LOG_WARNING, EVENT_WORKER_DIED, "Worker process %d failed with status %d: %u connections lost",
		          (int) pid, WEXITSTATUS(status), lost);
}
