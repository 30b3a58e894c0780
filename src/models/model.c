#include <config.h>

#include "models/model.h"

#include <errno.h>
#include <sched.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/select.h>

#define POOL_WORKERS 64

/* Descriptors a crew process needs beside its connections and listeners: standard streams,
 * pipes to the supervisor, epoll sets, and some to spare for the libraries. */
#define FDS_RESERVED 32

static const struct model models[] = {
	{
		.name = "iterative",
		.serves = "the one worker, one connection at a time",
		.counts = "must be 0 or 1",
		.crew = MODEL_THREADS,
		.zero = MODEL_ZERO_ONE,
		.workers_max = 1,
		.run = serial_run,
	},
	{
		.name = "process",
		.serves = "a process forked for it",
		.counts = "most processes at once",
		.crew = MODEL_SPAWN,
		.zero = MODEL_ZERO_CONNECTIONS,
		.run = spawn_processes_run,
	},
	{
		.name = "prefork",
		.serves = "one of a pool of processes",
		.counts = "processes in the pool",
		.crew = MODEL_PROCESSES,
		.zero = MODEL_ZERO_POOL,
		.run = serial_run,
	},
	{
		.name = "thread",
		.serves = "a thread created for it",
		.counts = "most threads at once",
		.crew = MODEL_SPAWN,
		.zero = MODEL_ZERO_CONNECTIONS,
		.run = spawn_threads_run,
	},
	{
		.name = "prethread",
		.serves = "one of a pool of threads",
		.counts = "threads in the pool",
		.crew = MODEL_THREADS,
		.zero = MODEL_ZERO_POOL,
		.run = serial_run,
	},
	{
		.name = "select",
		.serves = "an event loop on select(2)",
		.counts = "event loops",
		.crew = MODEL_THREADS,
		.zero = MODEL_ZERO_PROCESSORS,
		.pipes = 2,
		.ready = &ready_select,
		.run = loop_run,
	},
	{
		.name = "poll",
		.serves = "an event loop on poll(2)",
		.counts = "event loops",
		.crew = MODEL_THREADS,
		.zero = MODEL_ZERO_PROCESSORS,
		.pipes = 32,
		.ready = &ready_poll,
		.run = loop_run,
	},
	{
		.name = "epoll",
		.serves = "an event loop on epoll(7)",
		.counts = "event loops",
		.crew = MODEL_THREADS,
		.zero = MODEL_ZERO_PROCESSORS,
		.pipes = 32,
		.ready = &ready_epoll,
		.run = loop_run,
	},
	{
		.name = "io_uring",
		.serves = "a completion loop on io_uring(7)",
		.counts = "event loops",
		.crew = MODEL_THREADS,
		.zero = MODEL_ZERO_PROCESSORS,
		.pipes = 32,
		.probe = uring_probe,
		.run = uring_run,
	},
};

#define MODELS (sizeof models / sizeof models[0])

const char *const model_names[] = {
	"iterative", "process", "prefork", "thread", "prethread", "select", "poll", "epoll", "io_uring", NULL,
};

_Static_assert(MODELS == sizeof model_names / sizeof model_names[0] - 1, "a name for each model");

const struct model *model_find(const char *name)
{
	for (size_t i = 0; i < MODELS; i++)
		if (!strcmp(models[i].name, name))
			return &models[i];
	return NULL;
}

static unsigned processors(void)
{
	cpu_set_t set;

	return sched_getaffinity(0, sizeof set, &set) == 0 ? (unsigned) CPU_COUNT(&set) : 1;
}

/* What RLIMIT_NOFILE can be raised to. */
static unsigned descriptors_allowed(void)
{
	struct rlimit limit;

	if (getrlimit(RLIMIT_NOFILE, &limit) < 0)
		return 1024;
	return limit.rlim_max > 10000000 ? 10000000 : (unsigned) limit.rlim_max;
}

/* Of `all` descriptors of a process with so many workers, those that are left for connections. */
static unsigned descriptors_left(unsigned all, unsigned workers, unsigned pipes, size_t listeners)
{
	unsigned own = FDS_RESERVED + (unsigned) listeners + workers * (2 * pipes + 2);

	return all > own ? all - own : 0;
}

