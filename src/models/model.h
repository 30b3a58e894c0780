/* SPDX-License-Identifier: ISC */
/* model.h - the table of concurrency models
 *
 * A model is defined by the kind of its workers (the crew) and by the body that they run. Nine models are
 * nine rows over four bodies. A model that was not built keeps its row, and its probe returns the reason. All
 * functions but the probes are pure; any thread.
 */
#ifndef ECHOD_MODELS_MODEL_H
#define ECHOD_MODELS_MODEL_H

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "base/sandbox.h"
#include "conf/conf.h"
#include "models/poller.h"
#include "models/worker.h"

enum model_crew {
	MODEL_THREADS,   /* one process with `workers` threads */
	MODEL_PROCESSES, /* `workers` processes with one thread each */
	MODEL_SPAWN,     /* one process with one thread that creates up to `workers` processes or threads */
};

/* The meaning of `workers = 0`. */
enum model_zero { MODEL_ZERO_ONE, MODEL_ZERO_POOL, MODEL_ZERO_CONNECTIONS, MODEL_ZERO_PROCESSORS };

struct model {
	const char *name;
	const char *serves;        /* what serves a connection */
	const char *counts;        /* the unit that `workers` counts */
	enum model_crew crew;
	enum model_zero zero;
	bool child_processes;      /* of MODEL_SPAWN: a process for each connection, else a thread */
	unsigned workers_max;      /* 0: only the limit of conf.h */
	unsigned uses;             /* enum sandbox_use, in addition to the system calls of all models */
	unsigned pipes;            /* maximum number of pipes of a worker */
	unsigned locked;           /* locked memory of a worker, bytes: an upper bound */
	const struct poller_ops *poller; /* for bodies that need one */

	/* Whether this model can run on this host: NULL, or a sentence in `text` (`size` bytes) with the
	 * reason why not and what would help. */
	const char *(*probe)(char *text, size_t size);

	/* Make the objects that the body cannot make in a confined process (sandbox.h). Called for each
	 * worker of a process, in its first thread, before the others exist. Sets worker->prepared. NULL:
	 * nothing to make. Returns 0 or -errno. */
	int (*prepare)(struct worker *worker);

	/* The body: serve until worker->stop_fd is readable, then follow worker_stop_requested(). Returns 0,
	 * or -errno where it could not start or go on. */
	int (*run)(struct worker *worker);
};

/* The names, in the order of the table, terminated by NULL. */
extern const char *const model_names[];

/* The model with that name, which must be in model_names. */
const struct model *model_find(const char *name);

/* Compute the numbers of a crew from `conf` and the host's limits (RLIMIT_NOFILE, processors). `listeners`
 * descriptors are open already. Numbers that the configuration does not set are such that the process can
 * have them. Supervisor; reads files of the host. */
void model_limits(struct model_limits *limits, const struct model *model, const struct conf *conf,
                  size_t listeners);

/* Maximum number of descriptors of a process: the hard limit of RLIMIT_NOFILE, at most the maximum of
 * max-connections. */
unsigned model_descriptors(void);

/* Whether the model can run here with this configuration. Adds every reason why not to `errors`. Returns 0 or
 * -EINVAL. */
int model_check(const struct conf *conf, struct diagnostics *errors);

/* Print the table for `echod --list-models`. */
void model_list(FILE *out);

/* The bodies. */
int serial_run(struct worker *worker);
int spawn_threads_run(struct worker *worker);
int spawn_processes_run(struct worker *worker);
int loop_run(struct worker *worker);
int uring_prepare(struct worker *worker);
int uring_run(struct worker *worker);
const char *uring_probe(char *text, size_t size);

#endif
