/* SPDX-License-Identifier: ISC */
#include <config.h>

#include "models/model.h"

#include <errno.h>
#include <limits.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/select.h>
#include <sys/socket.h>

#include "base/processors.h"
#include "net/sockopt.h"

#define POOL_WORKERS 64

/* Descriptors that a crew process needs besides connections and listeners: standard streams, pipes to the
 * supervisor, epoll sets, and a reserve for libraries. */
#define FDS_RESERVED 32

static const struct model models[] = {
#define MODEL(model, ...) { .name = model, __VA_ARGS__ },
#include "models/model_table.h"
#undef MODEL
};

#define MODELS (sizeof models / sizeof models[0])

const char *const model_names[] = {
#define MODEL(model, ...) model,
#include "models/model_table.h"
#undef MODEL
	NULL,
};

const struct model *model_find(const char *name)
{
	for (size_t i = 0; i < MODELS; i++)
		if (!strcmp(models[i].name, name))
			return &models[i];
	return NULL;
}

unsigned model_descriptors(void)
{
	struct rlimit limit;

	if (getrlimit(RLIMIT_NOFILE, &limit) < 0)
		return 1024;
	return limit.rlim_max > CONF_CONNECTIONS_MAX ? CONF_CONNECTIONS_MAX : (unsigned) limit.rlim_max;
}

/* Descriptors that every loop needs besides pipes and connections: an epoll set, a ring, the eventfd of its
 * accept token, and one in reserve. */
#define LOOP_FDS 4

/* Minimum number of descriptors of each loop, where the number of loops is derived from the processors. */
#define LOOP_FDS_MIN 12

/* The pipes of all loops together use at most this fraction (1/4) of a process's descriptors. */
#define PIPES_SHARE 4

static unsigned subtract(unsigned from, unsigned take)
{
	return from > take ? from - take : 0;
}

static unsigned lesser(unsigned a, unsigned b)
{
	return a < b ? a : b;
}

static unsigned greater(unsigned a, unsigned b)
{
	return a > b ? a : b;
}

/* Where the number of loops is derived from the processors, a crew locks at most this fraction (1/4) of the
 * memory that the user may lock (RLIMIT_MEMLOCK): during a reload there are two crews, and the user may have
 * other processes. */
#define LOCKED_SHARE 4

/* Maximum number of loops of a model by the memory that they lock. */
static unsigned loops_locked(const struct model *model)
{
	struct rlimit limit;
	rlim_t max;

	if (model->locked == 0 || getrlimit(RLIMIT_MEMLOCK, &limit) < 0 || limit.rlim_cur == RLIM_INFINITY)
		return UINT_MAX;
	max = limit.rlim_cur / LOCKED_SHARE / model->locked;
	return max < UINT_MAX ? (unsigned) max : UINT_MAX;
}

/* The limits of a model whose workers are loops that share the `fds` descriptors of a process. */
static void loop_limits(struct model_limits *limits, const struct model *model, const struct conf *conf,
                        unsigned fds)
{
	unsigned loops = lesser(lesser(processors_available(), fds / LOOP_FDS_MIN), loops_locked(model));
	unsigned sure, max;

	limits->workers = conf->workers > 0 ? conf->workers : greater(loops, 1);
	limits->pipes = lesser(model->pipes, fds / PIPES_SHARE / limits->workers / 2);
	max = subtract(fds, limits->workers * LOOP_FDS);
	sure = subtract(max, limits->workers * 2 * limits->pipes);
	limits->max_connections = conf->max_connections > 0 ? conf->max_connections : greater(sure, 1);
	/* a configuration that asks for more connections than are certain to fit has fewer pipes */
	limits->capacity = greater(greater(sure, lesser(max, conf->max_connections)), 1);
}

void model_limits(struct model_limits *limits, const struct model *model, const struct conf *conf,
                  size_t listeners)
{
	unsigned fds = model_descriptors();

	if (model->poller == &poller_select)
		fds = lesser(fds, FD_SETSIZE);
	fds = subtract(fds, FDS_RESERVED + (unsigned) listeners);
	if (model->zero == MODEL_ZERO_PROCESSORS) {
		loop_limits(limits, model, conf, fds);
		return;
	}
	*limits = (struct model_limits) { .workers = conf->workers, .max_connections = conf->max_connections,
		                          .capacity = greater(fds, 1), .pipes = model->pipes };
	if (limits->workers == 0 && model->zero != MODEL_ZERO_CONNECTIONS)
		limits->workers = model->zero == MODEL_ZERO_POOL ? POOL_WORKERS : 1;
	if (limits->max_connections == 0)
		limits->max_connections = model->crew == MODEL_PROCESSES ? limits->workers : limits->capacity;
	if (limits->workers == 0)
		limits->workers = lesser(limits->max_connections, SCOREBOARD_WORKERS_MAX);
	if (model->zero == MODEL_ZERO_CONNECTIONS && conf->max_connections == 0)
		limits->max_connections = lesser(limits->max_connections, SCOREBOARD_WORKERS_MAX);
}

