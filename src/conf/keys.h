/* SPDX-License-Identifier: ISC */
/* keys.h - the table of the keys of echod.conf, in the order in which the manual and `echod -T` list them
 *
 * One row for each key: X(constant, name, type, field of struct conf, members of struct schema). From the row
 * follow the constant CONF_..., reading the file, its checks, the dump, freeing, and the warning of a reload.
 * To add a key: a row, its field in struct conf, an entry in the manual and in etc/echod.conf.
 */
#ifndef ECHOD_CONF_KEYS_H
#define ECHOD_CONF_KEYS_H

#define CONF_KEY_TABLE(X) \
	X(MODEL, "model", MODEL, model, .initial = "epoll") \
	X(WORKERS, "workers", NUMBER, workers, .initial = "0", .max = CONF_WORKERS_MAX) \
	X(PORT, "port", NUMBER, port, .initial = "7", .min = 1, .max = 65535) \
	X(LISTEN, "listen", LISTEN, listen, .initial = "{\"*\"}") \
	X(FREEBIND, "freebind", BOOL, freebind, .initial = "true") \
	X(UNIX_MODE, "unix-mode", MODE, unix_mode, .initial = "0660") \
	X(UNIX_GROUP, "unix-group", GROUP, unix_group, .initial = "") \
	X(MPTCP, "mptcp", BOOL, mptcp, .initial = "false") \
	X(PROXY_PROTOCOL, "proxy-protocol", NETWORKS, proxy_protocol, .initial = "{}") \
	X(PROTOCOLS, "protocols", PROTOCOLS, tcp, .initial = "{\"tcp\"}") \
	X(BACKLOG, "backlog", NUMBER, backlog, .initial = "4096", .min = 1, .max = 65535) \
	X(MAX_CONNECTIONS, "max-connections", NUMBER, max_connections, .initial = "0", \
	  .max = CONF_CONNECTIONS_MAX) \
	X(MAX_PER_SOURCE, "max-per-source", NUMBER, max_per_source, .initial = "0", .max = 10000000) \
	X(IDLE_TIMEOUT, "idle-timeout", NUMBER, idle_timeout, .initial = "600", .max = 86400000, \
	  .unit = " seconds") \
	X(TCP_KEEPALIVE, "tcp-keepalive", NUMBER, tcp_keepalive, .initial = "300", .max = 32767, \
	  .unit = " seconds") \
	X(DRAIN_TIMEOUT, "drain-timeout", NUMBER, drain_timeout, .initial = "10", .max = 86400, \
	  .unit = " seconds") \
	X(BUFFER_SIZE, "buffer-size", NUMBER, buffer_size, .initial = "65536", .min = 512, .max = 16777216, \
	  .unit = " bytes") \
	X(SOCKET_BUFFER, "socket-buffer", NUMBER, socket_buffer, .initial = "0", .min = 4096, \
	  .max = 1073741824, .zero = true, .unit = " bytes") \
	X(ALLOW, "allow", NETWORKS, allow, .initial = "{}") \
	X(DENY, "deny", NETWORKS, deny, .initial = "{}") \
	X(USER, "user", USER, user, .initial = "", .restart = true) \
	X(GROUP, "group", GROUP, group, .initial = "", .restart = true) \
	X(PIDFILE, "pidfile", PATH, pidfile, .initial = "/run/echod.pid", .restart = true) \
	X(LOG_TARGET, "log-target", CHOICE, log_target, .initial = "auto", .names = conf_log_target_names, \
	  .noun = "log target") \
	X(LOG_LEVEL, "log-level", CHOICE, log_level, .initial = "info", .names = conf_log_level_names, \
	  .noun = "log level", .min = LOG_ERR) \
	X(LOG_CONNECTIONS, "log-connections", BOOL, log_connections, .initial = "true") \
	X(STATS_INTERVAL, "stats-interval", NUMBER, stats_interval, .initial = "60", .max = 86400, \
	  .unit = " seconds") \
	X(KEEP_CONNECTIONS, "keep-connections", BOOL, keep_connections, .initial = "true") \
	X(REFLECT_DSCP, "reflect-dscp", BOOL, reflect_dscp, .initial = "false") \
	X(UDP_RATE, "udp-rate", NUMBER, udp_rate, .initial = "1000", .max = 1000000000, \
	  .unit = " datagrams per second") \
	X(UDP_TRUSTED, "udp-trusted", NETWORKS, udp_trusted, .initial = "{}") \
	X(METRICS_FILE, "metrics-file", PATH, metrics_file, .initial = "")

#endif
