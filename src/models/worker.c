#include <config.h>

#include "models/worker.h"

#include <errno.h>
#include <unistd.h>

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