/* FD_SETSIZE limits all descriptors of the process, those of all loops together. */
static void check_select(const struct model *model, const struct conf *conf, struct diagnostics *errors)
{
	unsigned fds = subtract(FD_SETSIZE, FDS_RESERVED + (unsigned) conf->listen_count * 2), max;
	struct model_limits limits;

	loop_limits(&limits, model, conf, fds);
	max = subtract(fds, limits.workers * (2 * limits.pipes + LOOP_FDS));
	if (max == 0)
		conf_error_at(conf, CONF_WORKERS, errors,
		              "model \"select\" cannot have %u workers: their own descriptors pass "
		              "FD_SETSIZE (%d); set workers lower, or choose poll or epoll",
		              limits.workers, FD_SETSIZE);
	else if (conf->max_connections > max)
		conf_error_at(conf, CONF_MAX_CONNECTIONS, errors,
		              "model \"select\" can hold %u connections here (FD_SETSIZE is %d), not %u; set "
		              "max-connections to %u or less, or choose poll or epoll",
		              max, FD_SETSIZE, conf->max_connections, max);
}

/* Where the number of workers is derived from max-connections, the maximum of workers is also that of
 * max-connections. */
static void check_spawn(const struct model *model, const struct conf *conf, struct diagnostics *errors)
{
	const unsigned max = SCOREBOARD_WORKERS_MAX;

	if (conf->workers == 0 && conf->max_connections > max)
		conf_error_at(conf, CONF_MAX_CONNECTIONS, errors,
		              "model \"%s\" serves at most %u connections at once, not %u, since each is a "
		              "worker; set max-connections to %u or less, set workers, or choose epoll or "
		              "io_uring",
		              model->name, max, conf->max_connections, max);
}

/* Larger values would be reduced to the sysctl by the kernel without an error. */
static void check_socket_buffer(const struct conf *conf, struct diagnostics *errors)
{
	static const struct {
		int option;
		const char *sysctl;
	} buffers[] = { { SO_RCVBUF, "net.core.rmem_max" }, { SO_SNDBUF, "net.core.wmem_max" } };

	for (size_t i = 0; i < sizeof buffers / sizeof buffers[0]; i++) {
		unsigned max = sockopt_buffer_max(buffers[i].option);

		if (conf->socket_buffer > max)
			conf_error_at(conf, CONF_SOCKET_BUFFER, errors,
			              "the kernel would cut socket-buffer = %u to %s, which is %u; set it to "
			              "%u or less, or raise the sysctl",
			              conf->socket_buffer, buffers[i].sysctl, max, max);
	}
}

int model_check(const struct conf *conf, struct diagnostics *errors)
{
	const struct model *model = model_find(conf->model);
	size_t before = errors->count;
	const char *why;
	char text[256];

	why = model->probe ? model->probe(text, sizeof text) : NULL;
	if (why)
		conf_error_at(conf, CONF_MODEL, errors,
		              "model \"%s\" cannot run here: %s, or choose another model", model->name, why);
	if (model->workers_max > 0 && conf->workers > model->workers_max)
		conf_error_at(conf, CONF_WORKERS, errors,
		              "model \"%s\" has %u worker, not %u; set workers to 0 or %u, or choose prefork "
		              "or prethread",
		              model->name, model->workers_max, conf->workers, model->workers_max);
	if (conf->workers > SCOREBOARD_WORKERS_MAX)
		conf_error_at(conf, CONF_WORKERS, errors,
		              "there can be %u workers where addresses have 32 bits, not %u; set workers to "
		              "%u or less",
		              (unsigned) SCOREBOARD_WORKERS_MAX, conf->workers,
		              (unsigned) SCOREBOARD_WORKERS_MAX);
	if (model->poller == &poller_select)
		check_select(model, conf, errors);
	if (model->zero == MODEL_ZERO_CONNECTIONS)
		check_spawn(model, conf, errors);
	if (conf->socket_buffer > 0)
		check_socket_buffer(conf, errors);
	return errors->count > before ? -EINVAL : 0;
}

void model_list(FILE *out)
{
	char text[256];

	fprintf(out, "%-10s  %-40s  %-22s  %s\n", "MODEL", "WHAT SERVES A CONNECTION", "WORKERS COUNTS",
	        "CAN RUN HERE");
	for (size_t i = 0; i < MODELS; i++) {
		const char *why = models[i].probe ? models[i].probe(text, sizeof text) : NULL;

		fprintf(out, "%-10s  %-40s  %-22s  %s%s\n", models[i].name, models[i].serves,
		        models[i].counts, why ? "no: " : "yes", why ? why : "");
	}
}
