/* SPDX-License-Identifier: ISC */
#include <config.h>

#include "conf/conf.h"

#include <confuse.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <limits.h>
#include <pwd.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <syslog.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/quote.h"
#include "conf/mistakes.h"
#include "conf/scan.h"
#include "conf/schema.h"

/* Far more than any real file has, little enough to read without a thought. */
#define FILE_MAX (1024 * 1024)

/* A key that libconfuse finds behind the text, and misses where it let something swallow the end. */
#define SENTINEL "end-of-file"
#define SENTINEL_LINE "\n" SENTINEL " = reached\n"

struct reader {
	struct conf *conf;
	const char *const *models;
	struct scan_key keys[CONF_KEYS];
	struct mistakes mistakes;
	cfg_t *cfg;
};

static const char *const protocol_names[] = { "tcp", "udp", NULL };

/* ---- errors ---- */

void conf_blame(const struct conf *conf, enum conf_key key, struct conf_errors *errors,
                const char *format, ...)
{
	const struct conf_origin *origin = &conf->origin[key];
	va_list args;
	char *text;
	int n;

	va_start(args, format);
	n = vasprintf(&text, format, args);
	va_end(args);
	if (n < 0)
		return;
	switch (origin->source) {
	case CONF_FROM_FILE:
		conf_errors_add(errors, "%s:%u: %s", conf->path, origin->line, text);
		break;
	case CONF_FROM_DEFAULT:
		conf_errors_add(errors, "%s: %s", conf->path, text);
		break;
	case CONF_FROM_COMMAND_LINE:
		conf_errors_add(errors, "command line: %s", text);
		break;
	}
	free(text);
}

/* ---- libconfuse ---- */

/* libconfuse hands its error function nothing of the caller's; one reader at a time. */
static struct mistakes *confuse_mistakes;

static void tell_confuse(cfg_t *cfg, const char *format, va_list args)
	__attribute__((format(printf, 2, 0)));

static void tell_confuse(cfg_t *cfg, const char *format, va_list args)
{
	char *text;

	if (vasprintf(&text, format, args) < 0) {
		confuse_mistakes->lost = true;
		return;
	}
	mistakes_add(confuse_mistakes, (unsigned) cfg->line, "libconfuse: %s", text);
	free(text);
}

/* Every key is a string to libconfuse: its own numbers take "010" for 8, "" for 0 and any long. */
static cfg_t *make_schema(void)
{
	cfg_opt_t options[CONF_KEYS + 2];
	char initial[CONF_KEYS][16]; /* not const, for libconfuse, which makes its own copy */

	for (int i = 0; i < CONF_KEYS; i++) {
		const struct schema *s = &schema[i];

		snprintf(initial[i], sizeof(initial[i]), "%s", s->initial);
		if (s->type == SCHEMA_LIST)
			options[i] = (cfg_opt_t) CFG_STR_LIST(s->name, initial[i], CFGF_NONE);
		else
			options[i] = (cfg_opt_t) CFG_STR(s->name, s->initial, CFGF_NONE);
	}
	options[CONF_KEYS] = (cfg_opt_t) CFG_STR(SENTINEL, "missed", CFGF_NONE);
	options[CONF_KEYS + 1] = (cfg_opt_t) CFG_END();
	return cfg_init(options, CFGF_NONE);
}

/* Parse `text`, which holds no mistake of form any more as far as the scan can tell. Returns 0, or
 * -EINVAL after telling that libconfuse sees it otherwise, or -ENOMEM; there are no values then. */
static int parse(struct reader *reader, const char *text)
{
	size_t before = reader->mistakes.count;
	int r;

	reader->cfg = make_schema();
	if (!reader->cfg)
		return -ENOMEM;
	cfg_set_error_function(reader->cfg, tell_confuse);
	confuse_mistakes = &reader->mistakes;
	errno = 0; /* libconfuse takes a stale one for its own */
	r = cfg_parse_buf(reader->cfg, text);
	confuse_mistakes = NULL;

	if (r == CFG_SUCCESS && strcmp(cfg_getstr(reader->cfg, SENTINEL), "reached") == 0)
		return 0;
	if (errno == ENOMEM)
		return -ENOMEM;
	if (reader->mistakes.count == before)
		mistakes_add(&reader->mistakes, 0, "libconfuse: the file cannot be read to its end");
	return -EINVAL;
}

