/* SPDX-License-Identifier: ISC */
#include <config.h>

#include "conf/schema.h"

#include <errno.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "base/names.h"
#include "base/quote.h"

/* One line a key: KEY(constant, name, type, default, least, most, unit). A number whose default is 0 may be 0 although the
 * least value is greater. */
#define KEYS(KEY) \
	KEY(MODEL, "model", STRING, "epoll", 0, 0, "") \
	KEY(WORKERS, "workers", NUMBER, "0", 0, CONF_WORKERS_MAX, "") \
	KEY(PORT, "port", NUMBER, "7", 1, 65535, "") \
	KEY(LISTEN, "listen", LIST, "{\"*\"}", 0, 0, "") \
	KEY(FREEBIND, "freebind", BOOL, "true", 0, 0, "") \
	KEY(PROTOCOLS, "protocols", LIST, "{\"tcp\"}", 0, 0, "") \
	KEY(BACKLOG, "backlog", NUMBER, "4096", 1, 65535, "") \
	KEY(MAX_CONNECTIONS, "max-connections", NUMBER, "0", 0, CONF_CONNECTIONS_MAX, "") \
	KEY(MAX_PER_SOURCE, "max-per-source", NUMBER, "0", 0, 10000000, "") \
	KEY(IDLE_TIMEOUT, "idle-timeout", NUMBER, "600", 0, 86400000, " seconds") \
	KEY(TCP_KEEPALIVE, "tcp-keepalive", NUMBER, "300", 0, 32767, " seconds") \
	KEY(DRAIN_TIMEOUT, "drain-timeout", NUMBER, "10", 0, 86400, " seconds") \
	KEY(BUFFER_SIZE, "buffer-size", NUMBER, "65536", 512, 16777216, " bytes") \
	KEY(SOCKET_BUFFER, "socket-buffer", NUMBER, "0", 4096, 1073741824, " bytes") \
	KEY(ALLOW, "allow", LIST, "{}", 0, 0, "") \
	KEY(DENY, "deny", LIST, "{}", 0, 0, "") \
	KEY(USER, "user", STRING, "", 0, 0, "") \
	KEY(GROUP, "group", STRING, "", 0, 0, "") \
	KEY(PIDFILE, "pidfile", STRING, "/run/echod.pid", 0, 0, "") \
	KEY(LOG_TARGET, "log-target", STRING, "auto", 0, 0, "") \
	KEY(LOG_LEVEL, "log-level", STRING, "info", 0, 0, "") \
	KEY(LOG_CONNECTIONS, "log-connections", BOOL, "true", 0, 0, "") \
	KEY(STATS_INTERVAL, "stats-interval", NUMBER, "60", 0, 86400, " seconds") \
	KEY(KEEP_CONNECTIONS, "keep-connections", BOOL, "true", 0, 0, "") \
	KEY(REFLECT_DSCP, "reflect-dscp", BOOL, "false", 0, 0, "") \
	KEY(UDP_RATE, "udp-rate", NUMBER, "1000", 0, 1000000000, " datagrams per second") \
	KEY(UDP_TRUSTED, "udp-trusted", LIST, "{}", 0, 0, "") \
	KEY(METRICS_FILE, "metrics-file", STRING, "", 0, 0, "")

#define ROW(key, text, kind, def, least, most, what) \
	[CONF_##key] = { .name = text, .type = SCHEMA_##kind, .initial = def, \
	                 .min = least, .max = most, .unit = what },
#define NAME(key, text, kind, def, least, most, what) [CONF_##key] = text,

const struct schema schema[CONF_KEYS] = { KEYS(ROW) };
const char *const schema_names[CONF_KEYS + 1] = { KEYS(NAME) };

const char *const conf_log_target_names[] = { "auto", "journal", "syslog", "stderr", NULL };
const char *const conf_log_level_names[] = { "err", "warning", "notice", "info", "debug", NULL };

const char *conf_key_name(enum conf_key key)
{
	return schema[key].name;
}

/* Read decimal digits into `*value`, which stops growing far beyond every range of the table. Returns whether the text
 * is plain digits: at least one, and no leading zero. */
static bool plain_digits(const char *text, int64_t *value)
{
	const int64_t enough = INT64_C(1000000000000);

	if (text[0] == '\0' || (text[0] == '0' && text[1] != '\0'))
		return false;
	for (*value = 0; *text; text++) {
		if (*text < '0' || *text > '9')
			return false;
		if (*value < enough)
			*value = *value * 10 + (*text - '0');
	}
	return true;
}

int schema_number(enum conf_key key, const char *text, int64_t *value, char why[static SCHEMA_WHY_MAX])
{
	const struct schema *s = &schema[key];
	bool plain = plain_digits(text, value), or_zero = s->min > 1 && strcmp(s->initial, "0") == 0;
	char shown[QUOTE_MAX];

	if (plain && ((*value >= s->min && *value <= s->max) || (or_zero && *value == 0)))
		return 0;
	snprintf(why, SCHEMA_WHY_MAX, "%s is not %sa whole number from %" PRId64 " to %" PRId64 "%s%s",
	         quote_string(shown, text), or_zero ? "0 or " : "", s->min, s->max, s->unit,
	         plain ? "" : ", written in decimal digits without leading zeros");
	return -EINVAL;
}

int schema_choice(const char *text, const char *const names[], const char *noun,
                  char why[static SCHEMA_WHY_MAX])
{
	char shown[QUOTE_MAX], all[256];
	const char *nearest;

	for (int i = 0; names[i]; i++) {
		if (strcmp(names[i], text) == 0)
			return i;
	}
	nearest = names_nearest(text, names);
	snprintf(why, SCHEMA_WHY_MAX, "%s is not a %s%s%s%s; it must be %s", quote_string(shown, text), noun,
	         nearest ? " (did you mean \"" : "", nearest ? nearest : "", nearest ? "\"?)" : "",
	         names_join(all, sizeof(all), names));
	return -EINVAL;
}
