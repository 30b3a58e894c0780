/* SPDX-License-Identifier: ISC */
#include <config.h>

#include <syslog.h>

#include "conf/conf.h"
#include "conf/schema.h"

/* Print a string in double quotes so that libconfuse reads the same back. */
static void dump_string(FILE *out, const char *text)
{
	fputc('"', out);
	for (; *text; text++) {
		if (*text == '\n') {
			fputs("\\n", out);
			continue;
		}
		if (*text == '"' || *text == '\\' || *text == '$')
			fputc('\\', out);
		fputc(*text, out);
	}
	fputc('"', out);
}

static void dump_list(FILE *out, const char *const items[], size_t count)
{
	fputc('{', out);
	for (size_t i = 0; i < count; i++) {
		fputs(i > 0 ? ", " : "", out);
		dump_string(out, items[i]);
	}
	fputc('}', out);
}

static void dump_strings(FILE *out, const struct conf_strings *strings)
{
	dump_list(out, (const char *const *) strings->items, strings->count);
}

static void dump_protocols(FILE *out, const struct conf *conf)
{
	const char *names[2];
	size_t count = 0;

	if (conf->tcp)
		names[count++] = "tcp";
	if (conf->udp)
		names[count++] = "udp";
	dump_list(out, names, count);
}

static void dump_bool(FILE *out, bool value)
{
	fputs(value ? "true" : "false", out);
}

static void dump_value(FILE *out, const struct conf *conf, enum conf_key key)
{
	switch (key) {
	case CONF_MODEL: dump_string(out, conf->model); break;
	case CONF_WORKERS: fprintf(out, "%u", conf->workers); break;
	case CONF_PORT: fprintf(out, "%u", conf->port); break;
	case CONF_LISTEN: dump_strings(out, &conf->listen_text); break;
	case CONF_FREEBIND: dump_bool(out, conf->freebind); break;
	case CONF_PROTOCOLS: dump_protocols(out, conf); break;
	case CONF_BACKLOG: fprintf(out, "%u", conf->backlog); break;
	case CONF_MAX_CONNECTIONS: fprintf(out, "%u", conf->max_connections); break;
	case CONF_MAX_PER_SOURCE: fprintf(out, "%u", conf->max_per_source); break;
	case CONF_IDLE_TIMEOUT: fprintf(out, "%u", conf->idle_timeout); break;
	case CONF_TCP_KEEPALIVE: fprintf(out, "%u", conf->tcp_keepalive); break;
	case CONF_DRAIN_TIMEOUT: fprintf(out, "%u", conf->drain_timeout); break;
	case CONF_BUFFER_SIZE: fprintf(out, "%zu", conf->buffer_size); break;
	case CONF_SOCKET_BUFFER: fprintf(out, "%u", conf->socket_buffer); break;
	case CONF_ALLOW: dump_strings(out, &conf->allow_text); break;
	case CONF_DENY: dump_strings(out, &conf->deny_text); break;
	case CONF_USER: dump_string(out, conf->user); break;
	case CONF_GROUP: dump_string(out, conf->group); break;
	case CONF_PIDFILE: dump_string(out, conf->pidfile); break;
	case CONF_LOG_TARGET: dump_string(out, conf_log_target_names[conf->log_target]); break;
	case CONF_LOG_LEVEL: dump_string(out, conf_log_level_names[conf->log_level - LOG_ERR]); break;
	case CONF_LOG_CONNECTIONS: dump_bool(out, conf->log_connections); break;
	case CONF_STATS_INTERVAL: fprintf(out, "%u", conf->stats_interval); break;
	case CONF_KEEP_CONNECTIONS: dump_bool(out, conf->keep_connections); break;
	case CONF_REFLECT_DSCP: dump_bool(out, conf->reflect_dscp); break;
	case CONF_UDP_RATE: fprintf(out, "%u", conf->udp_rate); break;
	case CONF_UDP_TRUSTED: dump_strings(out, &conf->udp_trusted_text); break;
	case CONF_METRICS_FILE: dump_string(out, conf->metrics_file); break;
	case CONF_KEYS: break;
	}
}

void conf_dump(const struct conf *conf, FILE *out)
{
	for (int i = 0; i < CONF_KEYS; i++) {
		fprintf(out, "%s = ", schema[i].name);
		dump_value(out, conf, (enum conf_key) i);
		fputc('\n', out);
	}
}