/* ---- values ---- */

static unsigned line_of(const struct reader *reader, enum conf_key key)
{
	return reader->keys[key].line;
}

#define HINT_MAX (SCAN_VARIABLE_MAX + 64)

/* A clause that names the empty environment variable in the value of a key, which may be the reason of the mistake; or "". */
static const char *why_empty(const struct reader *reader, enum conf_key key, char hint[static HINT_MAX])
{
	const char *variable = reader->keys[key].empty_variable;

	*hint = '\0';
	if (*variable)
		snprintf(hint, HINT_MAX, " (the environment variable %s is set, but empty)", variable);
	return hint;
}

/* Tell what is wrong with the value of a key. */
static void blame(struct reader *reader, enum conf_key key, const char *why)
{
	char hint[HINT_MAX];

	reader->keys[key].broken = true;
	mistakes_add(&reader->mistakes, line_of(reader, key), "%s: %s%s", schema[key].name, why, why_empty(reader, key, hint));
}

static void blame_text(struct reader *reader, enum conf_key key, const char *text, const char *why)
{
	char shown[QUOTE_MAX], hint[HINT_MAX];

	reader->keys[key].broken = true;
	mistakes_add(&reader->mistakes, line_of(reader, key), "%s: %s: %s%s", schema[key].name,
	             quote_string(shown, text), why, why_empty(reader, key, hint));
}

static const char *text_of(const struct reader *reader, enum conf_key key)
{
	return cfg_getstr(reader->cfg, schema[key].name);
}

static int64_t number_of(struct reader *reader, enum conf_key key)
{
	char why[SCHEMA_WHY_MAX];
	int64_t value;

	if (schema_number(key, text_of(reader, key), &value, why) == 0)
		return value;
	blame(reader, key, why);
	return schema[key].min;
}

static bool bool_of(struct reader *reader, enum conf_key key)
{
	int value = cfg_parse_boolean(text_of(reader, key));

	if (value < 0)
		blame_text(reader, key, text_of(reader, key), "must be true or false (yes, no, on, off)");
	return value > 0;
}

static int choice_of(struct reader *reader, enum conf_key key, const char *const names[], const char *noun)
{
	char why[SCHEMA_WHY_MAX];
	int index = schema_choice(text_of(reader, key), names, noun, why);

	if (index >= 0)
		return index;
	blame(reader, key, why);
	return 0;
}

static char *string_of(struct reader *reader, enum conf_key key)
{
	char *copy = strdup(text_of(reader, key));

	if (!copy)
		reader->mistakes.lost = true;
	return copy;
}

static char *path_of(struct reader *reader, enum conf_key key)
{
	const char *path = text_of(reader, key);

	if (path[0] != '\0' && path[0] != '/')
		blame_text(reader, key, path, "must be an absolute path, beginning with /, or \"\" for none");
	else if (strlen(path) >= PATH_MAX)
		blame_text(reader, key, path, "is longer than a path can be");
	else if (path[0] == '/' && path[strlen(path) - 1] == '/')
		blame_text(reader, key, path, "names a directory; it must name a file, or be \"\" for none");
	return string_of(reader, key);
}

static void read_names(struct reader *reader)
{
	struct conf *conf = reader->conf;

	conf->user = string_of(reader, CONF_USER);
	conf->group = string_of(reader, CONF_GROUP);
	if (conf->user && conf->user[0] != '\0' && !getpwnam(conf->user))
		blame_text(reader, CONF_USER, conf->user,
		           "no such user here; name one that exists (by name, not by number), or \"\" for no change");
	if (conf->group && conf->group[0] != '\0' && !getgrnam(conf->group))
		blame_text(reader, CONF_GROUP, conf->group,
		           "no such group here; name one that exists (by name, not by number), or \"\" for the "
		           "user's own");
}