/* Most connections that a process of this model can hold beside so many pipes of each worker. */
static unsigned room_beside(const struct model *model, const struct conf *conf, unsigned pipes, size_t listeners)
{
	unsigned workers = model->zero == MODEL_ZERO_PROCESSORS ? model_workers(model, conf) : 0;
	unsigned most = descriptors_allowed();

	if (model->ready == &ready_select && most > FD_SETSIZE)
		most = FD_SETSIZE;
	most = descriptors_left(most, workers, pipes, listeners);
	return most > 0 ? most : 1;
}

unsigned model_capacity(const struct model *model, const struct conf *conf, size_t listeners)
{
	unsigned sure = room_beside(model, conf, model->pipes, listeners);
	unsigned most = room_beside(model, conf, 0, listeners);

	/* who asks for more than is sure to fit has fewer pipes */
	if (most > conf->max_connections)
		most = conf->max_connections;
	return most > sure ? most : sure;
}

unsigned model_max_connections(const struct model *model, const struct conf *conf, size_t listeners)
{
	if (conf->max_connections > 0)
		return conf->max_connections;
	if (model->crew == MODEL_PROCESSES)
		return model_workers(model, conf);
	return room_beside(model, conf, model->pipes, listeners);
}

unsigned model_workers(const struct model *model, const struct conf *conf)
{
	if (conf->workers > 0)
		return conf->workers;
	switch (model->zero) {
	case MODEL_ZERO_POOL:
		return POOL_WORKERS;
	case MODEL_ZERO_CONNECTIONS:
		return model_max_connections(model, conf, conf->listen_count * 2);
	case MODEL_ZERO_PROCESSORS:
		return processors();
	case MODEL_ZERO_ONE:
		break;
	}
	return 1;
}

/* Every descriptor of the process counts against FD_SETSIZE, those of all loops together. */
static void check_select(const struct model *model, const struct conf *conf, struct conf_errors *errors)
{
	unsigned workers = model_workers(model, conf);
	unsigned most = descriptors_left(FD_SETSIZE, workers, model->pipes, conf->listen_count * 2);

	if (most == 0)
		conf_blame(conf, CONF_WORKERS, errors, "model \"select\" cannot have %u workers: their own descriptors pass "
		           "FD_SETSIZE (%d); set workers lower, or choose poll or epoll", workers, FD_SETSIZE);
	else if (conf->max_connections > most)
		conf_blame(conf, CONF_MAX_CONNECTIONS, errors, "model \"select\" can hold %u connections here (FD_SETSIZE is "
		           "%d), not %u; set max-connections to %u or less, or choose poll or epoll", most, FD_SETSIZE,
		           conf->max_connections, most);
}

int model_check(const struct conf *conf, struct conf_errors *errors)
{
	const struct model *model = model_find(conf->model);
	size_t before = errors->count;
	const char *why;
	char text[256];

	why = model->probe ? model->probe(text, sizeof text) : NULL;
	if (why)
		conf_blame(conf, CONF_MODEL, errors, "model \"%s\" cannot run here: %s, or choose another model", model->name, why);
	if (model->workers_max > 0 && conf->workers > model->workers_max)
		conf_blame(conf, CONF_WORKERS, errors, "model \"%s\" has %u worker, not %u; set workers to 0 or %u, or choose "
		           "prefork or prethread", model->name, model->workers_max, conf->workers, model->workers_max);
	if (model->ready == &ready_select)
		check_select(model, conf, errors);
	return errors->count > before ? -EINVAL : 0;
}

void model_list(FILE *out)
{
	char text[256];

	fprintf(out, "%-10s  %-40s  %-22s  %s\n", "MODEL", "WHAT SERVES A CONNECTION", "WORKERS COUNTS", "CAN RUN HERE");
	for (size_t i = 0; i < MODELS; i++) {
		const char *why = models[i].probe ? models[i].probe(text, sizeof text) : NULL;

		fprintf(out, "%-10s  %-40s  %-22s  %s%s\n", models[i].name, models[i].serves, models[i].counts,
		        why ? "no: " : "yes", why ? why : "");
	}
}
