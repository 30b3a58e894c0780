/* SPDX-License-Identifier: ISC */
/* conf.h - the configuration: what echod.conf and the command line say, checked
 *
 * A struct conf is complete and valid from the moment conf_read() hands it out and never
 * changes afterwards; a reload reads a new one. It is read by any thread and any process
 * forked later, and freed by whoever received it, with conf_free(), once nobody uses it.
 * Units are in the names or beside the fields.
 */
#ifndef ECHOD_CONF_CONF_H
#define ECHOD_CONF_CONF_H

#include <net/if.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "conf/errors.h"
#include "net/addr.h"
#include "net/cidr.h"

/* Every key of echod.conf(5), in the order in which the manual and `echod -T` list them. */
enum conf_key {
	CONF_MODEL,
	CONF_WORKERS,
	CONF_PORT,
	CONF_LISTEN,
	CONF_FREEBIND,
	CONF_PROTOCOLS,
	CONF_BACKLOG,
	CONF_MAX_CONNECTIONS,
	CONF_MAX_PER_SOURCE,
	CONF_IDLE_TIMEOUT,
	CONF_TCP_KEEPALIVE,
	CONF_DRAIN_TIMEOUT,
	CONF_BUFFER_SIZE,
	CONF_SOCKET_BUFFER,
	CONF_ALLOW,
	CONF_DENY,
	CONF_USER,
	CONF_GROUP,
	CONF_PIDFILE,
	CONF_LOG_TARGET,
	CONF_LOG_LEVEL,
	CONF_LOG_CONNECTIONS,
	CONF_STATS_INTERVAL,
	CONF_KEEP_CONNECTIONS,
	CONF_REFLECT_DSCP,
	CONF_UDP_RATE,
	CONF_UDP_TRUSTED,
	CONF_METRICS_FILE,
	CONF_KEYS
};

/* Largest value of `workers`. */
#define CONF_WORKERS_MAX 100000

/* Largest value of `max-connections`. */
#define CONF_CONNECTIONS_MAX 10000000

/* Where the value of a key comes from. */
enum conf_source { CONF_FROM_DEFAULT, CONF_FROM_FILE, CONF_FROM_COMMAND_LINE };

struct conf_origin {
	enum conf_source source;
	unsigned line; /* of the key in the file; 0 unless CONF_FROM_FILE */
};

/* The order is that of the names `log-target` takes. */
enum conf_log_target { CONF_LOG_AUTO, CONF_LOG_JOURNAL, CONF_LOG_SYSLOG, CONF_LOG_STDERR };

/* One entry of `listen`. "*" stands for every address of the host: `wildcard` is set and
 * only the port of `addr` (an IPv6 wildcard address) means something. */
struct conf_listen {
	bool wildcard;
	struct addr addr; /* port filled in, from `port` where the entry named none */
	char interface[IF_NAMESIZE]; /* after "%", if it does not exist and so has no number for `addr`; "" otherwise */
};

/* A list of strings as the file gave them. */
struct conf_strings {
	char **items;
	size_t count;
};

struct conf {
	char *path;   /* the file this was read from, for messages */
	char *model;  /* a name of the table given to conf_read() */
	unsigned workers;
	uint16_t port;
	struct conf_listen *listen;
	size_t listen_count;
	bool freebind;
	bool tcp, udp;
	unsigned backlog;
	unsigned max_connections;
	unsigned max_per_source;
	unsigned idle_timeout;  /* seconds; 0: never */
	unsigned tcp_keepalive; /* seconds; 0: never */
	unsigned drain_timeout; /* seconds */
	size_t buffer_size;     /* bytes */
	unsigned socket_buffer; /* bytes; 0: the kernel decides */
	struct cidr_set allow, deny;
	char *user, *group, *pidfile; /* "" where unset, never NULL */
	enum conf_log_target log_target;
	int log_level; /* LOG_ERR to LOG_DEBUG of syslog(3) */
	bool log_connections;
	unsigned stats_interval; /* seconds; 0: never */
	bool keep_connections;
	bool reflect_dscp;
	unsigned udp_rate; /* datagrams per second and prefix; 0: no limit */
	struct cidr_set udp_trusted;
	char *metrics_file;

	/* the lists as they were written, for conf_dump() */
	struct conf_strings listen_text, allow_text, deny_text, udp_trusted_text;
	struct conf_origin origin[CONF_KEYS];
};

/* Values of the command line, which win over the file, also at every reload. */
struct conf_overrides {
	const char *model;     /* NULL: not given */
	const char *log_level; /* NULL: not given */
	int64_t workers;       /* -1: not given */
	int64_t port;          /* -1: not given */
};
#define CONF_OVERRIDES_NONE { .workers = -1, .port = -1 }

/* What conf/ cannot know: whether a configuration that is sound in itself is an impossible combination. Adds the
 * mistakes, with conf_blame(), and returns 0 or -EINVAL. */
typedef int conf_check(const struct conf *conf, struct conf_errors *errors);

/* Read and check the file at `path`, apply `overrides` (checked already: options.h), and hand
 * out a new struct conf in `*conf`. `models` is the NULL-terminated list of legal model names; `check`
 * is called, if not NULL, where other mistakes leave it something to judge.
 * Nothing is opened but the file. Main thread only: libconfuse is not reentrant here.
 * Returns 0; -EINVAL for mistakes in the file, all of them added to `errors`; another -errno
 * where the file cannot be opened or read, one line added to `errors`; `*conf` is NULL unless 0. */
int conf_read(struct conf **conf, const char *path, const struct conf_overrides *overrides,
              const char *const models[], conf_check *check, struct conf_errors *errors);

/* The same for the `length` bytes at `text`; `name` stands for the path, in messages and in the
 * struct conf. */
int conf_read_text(struct conf **conf, const char *name, const char *text, size_t length,
                   const struct conf_overrides *overrides, const char *const models[], conf_check *check,
                   struct conf_errors *errors);

/* Add a mistake that concerns `key` of `conf` and that only shows once everything is known
 * (an impossible combination): prefixed with FILE:LINE where the file gave the key, with
 * FILE where it is the default, and with "command line" where an option gave it. */
void conf_blame(const struct conf *conf, enum conf_key key, struct conf_errors *errors,
                const char *format, ...) __attribute__((format(printf, 4, 5)));

/* Print every key in echod.conf syntax, such that reading it back gives the same output. */
void conf_dump(const struct conf *conf, FILE *out);

/* The name of a key as the file spells it, "max-connections". */
const char *conf_key_name(enum conf_key key);

/* Free all of it; NULL is fine. */
void conf_free(struct conf *conf);

/* The legal names of log-target and log-level, NULL-terminated, in order. log-level's first
 * is "err" (LOG_ERR), each next one is one syslog(3) priority less urgent. */
extern const char *const conf_log_target_names[];
extern const char *const conf_log_level_names[];

#endif