/* ---- lists ---- */

static void strings_clear(struct conf_strings *strings)
{
	for (size_t i = 0; i < strings->count; i++)
		free(strings->items[i]);
	free(strings->items);
	*strings = (struct conf_strings) { 0 };
}

static void strings_of(struct reader *reader, enum conf_key key, struct conf_strings *strings)
{
	unsigned count = cfg_size(reader->cfg, schema[key].name);

	strings->items = calloc(count + 1, sizeof(*strings->items));
	if (!strings->items) {
		reader->mistakes.lost = true;
		return;
	}
	for (unsigned i = 0; i < count; i++) {
		char *copy = strdup(cfg_getnstr(reader->cfg, schema[key].name, i));

		if (!copy) {
			reader->mistakes.lost = true;
			return;
		}
		strings->items[strings->count++] = copy;
	}
}

static void networks_of(struct reader *reader, enum conf_key key, struct cidr_set *set,
                        struct conf_strings *strings)
{
	struct cidr *networks;
	const char *why;
	size_t count = 0;

	strings_of(reader, key, strings);
	networks = calloc(strings->count + 1, sizeof(*networks));
	if (!networks) {
		reader->mistakes.lost = true;
		return;
	}
	for (size_t i = 0; i < strings->count; i++) {
		if (cidr_parse(&networks[count], strings->items[i], &why) == 0)
			count++;
		else
			blame_text(reader, key, strings->items[i], why);
	}
	if (cidr_set_make(set, networks, count) < 0)
		reader->mistakes.lost = true;
	free(networks);
}

static void read_protocols(struct reader *reader)
{
	struct conf_strings strings = { 0 };
	char why[SCHEMA_WHY_MAX];

	strings_of(reader, CONF_PROTOCOLS, &strings);
	if (strings.count == 0)
		blame(reader, CONF_PROTOCOLS, "the list is empty; it must hold \"tcp\", \"udp\" or both");
	for (size_t i = 0; i < strings.count; i++) {
		int index = schema_choice(strings.items[i], protocol_names, "protocol", why);
		bool *protocol = index == 0 ? &reader->conf->tcp : &reader->conf->udp;

		if (index < 0)
			blame(reader, CONF_PROTOCOLS, why);
		else if (*protocol)
			blame_text(reader, CONF_PROTOCOLS, strings.items[i], "listed twice; once is enough");
		else
			*protocol = true;
	}
	strings_clear(&strings);
}

/* Read one entry of `listen`. "*" is read as the IPv6 wildcard address with its port. */
static int listen_parse(struct conf_listen *entry, const char *text, uint16_t port, const char **why)
{
	char host[sizeof("[::]:65535")];
	int r;

	if (text[0] != '*' || (text[1] != '\0' && text[1] != ':') || strlen(text) > sizeof("*:65535") - 1) {
		r = addr_parse(&entry->addr, text, port, why);
		if (r != -ENODEV)
			return r;
		/* it may be there when the address is listened on */
		text = strchr(text, '%') + 1;
		snprintf(entry->interface, sizeof(entry->interface), "%.*s", (int) strcspn(text, "]"), text);
		return 0;
	}
	entry->wildcard = true;
	snprintf(host, sizeof(host), "[::]%s", text + 1);
	return addr_parse(&entry->addr, host, port, why);
}

/* Whether a socket on `a` would take what `b` asks for, so that both cannot be bound. */
static bool listen_covers(const struct conf_listen *a, const struct conf_listen *b)
{
	int a_family = a->addr.sa.sa_family, b_family = b->addr.sa.sa_family;

	if (a_family == AF_UNIX || b_family == AF_UNIX)
		return addr_equal(&a->addr, &b->addr);
	if (addr_port(&a->addr) != addr_port(&b->addr))
		return false;
	if (a->wildcard || b->wildcard)
		return a->wildcard;
	if (a_family != b_family)
		return false;
	return (addr_equal(&a->addr, &b->addr) && strcmp(a->interface, b->interface) == 0) ||
	       (a_family == AF_INET ? a->addr.in.sin_addr.s_addr == htonl(INADDR_ANY)
	                            : IN6_IS_ADDR_UNSPECIFIED(&a->addr.in6.sin6_addr));
}

