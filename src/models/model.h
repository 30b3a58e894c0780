/* SPDX-License-Identifier: ISC */
/* model.h - the table of concurrency models
 *
 * Two questions make a model: what is a worker (the crew), and what does it do (run). Nine
 * models are nine rows over four bodies. A model that was not built keeps its row, and its
 * probe says why. Pure but for the probes; any thread.
 */
#ifndef ECHOD_MODELS_MODEL_H
#define ECHOD_MODELS_MODEL_H

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "base/sandbox.h"
#include "conf/conf.h"
#include "models/event/poller.h"
#include "models/worker.h"

enum model_crew {
	MODEL_THREADS,   /* one process with `workers` threads */
	MODEL_PROCESSES, /* `workers` processes with one thread each */
	MODEL_SPAWN,     /* one process with one thread that makes up to `workers` processes or threads */
};

/* What `workers = 0` stands for. */
enum model_zero { MODEL_ZERO_ONE, MODEL_ZERO_POOL, MODEL_ZERO_CONNECTIONS, MODEL_ZERO_PROCESSORS };

struct model {
	const char *name;
	const char *serves;        /* what serves a connection */
	const char *counts;        /* what `workers` counts */
	enum model_crew crew;
	enum model_zero zero;
	bool child_processes;      /* of MODEL_SPAWN: a process for each connection, else a thread */
	unsigned workers_max;      /* 0: only conf's own limit */
	unsigned uses;             /* enum sandbox_use beside what all models use */
	unsigned pipes;            /* most pipes of a worker */
	unsigned locked;           /* locked memory of a worker, bytes: an upper bound */
	const struct poller_ops *poller; /* of the bodies that need one */

	/* Whether this model can run on this host at all: NULL, or a sentence that says why not and
	 * what would help, in `text` (`size` bytes). */
	const char *(*probe)(char *text, size_t size);

	/* The body: serve until worker->stop_fd is readable, then do as worker_stop_requested() says.
	 * Returns 0, or -errno where it could not start or go on. */
	int (*run)(struct worker *worker);
};

/* The names, NULL-terminated, in the order of the table. */
extern const char *const model_names[];

/* The model of that name (one of model_names). */
const struct model *model_find(const char *name);

/* Make of `conf` and of what the host allows (RLIMIT_NOFILE, processors) the numbers that a crew works with;
 * `listeners` descriptors are open already. Where the configuration leaves a number to the host, it is one that
 * the process can hold. Supervisor; reads the host's files. */
void model_limits(struct model_limits *limits, const struct model *model, const struct conf *conf, size_t listeners);

/* Descriptors that a process can have: what RLIMIT_NOFILE can be raised to, within what max-connections can ask for. */
unsigned model_descriptors(void);

/* Whether the model can run here with this configuration; every reason why not is added to
 * `errors`. Returns 0 or -EINVAL. */
int model_check(const struct conf *conf, struct conf_errors *errors);

/* Print the table for `echod --list-models`. */
void model_list(FILE *out);

/* The bodies. */
int serial_run(struct worker *worker);
int spawn_threads_run(struct worker *worker);
int spawn_processes_run(struct worker *worker);
int loop_run(struct worker *worker);
int uring_run(struct worker *worker);
const char *uring_probe(char *text, size_t size);

#endif
