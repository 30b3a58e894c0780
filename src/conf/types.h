/* SPDX-License-Identifier: ISC */
/* types.h - the types of the configuration; conf.h describes them and has the functions */
#ifndef ECHOD_CONF_TYPES_H
#define ECHOD_CONF_TYPES_H

#include <net/if.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "conf/keys.h"
#include "net/addr.h"
#include "net/cidr.h"

/* CONF_MODEL and so on: every key of echod.conf(5), in the order of the table. */
enum conf_key {
#define X(key, ...) CONF_##key,
	CONF_KEY_TABLE(X)
#undef X
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

/* One entry of `listen`. For "*", every address of the host, `wildcard` is set and `addr` is the IPv6
 * wildcard address with the port. */
struct conf_listen {
	bool wildcard;
	struct addr addr; /* port filled in, from `port` where the entry named none */
	char interface[IF_NAMESIZE]; /* after "%", if it does not exist and so has no number for `addr`; ""
	                                otherwise */
};

/* A list of strings of the file. */
struct conf_strings {
	char **items;
	size_t count;
};

struct conf {
	char *path;  /* of the file, for messages */
	char *model; /* one of the names given to conf_read() */
	unsigned workers;
	uint16_t port;
	struct conf_listen *listen;
	size_t listen_count;
	bool freebind;
	unsigned unix_mode; /* permissions of unix sockets, 0 to 0777 */
	char *unix_group;   /* their group; "": that of the process */
	bool mptcp;
	struct cidr_set proxy_protocol;
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

	struct conf_strings text[CONF_KEYS]; /* of lists: the strings of the file, for conf_dump() */
	struct conf_origin origin[CONF_KEYS];
};

/* Values of the command line. They replace those of the file, at every reload too. */
struct conf_overrides {
	const char *model;     /* NULL: not given */
	const char *log_level; /* NULL: not given */
	int64_t workers;       /* -1: not given */
	int64_t port;          /* -1: not given */
};
#define CONF_OVERRIDES_NONE { .workers = -1, .port = -1 }

/* The name of a key in the file, such as "max-connections". */
const char *conf_key_name(enum conf_key key);

/* The values of log-target, in the order of enum conf_log_target, and of log-level, in the order of syslog(3)
 * priorities from LOG_ERR on; NULL-terminated. */
extern const char *const conf_log_target_names[];
extern const char *const conf_log_level_names[];

#endif