/* Tell if the last of the entries clashes with one before it. */
static void check_listen(struct reader *reader, const size_t *texts)
{
	const struct conf *conf = reader->conf;
	size_t last = conf->listen_count - 1;
	char why[QUOTE_MAX + 64], shown[QUOTE_MAX];

	for (size_t i = 0; i < last; i++) {
		const struct conf_listen *a = &conf->listen[i], *b = &conf->listen[last];
		bool twice = listen_covers(a, b) && listen_covers(b, a);
		bool ahead = listen_covers(a, b);
		const char *outer = conf->listen_text.items[texts[ahead ? i : last]];
		const char *inner = conf->listen_text.items[texts[ahead ? last : i]];

		if (!ahead && !listen_covers(b, a))
			continue;
		snprintf(why, sizeof(why), twice ? "the same as %s, listed before; once is enough"
		                                 : "included in %s on the same port; list one of them",
		         quote_string(shown, outer));
		blame_text(reader, CONF_LISTEN, inner, why);
		return;
	}
}

static void read_listen(struct reader *reader)
{
	struct conf *conf = reader->conf;
	const struct conf_strings *strings = &conf->listen_text;
	size_t *texts; /* which of them each entry was read from */
	const char *why;

	strings_of(reader, CONF_LISTEN, &conf->listen_text);
	if (strings->count == 0) {
		blame(reader, CONF_LISTEN, "the list is empty; it must hold \"*\" or an address at least");
		return;
	}
	conf->listen = calloc(strings->count, sizeof(*conf->listen));
	texts = calloc(strings->count, sizeof(*texts));
	if (!conf->listen || !texts)
		reader->mistakes.lost = true;
	for (size_t i = 0; conf->listen && texts && strings->items[i]; i++) {
		struct conf_listen *entry = &conf->listen[conf->listen_count];

		*entry = (struct conf_listen) { 0 };
		if (listen_parse(entry, strings->items[i], conf->port, &why) < 0) {
			blame_text(reader, CONF_LISTEN, strings->items[i], why);
			continue;
		}
		texts[conf->listen_count++] = i;
		if (!reader->keys[CONF_PORT].broken)
			check_listen(reader, texts);
	}
	free(texts);
}

/* ---- the whole ---- */

static void read_numbers(struct reader *reader)
{
	struct conf *conf = reader->conf;

	conf->workers = (unsigned) number_of(reader, CONF_WORKERS);
	conf->port = (uint16_t) number_of(reader, CONF_PORT);
	conf->backlog = (unsigned) number_of(reader, CONF_BACKLOG);
	conf->max_connections = (unsigned) number_of(reader, CONF_MAX_CONNECTIONS);
	conf->max_per_source = (unsigned) number_of(reader, CONF_MAX_PER_SOURCE);
	conf->idle_timeout = (unsigned) number_of(reader, CONF_IDLE_TIMEOUT);
	conf->tcp_keepalive = (unsigned) number_of(reader, CONF_TCP_KEEPALIVE);
	conf->drain_timeout = (unsigned) number_of(reader, CONF_DRAIN_TIMEOUT);
	conf->buffer_size = (size_t) number_of(reader, CONF_BUFFER_SIZE);
	conf->socket_buffer = (unsigned) number_of(reader, CONF_SOCKET_BUFFER);
	conf->stats_interval = (unsigned) number_of(reader, CONF_STATS_INTERVAL);
	conf->reflect_dscp = bool_of(reader, CONF_REFLECT_DSCP);
	conf->udp_rate = (unsigned) number_of(reader, CONF_UDP_RATE);
}

