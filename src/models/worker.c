#include <config.h>

#include "models/worker.h"

#include <errno.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/log.h"

void worker_ready(struct worker *worker)
{
	char byte = 1;

	atomic_store(&worker->slot->state, SLOT_READY);
	while (write(worker->ready_fd, &byte, 1) < 0 && errno == EINTR)
		;
}

enum stats_stop worker_stop_order(const struct worker *worker)
{
	int stop = atomic_load(&worker->orders->stop);

	if (stop == STOP_NONE)
		_exit(1);
	return (enum stats_stop) stop;
}

uint32_t worker_slot_number(const struct worker *worker, const struct stats_slot *slot)
{
	return (uint32_t) (slot - worker->board->slots);
}

void worker_lost(struct stats_board *board, struct admission_shared *admission, struct stats_slot *slot, int status)
{
	int pid = atomic_load(&slot->pid);
	uint32_t live = stats_slot_free(slot);

	if (WIFEXITED(status) && WEXITSTATUS(status) == 0)
		return;
	admission_forget_owner(admission, (uint32_t) (slot - board->slots));
	atomic_fetch_add(&board->others.counters[STAT_ENDED_ERROR], live);
	if (WIFSIGNALED(status))
		log_event(LOG_WARNING, EVENT_WORKER_DIED, "Worker process %d was killed by signal %d (%s): %u connections lost",
		          pid, WTERMSIG(status), strsignal(WTERMSIG(status)), live);
	else
		log_event(LOG_WARNING, EVENT_WORKER_DIED, "Worker process %d failed with status %d: %u connections lost", pid,
		          WEXITSTATUS(status), live);
}
