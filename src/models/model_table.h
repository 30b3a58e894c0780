/* SPDX-License-Identifier: ISC */
/* model_table.h - a row for each model: MODEL(name, other members of struct model)
 *
 * Included by model.c only, which defines MODEL. To add a model, add a row; a new body is declared in
 * model.h.
 */
MODEL("iterative",
	.serves = "the one worker, one connection at a time",
	.counts = "must be 0 or 1",
	.crew = MODEL_THREADS,
	.zero = MODEL_ZERO_ONE,
	.workers_max = 1,
	.uses = SANDBOX_EPOLL,
	.run = serial_run)

MODEL("process",
	.serves = "a process forked for it",
	.counts = "most processes at once",
	.crew = MODEL_SPAWN,
	.zero = MODEL_ZERO_CONNECTIONS,
	.child_processes = true,
	.uses = SANDBOX_EPOLL | SANDBOX_FORK,
	.run = spawn_processes_run)

MODEL("prefork",
	.serves = "one of a pool of processes",
	.counts = "processes in the pool",
	.crew = MODEL_PROCESSES,
	.zero = MODEL_ZERO_POOL,
	.uses = SANDBOX_EPOLL,
	.run = serial_run)

MODEL("thread",
	.serves = "a thread created for it",
	.counts = "most threads at once",
	.crew = MODEL_SPAWN,
	.zero = MODEL_ZERO_CONNECTIONS,
	.uses = SANDBOX_EPOLL | SANDBOX_THREADS,
	.run = spawn_threads_run)

MODEL("prethread",
	.serves = "one of a pool of threads",
	.counts = "threads in the pool",
	.crew = MODEL_THREADS,
	.zero = MODEL_ZERO_POOL,
	.uses = SANDBOX_EPOLL,
	.run = serial_run)

MODEL("select",
	.serves = "an event loop on select(2)",
	.counts = "event loops",
	.crew = MODEL_THREADS,
	.zero = MODEL_ZERO_PROCESSORS,
	.pipes = 2,
	.poller = &poller_select,
	.uses = SANDBOX_SELECT,
	.run = loop_run)

MODEL("poll",
	.serves = "an event loop on poll(2)",
	.counts = "event loops",
	.crew = MODEL_THREADS,
	.zero = MODEL_ZERO_PROCESSORS,
	.pipes = 32,
	.poller = &poller_poll,
	.run = loop_run)

MODEL("epoll",
	.serves = "an event loop on epoll(7)",
	.counts = "event loops",
	.crew = MODEL_THREADS,
	.zero = MODEL_ZERO_PROCESSORS,
	.pipes = 32,
	.poller = &poller_epoll,
	.uses = SANDBOX_EPOLL,
	.run = loop_run)

MODEL("io_uring",
	.serves = "a completion loop on io_uring(7)",
	.counts = "event loops",
	.crew = MODEL_THREADS,
	.zero = MODEL_ZERO_PROCESSORS,
	.pipes = 32,
	.locked = 192 << 10, /* of a ring; measured 144 KiB */
	.probe = uring_probe,
	.uses = SANDBOX_EPOLL | SANDBOX_IO_URING,
	.prepare = uring_prepare,
	.run = uring_run)