/* Read every value out of libconfuse's hands. `port` comes before `listen`. */
static void read_values(struct reader *reader)
{
	struct conf *conf = reader->conf;
	int target;

	choice_of(reader, CONF_MODEL, reader->models, "model");
	conf->model = string_of(reader, CONF_MODEL);
	target = choice_of(reader, CONF_LOG_TARGET, conf_log_target_names, "log target");
	conf->log_target = (enum conf_log_target) target;
	conf->log_level = LOG_ERR + choice_of(reader, CONF_LOG_LEVEL, conf_log_level_names, "log level");
	conf->freebind = bool_of(reader, CONF_FREEBIND);
	conf->log_connections = bool_of(reader, CONF_LOG_CONNECTIONS);
	conf->keep_connections = bool_of(reader, CONF_KEEP_CONNECTIONS);
	conf->pidfile = path_of(reader, CONF_PIDFILE);
	conf->metrics_file = path_of(reader, CONF_METRICS_FILE);
	read_names(reader);
	read_protocols(reader);
	networks_of(reader, CONF_ALLOW, &conf->allow, &conf->allow_text);
	networks_of(reader, CONF_DENY, &conf->deny, &conf->deny_text);
	networks_of(reader, CONF_UDP_TRUSTED, &conf->udp_trusted, &conf->udp_trusted_text);
}

static void note_origins(struct reader *reader)
{
	for (int i = 0; i < CONF_KEYS; i++) {
		unsigned line = reader->keys[i].line;

		reader->conf->origin[i] = (struct conf_origin) {
			.source = line > 0 ? CONF_FROM_FILE : CONF_FROM_DEFAULT, .line = line
		};
	}
}

/* Let the command line win. Its values were checked when it was read. */
static void apply_overrides(struct reader *reader, const struct conf_overrides *overrides)
{
	const struct conf_origin command_line = { .source = CONF_FROM_COMMAND_LINE };
	struct conf *conf = reader->conf;

	if (overrides->model) {
		free(conf->model);
		conf->model = strdup(overrides->model);
		if (!conf->model)
			reader->mistakes.lost = true;
		conf->origin[CONF_MODEL] = command_line;
	}
	if (overrides->log_level) {
		char why[SCHEMA_WHY_MAX];

		conf->log_level = LOG_ERR + schema_choice(overrides->log_level, conf_log_level_names, "", why);
		conf->origin[CONF_LOG_LEVEL] = command_line;
	}
	if (overrides->workers >= 0) {
		conf->workers = (unsigned) overrides->workers;
		conf->origin[CONF_WORKERS] = command_line;
	}
	if (overrides->port >= 0) {
		conf->port = (uint16_t) overrides->port;
		conf->origin[CONF_PORT] = command_line;
	}
}

/* Copy the text, with room for the sentinel behind it, and refuse what is no text. */
static char *copy_text(struct reader *reader, const char *text, size_t length)
{
	const char *nul = memchr(text, '\0', length);
	char *copy;

	if (length > FILE_MAX) {
		mistakes_add(&reader->mistakes, 0, "longer than %d bytes; is it an echod.conf?", FILE_MAX);
		return NULL;
	}
	if (length >= 3 && memcmp(text, "\xef\xbb\xbf", 3) == 0) {
		mistakes_add(&reader->mistakes, 1, "begins with a byte-order mark; save the file as UTF-8 without one");
		return NULL;
	}
	if (length >= 2 && (memcmp(text, "\xff\xfe", 2) == 0 || memcmp(text, "\xfe\xff", 2) == 0)) {
		mistakes_add(&reader->mistakes, 1, "begins with the byte-order mark of UTF-16; save the file as UTF-8 without one");
		return NULL;
	}
	if (nul) {
		unsigned line = 1;

		for (const char *at = text; at < nul; at++)
			line += *at == '\n';
		mistakes_add(&reader->mistakes, line, "a NUL byte; the file must be plain text");
		return NULL;
	}
	copy = calloc(1, length + sizeof(SENTINEL_LINE));
	if (copy)
		memcpy(copy, text, length);
	else
		reader->mistakes.lost = true;
	return copy;
}

/* Whether what an impossible combination is made of was read soundly: otherwise nobody can tell. */
static bool can_be_combined(const struct reader *reader)
{
	static const enum conf_key combined[] = { CONF_MODEL, CONF_WORKERS, CONF_LISTEN, CONF_MAX_CONNECTIONS };

	for (size_t i = 0; i < sizeof(combined) / sizeof(combined[0]); i++)
		if (reader->keys[combined[i]].broken)
			return false;
	return true;
}

int conf_read_text(struct conf **conf, const char *name, const char *text, size_t length,
                   const struct conf_overrides *overrides, const char *const models[], conf_check *check,
                   struct conf_errors *errors)
{
	struct reader reader = { .models = models };
	bool complete = false;
	char *copy = NULL;
	int r;

	*conf = NULL;
	reader.conf = calloc(1, sizeof(*reader.conf));
	if (reader.conf)
		reader.conf->path = strdup(name);
	if (!reader.conf || !reader.conf->path) {
		reader.mistakes.lost = true;
		goto out;
	}
	copy = copy_text(&reader, text, length);
	if (!copy)
		goto out;
	scan_text(copy, length, reader.keys, &reader.mistakes);
	memcpy(copy + length, SENTINEL_LINE, sizeof(SENTINEL_LINE));
	r = parse(&reader, copy);
	reader.mistakes.lost |= r == -ENOMEM;
	if (r < 0)
		goto out;
	note_origins(&reader);
	read_values(&reader);
	read_numbers(&reader);
	apply_overrides(&reader, overrides);
	read_listen(&reader);
	complete = !reader.mistakes.lost && can_be_combined(&reader);
out:
	r = mistakes_tell(&reader.mistakes, name, errors);
	if (r == -ENOMEM)
		conf_errors_add(errors, "%s: not enough memory to read it", name);
	if (complete && check && check(reader.conf, errors) < 0)
		r = -EINVAL;
	if (r == 0)
		*conf = reader.conf;
	else
		conf_free(reader.conf);
	if (reader.cfg)
		cfg_free(reader.cfg);
	free(copy);
	return r;
}

/* Read all of `fd`, or one byte more than is allowed. */
static ssize_t read_all(int fd, char *text, size_t size)
{
	size_t used = 0;

	while (used < size) {
		ssize_t n = read(fd, text + used, size - used);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		if (n == 0)
			break;
		used += (size_t) n;
	}
	return (ssize_t) used;
}

int conf_read(struct conf **conf, const char *path, const struct conf_overrides *overrides,
              const char *const models[], conf_check *check, struct conf_errors *errors)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY);
	char *text = NULL;
	ssize_t n;
	int r;

	*conf = NULL;
	if (fd < 0) {
		r = -errno;
		conf_errors_add(errors, "%s: cannot be opened: %s; name the file with --config", path, strerror(-r));
		return r;
	}
	text = malloc(FILE_MAX + 1);
	n = text ? read_all(fd, text, FILE_MAX + 1) : -ENOMEM;
	close(fd);
	if (n < 0) {
		r = (int) n;
		conf_errors_add(errors, "%s: cannot be read: %s; it must be a file of text", path, strerror(-r));
	} else {
		r = conf_read_text(conf, path, text, (size_t) n, overrides, models, check, errors);
	}
	free(text);
	return r;
}

void conf_free(struct conf *conf)
{
	if (!conf)
		return;
	free(conf->path);
	free(conf->model);
	free(conf->listen);
	free(conf->user);
	free(conf->group);
	free(conf->pidfile);
	free(conf->metrics_file);
	cidr_set_clear(&conf->allow);
	cidr_set_clear(&conf->deny);
	cidr_set_clear(&conf->udp_trusted);
	strings_clear(&conf->listen_text);
	strings_clear(&conf->allow_text);
	strings_clear(&conf->deny_text);
	strings_clear(&conf->udp_trusted_text);
	free(conf);
}
